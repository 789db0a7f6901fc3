"""The host's side: take a start or an end on the caller's thread, and hand it over in microseconds.

A framework handler calls a :class:`Recorder`; nothing here blocks, raises, or runs foreign code.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from threading import Event, RLock
from typing import Any, Final

from llmops_core.freeze import Freezer, Frozen

__all__ = ["END", "MARK", "POINT", "START", "HostEvent", "IntakeQueue", "Recorder"]

START: Final = 0
END: Final = 1
MARK: Final = 2  # the first streamed token
POINT: Final = 3  # an event: a span of zero duration

#: ``(what, run id, parent run id, monotonic ns, wall ns, fields, weight in bytes)``
HostEvent = tuple[int, int, int | None, int, int, dict[str, Any] | None, int]

#: What an event weighs beside its content: the tuple, the dict and short texts.
EVENT_BYTES: Final = 600
