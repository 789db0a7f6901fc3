"""Content: a frozen copy as the text that is stored, clean for every storage.

Runs on the intake thread. The canonical form: a lone text as it is; anything else as compact JSON
in UTF-8 with sorted keys, but for messages and tool calls, whose keys have a fixed order.

NUL becomes U+2400 and a lone surrogate U+FFFD, in keys too: PostgreSQL refuses both, pyarrow the
second. A key that meets another one gets a suffix: ``a``, ``a#2``.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from llmops_core.freeze.freezer import Freezer, Frozen, FrozenBytes, FrozenMessage, FrozenToolCall
from llmops_core.image_heads import image_head
from llmops_core.storable import sanitize_text

__all__ = ["Content", "encode_content"]


_REFREEZER: Final = Freezer(text_limit=1_000_000, node_limit=100_000, depth_limit=64)
_UNENCODABLE: Final = "<unencodable>"
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)
_BINARY: Final = "application/octet-stream"
_RIFF: Final = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


class Content(msgspec.Struct, frozen=True, gc=False):
    """Text ready to be stored, and what was done to it."""

    text: str
    truncated: bool
    size: int  # bytes before the cut; a lower bound if truncated
    nul: int = 0  # how many NULs were replaced
    surrogates: int = 0  # how many lone surrogates were replaced


def encode_content(frozen: Frozen) -> Content:
    """Encode a frozen copy. Total: whatever the copy holds, a text comes out."""
    value = frozen.value
    if type(value) is str:
        text, nul, surrogates = sanitize_text(value)
        size = len(text) if text.isascii() else len(text.encode())
        return Content(text, frozen.truncated, size + frozen.cut_bytes, nul, surrogates)
    try:
        data = _ENCODER.encode(value if type(value) is not dict else _with_histories(value))
        # Six characters that an escaped backslash may also spell; the walk tells which.
        if b"\\u0000" not in data:
            return Content(data.decode(), frozen.truncated, len(data) + frozen.cut_bytes)
    except Exception:  # noqa: S110 - a surrogate, or a value that is not plain: walk it
        pass
    return _encode_walked(frozen)


class _Encoded:
    """Lists of messages that come by again and again, and their JSON; shared without a lock.

    The freezer gives the very same list for the same history, and nobody changes it.
    """

    def __init__(self) -> None:
        self._lists: dict[int, tuple[list[Any], msgspec.Raw | None]] = {}

    def get(self, messages: list[Any]) -> msgspec.Raw | None:
        """Return the JSON of a list that comes by for the second time or later; else None."""
        kept, raw = self._lists.get(id(messages), _NO_LIST)
        if kept is not messages:
            if len(self._lists) >= _MAX_ENCODED:
                self._lists.clear()
            self._lists[id(messages)] = (messages, None)
            return None
        if raw is None:
            raw = msgspec.Raw(_ENCODER.encode(messages))
            self._lists[id(messages)] = (messages, raw)
        return raw


_MAX_ENCODED: Final = 32
_MIN_MESSAGES: Final = 8  # fewer are encoded faster than they are looked up
_NO_LIST: Final[tuple[list[Any], msgspec.Raw | None]] = ([], None)
_encoded: Final = _Encoded()


def _with_histories(value: dict[str, Any]) -> dict[str, Any]:
    """Return a state with its long histories encoded already, where they were encoded before."""
    for name, item in value.items():
        if type(item) is list and len(item) >= _MIN_MESSAGES and type(item[0]) is FrozenMessage:
            raw = _encoded.get(item)
            if raw is not None:
                value = {**value, name: raw}
    return value


def _encode_walked(frozen: Frozen) -> Content:
    """Encode with every text looked at; the way for what the fast encoder cannot take."""
    cleaner = _Cleaner()
    truncated = frozen.truncated
    try:
        data = _ENCODER.encode(cleaner.clean(frozen.value, 0))
    except Exception:
        again = _REFREEZER.freeze(frozen.value)
        cleaner, truncated = _Cleaner(), truncated or again.truncated
        try:
            data = _ENCODER.encode(cleaner.clean(again.value, 0))
        except Exception:
            return Content(_UNENCODABLE, True, frozen.cut_bytes)
    return Content(
        data.decode(), truncated, len(data) + frozen.cut_bytes, cleaner.nul, cleaner.surrogates
    )


class _Cleaner:
    """Makes a copy with clean texts and keys, and counts what it replaced."""

    def __init__(self) -> None:
        self.nul = 0
        self.surrogates = 0

    def text(self, text: str) -> str:
        clean, nul, surrogates = sanitize_text(text)
        self.nul += nul
        self.surrogates += surrogates
        return clean

    def clean(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is dict:
            return self._dict(value, depth + 1)
        if kind is list or kind is tuple:
            return [self.clean(item, depth + 1) for item in value]
        if kind is FrozenMessage or kind is FrozenToolCall:
            names = kind.__struct_fields__
            return kind(*(self.clean(getattr(value, name), depth + 1) for name in names))
        if kind is float and value - value != 0.0:
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        if kind is int and not -(2**63) <= value < 2**63:
            raise OverflowError  # the freezer knows how to write it
        return value

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if not all(type(key) is str for key in value):
            raise TypeError  # the freezer knows how to write it
        for key, item in sorted(value.items(), key=_key):  # so that a suffix is canonical too
            name = self.text(key)
            if name in out:
                count = 2
                while f"{name}#{count}" in out:
                    count += 1
                name = f"{name}#{count}"
            out[name] = self.clean(item, depth)
        return out


def _key(pair: tuple[str, Any]) -> str:
    return pair[0]


def _encode_bytes(value: Any) -> Any:
    """Describe binary data. ``sha256`` is of the kept head: the rest was never copied."""
    if type(value) is FrozenBytes:
        told = {
            "mime": _mime(value.head),
            "sha256": hashlib.sha256(value.head).hexdigest(),
            "size": value.size,
        }
        known = image_head(value.head)
        if known is not None and known.width:
            told |= {"height": known.height, "width": known.width}
        return told
    raise TypeError


def _mime(head: bytes) -> str:
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], _BINARY)
    if head[4:8] == b"ftyp":
        return "image/heic" if head[8:12] in {b"heic", b"mif1"} else "video/mp4"
    return next((mime for magic, mime in _MAGIC if head.startswith(magic)), _BINARY)


# "deterministic" sorts the keys of dicts and leaves the fields of a struct in their own order.
_ENCODER: Final = msgspec.json.Encoder(order="deterministic", enc_hook=_encode_bytes)
