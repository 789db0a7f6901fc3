"""The short subset of the laboratory of outages: every row of it must pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

#: MariaDB is killed, hung and robbed of an answer in tests of its own (test_storage_mysql_outage.py);
#: everything, for a minute each, is ``run.py --only outages``.
SUBSET = {"postgresql": ("restart in an outage", "answer lost"), "clickhouse": ("stopped",)}
PACKAGES = {"postgresql": ("asyncpg",), "clickhouse": ("clickhouse_connect", "chdb")}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", list(SUBSET))
def test_nothing_is_lost_or_doubled_whatever_happens_to_a_database(database: str) -> None:
    for package in PACKAGES[database]:
        pytest.importorskip(package)
    import outage_servers
    import outages

    why = outage_servers.missing(database)
    if why is not None:
        pytest.skip(why)
    rows = list(outages.cells(database, SUBSET[database], *outages.QUICK))
    for row in rows:
        print(row)
    assert [row for row in rows if not row.passed] == []
    assert len(rows) == len(SUBSET[database])
