"""kill -9 of a writer under load: nothing journaled is lost, doubled or unreadable."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# The whole laboratory kills 100 times.
KILLS = int(os.environ.get("LLMOPS_KILLS", "20"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_writer_loses_and_doubles_nothing_that_was_journaled(tmp_path: Path) -> None:
    import kill

    seed = random.randrange(2**32)
    print(f"seed {seed}")
    result = kill.run(tmp_path / "data", KILLS, seed)
    print(result)
    assert result.kills == KILLS, "the fault really happened"
    assert result.journaled > 100 * KILLS, "it was under load"
    assert result.footers > KILLS / 4, "files were written and checked meanwhile"
    assert (result.lost, result.doubled, result.wrong) == (0, 0, 0)
    assert result.problems == []
    assert result.median_age_ms <= 500  # the laboratory asks for 50; here a machine may be busy


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_writer_killed_while_it_catches_up_loses_and_doubles_nothing(tmp_path: Path) -> None:
    import kill

    seed = random.randrange(2**32)
    print(f"seed {seed}")
    result = kill.run(tmp_path / "data", 5, seed, outages=True)
    print(result)
    assert result.kills == 5, "the fault really happened"
    assert result.read_back > 5, "it was catching up"
    assert (result.lost, result.doubled, result.wrong) == (0, 0, 0)
    assert result.problems == []
