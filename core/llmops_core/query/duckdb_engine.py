"""Run compiled queries on DuckDB, locked down: it may read one folder, and nothing else.

DuckDB is imported with the first query. It can read any file, write files and load code from the
network; all of that is switched off before the first statement, and the settings are locked. What
is left, writing inside of the folder, is refused by running single SELECT statements only.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmops_core.errors import QueryError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.query.answers import is_in_calendar, shape
from llmops_core.query.description import Filter, SpanQuery
from llmops_core.query.duckdb import Statement, boundary, checkup, compile_query
from llmops_core.schema import arrow_schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["Cancellation", "DuckEngine", "EngineError", "Scan", "UnreadableDataError", "run_query"]

#: Gives the rows for a query, and for one more filter, as something that pyarrow can read.
Scan = Callable[[SpanQuery, "Filter | None"], Any]

QUERY_SECONDS: Final = 60.0
MEMORY: Final = "2GB"
THREADS: Final = 4

# Of the whole engine: what is set for a connection alone does not hold for its cursors.
_SETTINGS: Final = (
    "SET GLOBAL autoinstall_known_extensions=false",
    "SET GLOBAL autoload_known_extensions=false",
    "SET GLOBAL allow_community_extensions=false",
    "SET GLOBAL python_enable_replacements=false",  # else a name in SQL could be a Python variable
    "SET GLOBAL temp_directory=''",
    "SET GLOBAL TimeZone='UTC'",
    # Footers are checked against the files' times; to decode them takes longer than a small query.
    "SET GLOBAL parquet_metadata_cache=true",
    f"SET GLOBAL memory_limit='{MEMORY}'",
    "SET GLOBAL enable_external_access=false",
    "SET GLOBAL lock_configuration=true",
)


class EngineError(StorageError):
    """The engine could not run a query. Its message never repeats a value of the query or a row."""


class UnreadableDataError(EngineError):
    """A query failed for a reason that can lie in the files it reads."""


class Cancellation:
    """Stops one query from another thread, also between two statements."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Stop the query: it raises ``EngineError``. Does not wait for it."""
        with self._lock:
            self._cancelled = True
            if self._cursor is not None:
                self._cursor.interrupt()

    def watch(self, cursor: duckdb.DuckDBPyConnection | None) -> None:
        """Name the cursor that runs now, or None. Raise ``EngineError`` if cancelled before."""
        with self._lock:
            self._cursor = cursor
            if cursor is not None and self._cancelled:
                raise EngineError("the query was cancelled")


class DuckEngine:
    """One locked connection; each query has a cursor of its own, so threads may query at once.

    Blocks the calling thread for the time of the query, outside of the interpreter lock. The
    connection costs about 10 ms and is made with the first query, anew in a forked child. Texts of
    a query are made as stored ones are, with *clean*.
    """

    def __init__(
        self, folder: Path | None = None, *, seconds: float = QUERY_SECONDS, clean: bool = True
    ) -> None:
        self._folder = folder
        self._clean = clean
        self._seconds = seconds
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._running: set[duckdb.DuckDBPyConnection] = set()
        #: How many cursors are not closed yet: one more than run while one of them ends.
        self._cursors = 0
        #: To be closed with the last of them.
        self._retired: list[duckdb.DuckDBPyConnection] = []
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Forget what is the parent's. Called in a forked child."""
        self._lock = threading.Lock()  # another thread may have held it
        # A destructor would wait for threads that only the parent has, at exit at the latest.
        for theirs in (self._connection, *self._retired, *self._running):
            if theirs is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(theirs))
        self._connection, self._retired, self._running, self._cursors = None, [], set(), 0

    def run(
        self,
        query: SpanQuery,
        tail: pa.Table,
        files: Sequence[str] = (),
        cancellation: Cancellation | None = None,
        *,
        alike: bool = False,
    ) -> pa.Table:
        """Answer a query over the Parquet files and the rows of *tail*.

        *alike* is a guess that the files have the columns of the first one, which has all: it
        saves much where there are many, and the query fails where the guess is wrong. Raises
        ``EngineError`` if DuckDB does not run it to its end within the time limit, and
        ``QueryError`` on a value that no column can hold.
        """
        cancellation = cancellation or Cancellation()
        return self._run(query, lambda _, __: tail, files, cancellation, alike=alike)

    def run_over(self, query: SpanQuery, scan: Scan, cancellation: Cancellation) -> pa.Table:
        """Answer a query over rows that lie where DuckDB itself may not go.

        *scan* is called with a query and with one more filter, and returns something of pyarrow's
        that can be read more than once. It has the columns that :func:`columns_of` names and at
        least the rows that both select; DuckDB selects again.
        """
        return self._run(query, scan, (), cancellation, wide=True)

    def _run(
        self,
        query: SpanQuery,
        scan: Scan,
        files: Sequence[str],
        cancellation: Cancellation,
        *,
        wide: bool = False,
        alike: bool = False,
    ) -> pa.Table:
        bound = None
        search = boundary(query, files, clean=self._clean, wide=wide, alike=alike)
        if search is not None:
            narrow = msgspec.structs.replace(query, columns=("span_id",))
            bound = _bound(query, self.execute(search, scan(narrow, None), cancellation))
        statement = compile_query(query, files, bound=bound, clean=self._clean, alike=alike)
        table = self.execute(statement, scan(query, bound), cancellation)
        try:
            return shape(table, query)
        except (ValueError, ArithmeticError) as error:  # pyarrow's errors are ValueErrors
            if query.is_grouped:
                raise QueryError("a result beyond 64 bits", "expected smaller numbers") from error
            raise UnreadableDataError(
                f"a stored row does not fit the schema ({type(error).__name__})"
            ) from None

    def can_read(self, files: Sequence[str], cancellation: Cancellation) -> bool:
        """Whether every value of the files can be decoded and fits the schema's types."""
        try:
            self.execute(checkup(files), arrow_schema().empty_table(), cancellation)
        except UnreadableDataError:
            return False
        return True

    def execute(self, statement: Statement, tail: Any, cancellation: Cancellation) -> pa.Table:
        """Run one SELECT over ``tail`` and files of the folder; anything else is refused."""
        import duckdb

        cursor = self._cursor()
        timer = threading.Timer(self._seconds, cursor.interrupt)
        timer.daemon = True
        try:
            cancellation.watch(cursor)
            timer.start()
            cursor.register("tail", _plain(tail))
            selected = _single_select(cursor, statement.sql)
            return cursor.sql(selected, params=statement.values).to_arrow_table()
        except duckdb.Error as error:
            # DuckDB's text may quote the query and its values; they are content, so they end here.
            raise _failed(error, self._seconds) from None
        finally:
            timer.cancel()
            cancellation.watch(None)
            self._end(cursor)

    def interrupt(self) -> None:
        """Stop the queries that run now; they raise ``EngineError``. Any thread; does not wait."""
        with self._lock:
            for cursor in self._running:
                cursor.interrupt()

    def close(self) -> None:
        """Stop what runs and drop the connection. Does not wait for what runs.

        A connection refuses to be closed while a cursor of it is at work, and a query that is
        interrupted goes on for a moment: then that query closes it.
        """
        self.interrupt()
        with self._lock:
            if self._connection is not None:
                self._retired.append(self._connection)
                self._connection = None
        self._close_retired()

    def _end(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._lock:
            self._running.discard(cursor)
        try:
            cursor.close()
        finally:
            with self._lock:
                self._cursors -= 1
            self._close_retired()

    def _close_retired(self) -> None:
        with self._lock:
            if self._cursors:
                return
            retired, self._retired = self._retired, []
        for connection in retired:
            connection.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                self._connection = _locked_connection(self._folder)
            cursor = self._connection.cursor()
            self._cursors += 1
            self._running.add(cursor)
            return cursor


def _plain(table: Any) -> Any:
    """Decode dictionaries: DuckDB 1.4 crashes the process when it sorts rows with empty ones."""
    import pyarrow as pa

    if not isinstance(table, pa.Table):  # a scan, which has none
        return table
    if not any(pa.types.is_dictionary(kind) for kind in table.schema.types):
        return table
    fields = [
        f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f
        for f in table.schema
    ]
    return table.cast(pa.schema(fields))


def _locked_connection(folder: Path | None) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(":memory:")
    if folder is not None:
        # Before external access ends, else it cannot be set; text is quoted, as SET binds nothing.
        quoted = str(folder).replace("'", "''")
        connection.execute(f"SET GLOBAL allowed_directories=['{quoted}']")
    connection.execute(f"SET GLOBAL threads={min(THREADS, os.cpu_count() or 1)}")
    for setting in _SETTINGS:
        connection.execute(setting)
    return connection


def _single_select(cursor: duckdb.DuckDBPyConnection, sql: str) -> Any:
    import duckdb

    statements = cursor.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise EngineError("a statement that is not one SELECT", "queries only read")
    return statements[0]


def _failed(error: duckdb.Error, seconds: float) -> EngineError:
    import duckdb

    if isinstance(error, duckdb.InterruptException):
        return EngineError(
            f"the query was stopped; it may take {seconds:.0f} s",
            do="select a shorter time range, fewer columns or a limit",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return EngineError(
            f"the query needs more than {MEMORY} of memory",
            do="select a shorter time range, fewer columns or a limit",
        )
    return UnreadableDataError(f"the query failed in DuckDB ({type(error).__name__})")


def _bound(query: SpanQuery, found: pa.Table) -> Filter | None:
    """Turn the boundary that was found into a filter; none where nulls may be on the page."""
    if found.num_rows == 0:
        return None
    import pyarrow as pa

    first = query.effective_order[0]
    column = found.column(0)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        if not is_in_calendar(column[0].as_py()):
            return None
    value = column[0].as_py()
    if value is None or value != value:  # NaN compares with nothing
        return None
    return Filter(first.column, ">=" if first.descending else "<=", value)


# A table of somebody else's may hold what no storage does, and be asked for it.
_over_tables: Final = DuckEngine(clean=False)


def run_query(table: pa.Table, query: SpanQuery) -> pa.Table:
    """Answer a query over an Arrow table of spans, as the built-in storages do.

    For a storage without a query language of its own. *table* has the columns of
    :func:`~llmops_core.schema.arrow_schema`. Blocks, outside of the interpreter lock; any thread.
    Raises ``StorageError`` if the query takes too long or too much memory.
    """
    return _over_tables.run(query, table)
