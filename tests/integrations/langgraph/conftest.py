"""Makes the kits importable: tests are collected without a package around them."""

from __future__ import annotations

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[1] / "langchain"):
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))
