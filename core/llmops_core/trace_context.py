"""Traces that begin elsewhere: W3C ``traceparent`` headers, and OpenTelemetry's span around us.

https://www.w3.org/TR/trace-context/ is the header's definition. Strict on the way in: what is not
exactly a header is none, as it may come from anybody.
"""

from __future__ import annotations

import re
import sys
from typing import Final, NamedTuple

__all__ = ["Remote", "ambient_span", "format_traceparent", "parse_traceparent"]

_HEADER: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
#: A later version may say more; more than this is no header.
MAX_CHARS: Final = 512


class Remote(NamedTuple):
    """A span of another process, or of another library: the parent of what starts here."""

    trace_id: str
    span_id: str


def parse_traceparent(header: object) -> Remote | None:
    """Return the trace and the span that a header names; None for anything that is no header.

    A version that is not known yet is read as version 00, as the standard asks; ``ff`` is invalid.
    """
    if type(header) is not str or len(header) > MAX_CHARS:
        return None
    found = _HEADER.fullmatch(header)
    if found is None:
        return None
    version, trace_id, span_id, _, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Remote(trace_id, span_id)


def format_traceparent(trace_id: str, span_id: str) -> str:
    """Return the header, version 00, with the flag that says that the trace is recorded."""
    return f"00-{trace_id}-{span_id}-01"


def ambient_span() -> Remote | None:
    """Return OpenTelemetry's span around the caller; None if there is none, or it is not in use.

    OpenTelemetry is asked only where something else has imported it. Never raises.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return Remote(f"{context.trace_id:032x}", f"{context.span_id:016x}")
    except Exception:  # half imported, or a context of somebody's own
        return None
