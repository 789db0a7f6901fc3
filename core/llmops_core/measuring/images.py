"""Images of a stored span: how many, how large, of which format. Headers only, nothing is fetched.

Looked for in the stored input and output: message parts with a ``data:`` URL or base64 text, binary
data, PIL images, arrays of bytes shaped like a picture, and paths of local files. An image behind a
URL is counted and not asked for its size.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from llmops_core.image_heads import image_head
from llmops_core.span import Span

__all__ = ["Image", "image_values", "images_in"]

HEAD: Final = 4096
MAX_IMAGES: Final = 1_000
_MAX_DEPTH: Final = 32
_DATA_URL: Final = re.compile(r"data:image/([\w.+-]+);base64,")
_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_BASE64_STARTS: Final = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk")
_decode: Final = msgspec.json.Decoder().decode


class Image(NamedTuple):
    """What is known of one image; 0 where it is not known."""

    format: str
    pixels: int = 0
    bytes: int = 0
    #: Whether it is text of which something may have been cut.
    cut: bool = False
    #: Bytes that are known of, although only the head was kept.
    beside: int = 0


def image_values(row: Span, measures: Sequence[str]) -> dict[str, Any]:
    """Return count, pixels, bytes and formats of a span's images, as far as they are asked for."""
    images: list[Image] = []
    for side in ("input", "output"):
        found = images_in(getattr(row, side))
        stored = getattr(row, side) or ""
        extra = max(0, (getattr(row, f"{side}_size") or 0) - len(stored.encode()))
        images += _with_cut_bytes(found, extra)
    values: dict[str, Any] = {}
    if "count" in measures:
        values["image_count"] = len(images)
    if "pixels" in measures and images:
        values["image_pixels"] = sum(image.pixels for image in images)
    if "bytes" in measures and images:
        values["image_bytes"] = sum(image.bytes for image in images)
    if "format" in measures and images:
        values["image_formats"] = ",".join(sorted({image.format for image in images}))
    return values


def images_in(stored: str | None) -> list[Image]:
    """Return the images of a stored ``input`` or ``output``, in order."""
    if not stored:
        return []
    value: Any = stored
    if stored[:1] in ("{", "["):
        try:
            value = _decode(stored)
        except msgspec.DecodeError:
            value = stored
    images: list[Image] = []
    _add(images, value, 0)
    return images


def _with_cut_bytes(images: list[Image], extra: int) -> list[Image]:
    """Give what was cut from a text to the images that were cut in it, in equal parts."""
    cut = sum(image.cut for image in images)
    if not cut:
        return images
    share = max(0, extra - sum(image.beside for image in images)) * 3 // 4 // cut
    return [image._replace(bytes=image.bytes + share) if image.cut else image for image in images]


def _add(images: list[Image], value: Any, depth: int) -> None:
    if depth > _MAX_DEPTH or len(images) >= MAX_IMAGES:
        return
    if isinstance(value, str):
        image = _of_text(value)
        if image is not None:
            images.append(image)
    elif isinstance(value, dict):
        image = _of_object(value)
        if image is not None:
            images.append(image)
        else:
            for item in value.values():
                _add(images, item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _add(images, item, depth + 1)


def _of_object(value: dict[str, Any]) -> Image | None:
    mime, size = value.get("mime"), value.get("size")
    if isinstance(mime, str) and isinstance(size, int):  # binary data, as it is stored
        if not mime.startswith("image/"):
            return None
        pixels = _count(value.get("width")) * _count(value.get("height"))
        name = mime.removeprefix("image/")
        return Image(name, pixels, size, beside=max(0, size - HEAD))
    kind = value.get("type")
    if kind == "PIL.Image":
        return Image(str(value.get("format") or "pil").lower(), _product(value.get("size")))
    if kind == "numpy.ndarray":
        return _of_array(value)
    if kind in ("image_url", "input_image", "image"):
        return _of_part(value)
    return None


def _of_part(value: dict[str, Any]) -> Image | None:
    """Read a part of a message: OpenAI's, Anthropic's and LangChain's forms."""
    inner = value.get("image_url", value.get("source"))
    source = inner if isinstance(inner, dict) else value
    found = inner if isinstance(inner, str) else None
    for key in ("url", "data", "base64", "image"):
        if found is None and isinstance(source.get(key), str):
            found = source[key]
    if found is None:
        return Image("unknown")
    return _of_text(found) or _of_base64(found, "unknown") or Image("unknown")


def _of_array(value: dict[str, Any]) -> Image | None:
    shape = value.get("shape")
    if not isinstance(shape, list) or value.get("dtype") not in ("|u1", "|b1"):
        return None
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return Image("array", _product(shape[:2]), _product(shape))
    if len(shape) == 3 and shape[0] in (1, 3, 4):  # colours first
        return Image("array", _product(shape[1:]), _product(shape))
    return None


def _of_text(text: str) -> Image | None:
    match = _DATA_URL.match(text)
    if match:
        return _of_base64(text[match.end() :], match[1].lower())
    if text.startswith(_BASE64_STARTS):
        return _of_base64(text, None)
    if len(text) < 4096 and text.lower().endswith(_SUFFIXES):
        if re.match(r"[a-zA-Z][\w+.-]*://", text):
            return Image(text.rpartition(".")[2].lower())  # never fetched
        return _of_path(text)
    return None


def _of_base64(text: str, told: str | None) -> Image | None:
    """Read the head of base64 text. The text may have been cut; what is left tells the format."""
    try:
        head = base64.b64decode(text[: HEAD // 3 * 4], validate=False)
    except (binascii.Error, ValueError):
        kept = text[: HEAD // 3 * 4]
        try:
            head = base64.b64decode(kept[: len(kept) // 4 * 4])
        except (binascii.Error, ValueError):
            head = b""
    known = image_head(head)
    if known is None:
        return None if told is None else Image(told, 0, len(text) * 3 // 4, cut=True)
    size = len(text) * 3 // 4 - text[-2:].count("=")
    return Image(known.format, known.width * known.height, size, cut=True)


def _of_path(text: str) -> Image | None:
    """Read the head of a local file; a pipe, a device or what is missing is no image."""
    try:
        handle = os.open(text, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return None
        known = image_head(os.read(handle, 65_536))
    except OSError:
        return None
    finally:
        os.close(handle)
    if known is None:
        return None
    return Image(known.format, known.width * known.height, status.st_size)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 2**31 else 0


def _product(values: object) -> int:
    if not isinstance(values, list) or not values:
        return 0
    result = 1
    for value in values:
        result *= _count(value)
    return result if result < 2**62 else 0
