"""One outage of a storage: one line when it begins, one when it is over."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Final

__all__ = ["Outage"]

logger: Final = logging.getLogger("llmops")


class Outage:
    """Whether a storage takes spans, and since when it does not. On the storage's own thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.since: float | None = None
        #: The type of the last error, also after the outage.
        self.last_error: str | None = None

    def failed(self, error: BaseException) -> None:
        """Take note of a write that will be tried again; tell of the first."""
        self.last_error = type(error).__name__
        if self.since is not None:
            return
        self.since = time.monotonic()
        # Type only: the text of an error may hold a value of a span.
        with contextlib.suppress(Exception):  # the application's own log handler may fail
            logger.warning(
                "storage %s takes no spans (%s); they wait in the journal and are tried again",
                self._name,
                self.last_error,
            )

    def over(self) -> None:
        """Take note of a write that went well; tell of the first after an outage."""
        if self.since is None:
            return
        seconds, self.since = time.monotonic() - self.since, None
        with contextlib.suppress(Exception):
            logger.warning("storage %s takes spans again, after %.0f s", self._name, seconds)
