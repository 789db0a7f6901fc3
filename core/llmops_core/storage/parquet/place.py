"""A prefix in an object store, as far as a Parquet folder needs one.

A store takes an object whole or not at all, so nothing has to be renamed. What a store's library says
when it fails is not repeated: it may hold an address with a key in it.
"""

from __future__ import annotations

import contextlib
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmops_core.databases.url import DatabaseUrl, Secret
from llmops_core.errors import ConfigError, MissingDependency, RetryableError, StorageError
from llmops_core.storage.parquet.files import RangeFile, is_day, named_files

if TYPE_CHECKING:
    from pyarrow import fs

__all__ = ["Place", "PlaceUrl", "store_errors"]

_S3_OPTIONS: Final = ("endpoint_override", "region", "scheme")
_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 30.0
_ATTEMPTS: Final = 2
_CODE: Final = re.compile(r"AWS Error ([A-Z_]{3,40})")
#: What somebody has to set right, other than what passes.
_SETTINGS: Final = frozenset(
    {"ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"}
    | {"INVALID_SIGNATURE", "UNRECOGNIZED_CLIENT", "INVALID_CLIENT_TOKEN_ID"}
)


class PlaceUrl:
    """``s3://bucket/prefix?region=eu-central-1``, or a URL that fsspec or pyarrow knows."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.scheme = parts.scheme
        self.options = self._read_options(parts.query)
        self.key = Secret(urllib.parse.unquote(parts.username)) if parts.username else None
        self.secret = Secret(urllib.parse.unquote(parts.password)) if parts.password else None
        self.bucket = parts.netloc.rpartition("@")[2]
        self.prefix = urllib.parse.unquote(parts.path).strip("/")
        if not self.bucket or ".." in self.prefix.split("/") or "\0" in self.prefix:
            raise ConfigError(
                f"a {self.scheme} URL without a bucket, or with a path that leads out of it",
                "expected 'parquet:s3://bucket/prefix'",
            )
        if parts.fragment:
            raise ConfigError(f"a '#' in the {self.scheme} URL", do="write '%23'")
        if (self.key is None) != (self.secret is None):
            raise ConfigError(f"a key without its secret in the {self.scheme} URL")

    def __repr__(self) -> str:
        return f"<{self.place}>"

    @property
    def place(self) -> str:
        """The URL without a key: for messages."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    def _read_options(self, query: str) -> dict[str, str]:
        known = _S3_OPTIONS if self.scheme == "s3" else ()
        found = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        for name in found:
            if name not in known:
                raise ConfigError(
                    f"option {name[:40]!r} in the {self.scheme} URL",
                    "expected one of " + ", ".join(known) if known else "expected none",
                    "give keys by the store's environment variables, or as s3://KEY:SECRET@bucket",
                )
        if found.get("scheme", "https") not in ("http", "https"):
            raise ConfigError(f"scheme={found['scheme'][:40]!r}", "expected http or https")
        return found

    def connect(self) -> fs.FileSystem:
        """Return the store. The first one of S3 costs about half a second."""
        import pyarrow as pa
        from pyarrow import fs

        if self.scheme == "s3":
            return self._connect_s3()
        if self.scheme in ("gs", "gcs", "abfs", "abfss"):
            return fs.FileSystem.from_uri(f"{self.scheme}://{self.bucket}")[0]
        try:
            import fsspec
        except ImportError:
            raise MissingDependency(
                f"{self.scheme}:// needs a package that is not installed",
                do="pip install fsspec, and the package that fsspec needs for it",
            ) from None
        try:
            theirs = fsspec.filesystem(self.scheme)
        except (ValueError, ImportError):
            raise ConfigError(
                f"{self.scheme}:// is no store that fsspec knows, or a package for it is missing",
                "expected s3, gs, abfs, or one of fsspec's",
            ) from None
        return pa.fs.PyFileSystem(pa.fs.FSSpecHandler(theirs))

    def _connect_s3(self) -> fs.FileSystem:
        from pyarrow import fs

        endpoint = self.options.get("endpoint_override", "")
        scheme, sep, host = endpoint.partition("://")
        if not sep:
            scheme, host = self.options.get("scheme", ""), endpoint
        if not scheme:
            # As for a database: nothing goes unencrypted to another machine unless it is said.
            local = bool(host) and DatabaseUrl(f"s3://{host}", port=0).is_local
            scheme = "http" if local else "https"
        given: dict[str, Any] = {"region": self.options.get("region")}
        if self.key is not None and self.secret is not None:
            given |= {"access_key": self.key.reveal(), "secret_key": self.secret.reveal()}
        return fs.S3FileSystem(
            endpoint_override=host or None,
            scheme=scheme,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_REQUEST_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            **{name: value for name, value in given.items() if value is not None},
        )


class Place:
    """The objects below a prefix. Each call blocks for the network; safe from several threads."""

    def __init__(self, url: PlaceUrl) -> None:
        self.url = url
        self.filesystem = url.connect()
        self._base = f"{url.bucket}/{url.prefix}".rstrip("/")

    def check(self, *, read_only: bool) -> None:
        """Raise ``StorageError`` if there is no bucket, or nothing to read for a reader."""
        from pyarrow import fs

        with store_errors(self.url.place):
            found = self.filesystem.get_file_info(self.url.bucket)
            if found.type == fs.FileType.NotFound and self.url.scheme in ("s3", "gs", "gcs"):
                raise StorageError(
                    f"there is no bucket {self.url.bucket!r}, or it may not be seen",
                    "expected one that exists",
                    "make it, and check region and keys",
                )
            if read_only and not self.days():
                raise StorageError(
                    f"there is nothing at {self.url.place}",
                    "expected what a monitor has written",
                    "check bucket and prefix of the storage URL",
                )

    def days(self) -> list[str]:
        """Return the days that have objects, oldest first."""
        return sorted(n for n in map(_name, self._list(self._base)) if is_day(n))

    def list_day(self, day: Path) -> list[RangeFile]:
        """Return the files of a day, whose name is all that counts of *day*."""
        return named_files(self._list(f"{self._base}/{day.name}"), day.name)

    def list_files(self, since_day: str) -> list[RangeFile]:
        """Return the files of the days from *since_day* on."""
        return [f for day in self.days() if day >= since_day for f in self.list_day(Path(day))]

    def path(self, day: str, name: str) -> str:
        """Return the path of an object."""
        return f"{self._base}/{day}/{name}"

    def info(self, path: str) -> fs.FileInfo:
        """Return size and time of an object, which may not be there."""
        return self.filesystem.get_file_info(path)

    def exists(self, path: str) -> bool:
        """Whether an object is there."""
        from pyarrow import fs

        return bool(self.info(path).type == fs.FileType.File)

    def put(self, path: str, content: bytes) -> None:
        """Write an object, whole or not at all."""
        if self.url.scheme not in ("s3", "gs", "gcs"):  # the others have folders
            self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(content)
        self._check_whole(path, len(content))

    def read(self, path: str) -> bytes | None:
        """Return an object's content; None if it is not there."""
        try:
            with self.filesystem.open_input_stream(path) as stream:
                return bytes(stream.readall())
        except FileNotFoundError:
            return None

    def fetch(self, path: str, to: Path) -> None:
        """Copy an object into a local file, a piece at a time."""
        with self.filesystem.open_input_stream(path) as stream, to.open("xb") as file:
            while piece := stream.read(8 * 1024 * 1024):
                file.write(piece)

    def send(self, file: Path, path: str) -> None:
        """Copy a local file into an object, which appears when all of it is there."""
        with file.open("rb") as source, self.filesystem.open_output_stream(path) as stream:
            while piece := source.read(8 * 1024 * 1024):
                stream.write(piece)
        self._check_whole(path, file.stat().st_size)

    def _check_whole(self, path: str, size: int) -> None:
        """Raise unless an object has its size: a library may close what failed half-way."""
        found = self.info(path).size
        if found != size:
            self.remove(path)
            raise OSError(f"an object of {found} bytes instead of {size}")

    def remove(self, path: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def _list(self, folder: str) -> list[str]:
        from pyarrow import fs

        found = self.filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        return [info.path for info in found]


@contextlib.contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Turn what a store's library raises into our errors."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        code = _CODE.search(str(error))
        told = code[1].lower().replace("_", " ") if code else type(error).__name__
        if code and code[1] in _SETTINGS:
            raise StorageError(
                f"{place} cannot be used: {told}", do="check bucket, region and keys"
            ) from None
        raise RetryableError(f"{place} did not do what was asked: {told}") from None


def _name(path: str) -> str:
    return path.rpartition("/")[2]
