"""Which frameworks are installed, and whether that release is one that is tested."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from typing import Final

from llmops_core import Finding

__all__ = ["OLDEST_TESTED", "Frameworks", "version_of"]

#: The oldest releases that are tested; tox.ini pins the same.
OLDEST_TESTED: Final = {"langchain-core": "1.4.9", "langgraph": "1.2.5", "crewai": "1.15.18"}


def version_of(package: str) -> str | None:
    """Return the release of a package that is installed; None without it. Imports nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_older(version: str, than: str) -> bool:
    """Whether a release is older than another; of what is no number only what stands before it."""
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


class Frameworks:
    """Releases, from their metadata."""

    def check(self) -> Iterator[Finding]:
        """Return one finding for each framework."""
        for package, oldest in OLDEST_TESTED.items():
            version = version_of(package)
            facts = {"package": package, "version": version, "oldest_tested": oldest}
            if version is None:
                yield Finding(f"{package} is not installed", facts=facts)
            elif is_older(version, oldest):
                text = f"{package} {version} is older than {oldest}, the oldest that is tested"
                yield Finding(text, "note", {**facts, "tested": False})
            else:
                yield Finding(f"{package} {version}", facts={**facts, "tested": True})
