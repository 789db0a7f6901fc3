"""Vocabularies of tiktoken's encodings on this machine, and how they get there. Never downloads.

tiktoken fetches a vocabulary from the network on first use, without a timeout. So it is only asked
for an encoding whose file is there already: in our own folder, where ``llmops tokens install`` puts
it, or in tiktoken's cache. A file is checked against the hash that tiktoken itself expects.
"""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any, Final

from llmops_core.config import state_dir
from llmops_core.errors import ConfigError, MissingDependency

__all__ = ["HASHES", "find_vocabulary", "folder", "install", "read_ranks"]

_BASE: Final = "https://openaipublic.blob.core.windows.net/encodings/"
#: SHA-256 of each vocabulary file. Encodings that merge alike share one.
HASHES: Final = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
}


def folder() -> Path:
    """Return the folder of the vocabularies that were placed by hand."""
    return state_dir() / "vocabularies"


def find_vocabulary(name: str) -> bytes | None:
    """Return the checked vocabulary of an encoding; None if it is not on this machine."""
    for path in (folder() / f"{name}.tiktoken", _cache_path(name)):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == HASHES[name]:
            return data
    return None


def read_ranks(data: bytes) -> dict[bytes, int]:
    """Return the ranks of a vocabulary file."""
    pairs = (line.split() for line in data.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def install(source: str) -> str:
    """Place a vocabulary: of a file, or by letting tiktoken download the encoding of that name.

    Return the encoding's name. Called by ``llmops tokens install``, never by itself.
    """
    path = Path(source)
    if path.is_file():
        return _place(path.read_bytes(), source)
    if source not in HASHES:
        raise ConfigError(
            f"{source!r} is neither a file nor an encoding",
            "expected a .tiktoken file, or one of " + ", ".join(HASHES),
        )
    return _place(_download(source), source)


def _place(data: bytes, source: str) -> str:
    digest = hashlib.sha256(data).hexdigest()
    name = next((name for name, known in HASHES.items() if known == digest), None)
    if name is None:
        raise ConfigError(
            f"{source!r} is no vocabulary that is known (SHA-256 {digest[:12]}…)",
            "expected one of " + ", ".join(HASHES),
        )
    folder().mkdir(parents=True, exist_ok=True)
    temporary = folder() / f".{name}.{os.getpid()}.tmp"
    temporary.write_bytes(data)
    temporary.replace(folder() / f"{name}.tiktoken")
    return name


def _download(name: str) -> bytes:
    try:
        from tiktoken.load import read_file
    except ImportError:
        raise MissingDependency(
            "tiktoken is not installed", "expected it", "pip install 'llmops-integrations[tokens]'"
        ) from None
    try:
        data: Any = read_file(f"{_BASE}{name}.tiktoken")
    except Exception as error:
        raise ConfigError(
            f"{name} could not be downloaded: {type(error).__name__}",
            "expected the network",
            f"copy {_BASE}{name}.tiktoken here by other means and name the file",
        ) from None
    return bytes(data)


def _cache_path(name: str) -> Path:
    """Return where tiktoken keeps the file that it has downloaded."""
    import tempfile

    named = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    root = Path(named) if named else Path(tempfile.gettempdir()) / "data-gym-cache"
    key = hashlib.sha1(f"{_BASE}{name}.tiktoken".encode(), usedforsecurity=False).hexdigest()
    return root / key
