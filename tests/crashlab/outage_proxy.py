"""Stands between a storage and its server, and lets nothing through, or loses the answer to a commit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final

#: What a client sends last before the server commits: the rest of it may come in another packet.
COMMITS: Final = {
    "postgresql": b"c\x00\x00\x00\x04",  # the end of a COPY
    "mariadb": b"\x03COMMIT",
    "clickhouse": b"INSERT INTO",  # answered once it is stored
}


class _Link:
    """One connection of a client, and ours to the server."""

    def __init__(self, *, dead: bool) -> None:
        #: Nothing gets through any more, and nobody is told.
        self.dead = dead
        self.losing = False


class Proxy:
    """Listens on :attr:`port`, on a thread of its own. A connection that was cut stays dead."""

    def __init__(self, server_port: int, commit: bytes) -> None:
        self.server_port = server_port
        self.port = 0
        #: How many answers to a commit were lost, and how many connections went dead.
        self.lost = self.cut_off = 0
        self._commit = commit
        self._to_lose = 0
        self._instead: Callable[[], None] = lambda: None
        self._dark = False
        self._links: set[_Link] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def cut(self) -> None:
        """From now on nothing arrives, in either direction, and no connection is closed."""
        self._dark = True
        for link in list(self._links):
            link.dead = True
            self.cut_off += 1

    def heal(self) -> None:
        """New connections work again."""
        self._dark = False

    def lose(self, count: int, instead: Callable[[], None] = lambda: None) -> None:
        """Lose the answers to the next commits: call *instead*, then close the connection."""
        self._instead, self._to_lose = instead, count

    def close(self) -> None:
        """End it, with all that it carries."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        listening.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        link = _Link(dead=self._dark)
        self._links.add(link)
        writers = [out]
        try:
            if link.dead:
                self.cut_off += 1
                while await near.read(65536):
                    pass
                return
            far, into = await asyncio.open_connection("127.0.0.1", self.server_port)
            writers.append(into)
            ways = [self._up(link, near, into), self._down(link, far, out)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there, and so the client is told; or the proxy ends
        finally:
            self._links.discard(link)
            for writer in writers:
                with contextlib.suppress(OSError):
                    writer.transport.abort()

    async def _up(
        self, link: _Link, near: asyncio.StreamReader, into: asyncio.StreamWriter
    ) -> None:
        tail = b""
        while data := await near.read(65536):
            if link.dead:
                continue
            if self._to_lose and self._commit in tail + data:
                self._to_lose -= 1
                link.losing = True
            tail = data[-16:]
            into.write(data)
            await into.drain()

    async def _down(
        self, link: _Link, far: asyncio.StreamReader, out: asyncio.StreamWriter
    ) -> None:
        while data := await far.read(65536):
            if link.dead:
                continue
            if link.losing:
                await asyncio.to_thread(self._instead)
                self.lost += 1
                return
            out.write(data)
            await out.drain()
        if link.dead:  # the server has closed, and the client does not hear of it
            await asyncio.Future()
