"""ClickHouse's own engine (chdb) behind a small HTTP server: as much of it as a client needs.

Run as a program with a folder for the data, and a port where it is to have a certain one; it prints
its port. What a client sends is run as it is, but for two things that an engine inside a process has
no word for: the body of an INSERT is put into a file, and ``input(...)``, which reads the body, becomes
``file(...)``, which reads that file.
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import chdb

_RESERVED = {"database", "query", "compress", "decompress", "enable_http_compression", "query_id"}
_RESERVED |= {"user", "password", "wait_end_of_query", "client_protocol_version", "session_id"}
_INSERT = re.compile(rb"\s*INSERT\s+INTO\s.*?\sFORMAT\s+(\w+)[ \t]*\n", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"Code:\s*(\d+)")


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = ""

    def do_GET(self) -> None:
        self._answer(200, b"Ok.\n")

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(length)
        given = dict(urllib.parse.parse_qsl(self.path.partition("?")[2], keep_blank_values=True))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            given |= _form(kind, body)
            body = b""
        sql = given.get("query", "").encode() + (b"\n" if "query" in given else b"") + body
        try:
            answer = (200, _run(self.folder, given, sql), "")
        except Exception as error:
            told = str(error)
            found = _CODE.search(told)
            answer = (500, told.encode(), found[1] if found else "1000")
        with contextlib.suppress(ConnectionError):  # who asked has gone
            self._answer(*answer)

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("X-ClickHouse-Summary", "{}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that goes is no error
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _form(kind: str, body: bytes) -> dict[str, str]:
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    found = {}
    for part in body.split(boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if name:
            found[name[1].decode()] = value[:-2].decode()
    return found


def _run(folder: str, given: dict[str, str], sql: bytes) -> bytes:
    connection = chdb.connect(folder)
    try:
        for name, value in given.items():
            if name not in _RESERVED and not name.startswith("param_"):
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                connection.query(f"SET {name} = '{quoted}'")
        if given.get("database"):
            connection.query(f"USE `{given['database']}`")
        parameters = {n[6:]: v for n, v in given.items() if n.startswith("param_")}
        insert = _INSERT.match(sql)
        if insert and len(sql) > insert.end():
            return _insert(connection, sql, insert, parameters)
        text, form = _split_format(sql.decode())
        answer = connection.query(text, form, params=parameters)
        return bytes(answer.bytes())
    finally:
        connection.close()


def _split_format(text: str) -> tuple[str, str]:
    found = re.search(r"\sFORMAT\s+(\w+)\s*$", text, re.IGNORECASE)
    return (text[: found.start()], found[1]) if found else (text, "TabSeparated")


def _insert(
    connection: object, sql: bytes, insert: re.Match[bytes], parameters: dict[str, str]
) -> bytes:
    statement = insert[0].decode()
    form = insert[1].decode()
    with tempfile.NamedTemporaryFile(suffix="." + form) as file:
        file.write(sql[insert.end() :])
        file.flush()
        if " input(" in statement:
            statement = statement[: statement.upper().rindex("FORMAT")]
            statement = statement.replace(" input(", f" file('{file.name}', '{form}', ")
        else:
            at = statement.upper().rindex("FORMAT")
            statement = f"{statement[:at]} FROM INFILE '{file.name}' FORMAT {form}"
        connection.query(statement, "TabSeparated", params=parameters)
    return b""


def main() -> None:
    Request.folder = sys.argv[1]
    keep = chdb.connect(Request.folder)  # one connection holds the engine up between requests
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = Server(("127.0.0.1", port), Request)
    print(server.server_address[1], flush=True)
    # The parent's end of the pipe closes when it dies, however it dies.
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever()
    keep.close()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    main()
