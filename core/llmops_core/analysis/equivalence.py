"""Whether two values that no rule matches mean the same: asked of a function that somebody registers.

``Bob`` and ``Robert Miller``, ``the blue one`` and ``SKU-2210``: a table of synonyms knows, or a model.
It is asked about leftovers only, what one side has and the other does not, and within a budget.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from llmops_core.analysis.pairing import family

if TYPE_CHECKING:
    from llmops_core.scanner import Entity

__all__ = ["Equivalence", "Equivalences"]

_log = logging.getLogger("llmops")

#: Values of the other side that are asked about for one leftover.
_MOST_EACH: Final = 8
#: Failures in a row after which one is asked no more.
_MOST_FAILURES: Final = 5


@runtime_checkable
class Equivalence(Protocol):
    """Says of two values whether they mean the same."""

    def same(self, kind: str, first: str, second: str) -> bool:
        """Return whether *first*, of the source, and *second*, of the target, mean the same.

        *kind* is the type of the first. Called by an analysis, on its thread, for values that are
        left over and of one family of types; once for each pair of texts. Return False where you do
        not know. If you raise, that is counted and the values stay what they were.
        """


class Equivalences:
    """Asks equivalences about leftovers, within a budget over all comparisons; counts what it did.

    Not safe for several threads. *calls* and *seconds* are what all comparisons may spend; a call
    that hangs is not cut off.
    """

    def __init__(
        self,
        equivalences: Iterable[Equivalence],
        *,
        calls: int = 1_000,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked_of = list(equivalences)
        self._failures = [0] * len(self._asked_of)
        self._calls = calls
        self._left_s = seconds
        self._clock = clock
        self._known: dict[tuple[str, str, str], bool] = {}
        #: ``calls``, ``same``, ``over_budget`` (pairs not asked about), ``failed:TYPE`` by error.
        self.counts: Counter[str] = Counter()

    def matches(self, left: Sequence[Entity], news: Sequence[Entity]) -> dict[int, int]:
        """Return which of *left* means the same as which of *news*, one to one, in order."""
        if not self._asked_of or not left or not news:
            return {}
        by_family: dict[str, list[int]] = {}
        for at, entity in enumerate(news):
            by_family.setdefault(family(entity), []).append(at)
        found: dict[int, int] = {}
        for at, entity in enumerate(left):
            candidates = by_family.get(family(entity), [])
            for other in candidates[:_MOST_EACH]:
                if self._same(entity.type, entity.text, news[other].text):
                    found[at] = other
                    candidates.remove(other)
                    break
        return found

    def _same(self, kind: str, first: str, second: str) -> bool:
        key = (kind, first, second)
        if key not in self._known:
            if self.counts["calls"] + len(self._asked_of) > self._calls or self._left_s <= 0:
                self.counts["over_budget"] += 1
                return False
            self._known[key] = any(self._ask(at, *key) for at in range(len(self._asked_of)))
            self.counts["same"] += self._known[key]
        return self._known[key]

    def _ask(self, at: int, kind: str, first: str, second: str) -> bool:
        if self._failures[at] >= _MOST_FAILURES:
            return False
        self.counts["calls"] += 1
        began = self._clock()
        try:
            answer: Any = self._asked_of[at].same(kind, first, second)
            if not isinstance(answer, bool):
                raise TypeError("an answer that is neither True nor False")
            self._failures[at] = 0
            return answer
        except KeyboardInterrupt:  # may be the user's own
            raise
        except BaseException as error:
            self._failed(at, error)
            return False
        finally:
            self._left_s -= self._clock() - began

    def _failed(self, at: int, error: BaseException) -> None:
        self._failures[at] += 1
        reason = f"failed:{type(error).__name__}"
        self.counts[reason] += 1
        if self.counts[reason] == 1:  # without its text, which may hold the values
            name = type(self._asked_of[at]).__name__
            _log.warning("equivalence %s failed: %s", name, type(error).__name__)
