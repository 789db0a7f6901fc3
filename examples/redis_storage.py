"""A storage of your own, complete, in one file: spans in Redis, under the scheme ``redis``.

Each span is a field of one hash, by its id; a sorted set holds the ids by their start. Redis cannot
answer the queries, so the spans of a query's time range are read and the engine in this process does.
That is its limit: what a query selects by time must fit into memory, here and in Redis.

Copy it into your project, and name it with ``Monitor("redis://localhost", plugins=[redis_storage])``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec

from llmops_core import (
    ConfigError,
    MissingDependency,
    Registry,
    RetryableError,
    Span,
    SpanBatch,
    SpanQuery,
    StorageError,
    hookimpl,
    spans_to_arrow,
)
from llmops_core.query import check_selection, run_query
from llmops_core.storable import storable

try:
    import redis.asyncio as redis
    from redis.exceptions import RedisError
except ImportError:
    redis = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pyarrow as pa

READ_AT_ONCE = 1_000
#: A score is a double: beyond the year 2255 it is no whole microsecond. So a range is read with a
#: second more on both sides, and the engine cuts it exactly.
MARGIN = 1_000_000
#: Sets a field only where it is: a span that was deleted must not come back.
REPLACE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""

# A span is an array of its values, in the order of the schema, which only ever grows at its end.
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Span)


class RedisStorage:
    """Spans in one Redis database, under keys that begin with a prefix."""

    def __init__(self, url: str) -> None:
        """Take ``redis://user:password@host:port/number?prefix=name``; connect in :meth:`open`."""
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        prefix = options.pop("prefix", ["llmops"])[-1]
        if options or not prefix:
            raise ConfigError("a redis URL with other options", "expected ?prefix=NAME or none")
        if redis is None:
            raise MissingDependency(
                "the storage 'redis' needs the package redis, which is not installed",
                do="install it with: pip install redis",
            )
        self.read_only = False
        self._url = urlunsplit(parts._replace(query=""))
        self._shown = f"redis://{parts.hostname or 'localhost'}:{parts.port or 6379}"
        self._spans, self._starts = f"{prefix}:spans", f"{prefix}:starts"
        self._client: Any = None

    async def open(self) -> None:
        """Connect. Raise what a person can act on; a server that is away now may come back."""
        self._client = redis.Redis.from_url(
            self._url, socket_connect_timeout=5, socket_timeout=30, max_connections=10
        )
        try:
            await self._told(self._client.ping())
            if self.read_only and not await self._told(self._client.exists(self._spans)):
                raise StorageError(
                    f"nothing is stored in {self._shown} under this prefix",
                    "expected one that a monitor has written",
                )
        except BaseException:
            await self.close()  # nobody else does: it was not opened
            raise

    async def write(self, batch: SpanBatch) -> None:
        """Store all of the batch or nothing; a span id that is there stays as it is."""
        rows = storable(batch).rows  # what no storage can hold becomes what all of them hold
        if not rows:
            return
        async with self._client.pipeline(transaction=True) as commands:
            for span in rows:
                commands.hsetnx(self._spans, span.span_id, _encoder.encode(span))
                commands.zadd(self._starts, {span.span_id: span.start_time}, nx=True)
            await self._told(commands.execute())

    async def query(self, query: SpanQuery) -> pa.Table:
        """Read the query's time range, and let the engine of the built-in storages answer."""
        since, until = query.since, query.until
        if any(aggregate.function == "error_rate" for aggregate in query.aggregates):
            since = until = None  # whether an error was made good is looked for among all spans
        spans = await self._read(since, until)
        return await asyncio.to_thread(lambda: run_query(spans_to_arrow(spans), query))

    async def delete(self, query: SpanQuery) -> int:
        """Delete what a query selects."""
        selection = msgspec.structs.replace(check_selection(query), columns=("span_id",))
        ids = (await self.query(selection))["span_id"].to_pylist()
        if not ids:
            return 0
        async with self._client.pipeline(transaction=True) as commands:
            commands.hdel(self._spans, *ids)
            commands.zrem(self._starts, *ids)
            deleted, _ = await self._told(commands.execute())
        return int(deleted)

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite the spans that are there; one that is not, or no longer, does not come back."""
        async with self._client.pipeline(transaction=False) as commands:
            for span in storable(batch).rows:
                commands.eval(REPLACE, 1, self._spans, span.span_id, _encoder.encode(span))
            return sum(await self._told(commands.execute()))

    async def close(self) -> None:
        """Close the connections; what is stored stays."""
        if self._client is not None:
            await self._client.aclose()

    async def _read(self, since: int | None, until: int | None) -> list[Span]:
        first = "-inf" if since is None else since - MARGIN
        last = "+inf" if until is None else until + MARGIN
        ids = await self._told(self._client.zrangebyscore(self._starts, first, last))
        spans: list[Span] = []
        for at in range(0, len(ids), READ_AT_ONCE):
            found = await self._told(self._client.hmget(self._spans, ids[at : at + READ_AT_ONCE]))
            spans += [_decoder.decode(data) for data in found if data is not None]
        return spans

    async def _told(self, work: Any) -> Any:
        """Await a command. What Redis says may hold an address or a value, so its kind is told."""
        try:
            return await work
        except (RedisError, OSError) as error:
            raise RetryableError(f"Redis at {self._shown}: {type(error).__name__}") from None


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the storage; ``plugins=[this module]`` or an entry point named ``redis`` calls it."""
    registry.storage("redis", RedisStorage)


def main() -> None:
    """Store a call in Redis and read it back, or say what is needed."""
    from llmops_core import LLMOpsError, Monitor, monitor_llm

    url = "redis://127.0.0.1:6379/0?prefix=llmops-example"
    try:
        with Monitor(url, plugins=[sys.modules[__name__]], collectors=["capacity"]) as monitor:

            @monitor_llm("greet", operation_type="llm_call", monitor=monitor)
            def greet(name: str) -> str:
                return f"Hello, {name}!"

            greet("Ann")
            if not monitor.flush().complete:
                print("Redis does not answer at 127.0.0.1:6379; start it with: redis-server")
                return
            for row in monitor.query(columns=["kind", "name", "output"], limit=1).to_pylist():
                print("in Redis:", row["kind"], row["name"], row["output"])
    except LLMOpsError as error:
        print(error)
        print("Redis is needed at 127.0.0.1:6379: redis-server, and pip install redis")


if __name__ == "__main__":
    main()
