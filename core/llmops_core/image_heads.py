"""Format and size of an image from its first bytes. Pure; decodes nothing, whatever is claimed."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["ImageHead", "image_head"]

MAX_SEGMENTS: Final = 200


class ImageHead(NamedTuple):
    """What a head tells; width and height are 0 where it is too short to tell."""

    format: str
    width: int = 0
    height: int = 0


def image_head(head: bytes) -> ImageHead | None:
    """Return what the first bytes of a PNG, JPEG, GIF, WebP or BMP tell; None for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _sized("png", head, 16, ">II") if head[12:16] == b"IHDR" else ImageHead("png")
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _sized("gif", head, 6, "<HH")
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if (
        head[:2] == b"BM"
        and len(head) >= 26
        and head[14:18] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0")
    ):
        found = _sized("bmp", head, 18, "<ii")
        return found._replace(width=abs(found.width), height=abs(found.height))
    return None


def _sized(name: str, head: bytes, at: int, layout: str) -> ImageHead:
    if len(head) < at + struct.calcsize(layout):
        return ImageHead(name)
    width, height = struct.unpack_from(layout, head, at)
    return ImageHead(name, width, height)


def _jpeg(head: bytes) -> ImageHead:
    """Walk the segments to the frame header; a thumbnail inside a segment is stepped over."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 9 > len(head) or head[at] != 0xFF:
            break
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            return ImageHead("jpeg", width, height)
        at += 2 + int(struct.unpack_from(">H", head, at + 2)[0])
    return ImageHead("jpeg")


def _webp(head: bytes) -> ImageHead:
    kind = head[12:16]
    if kind == b"VP8 " and len(head) >= 30:
        width, height = struct.unpack_from("<HH", head, 26)
        return ImageHead("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return ImageHead("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X" and len(head) >= 30:
        width = int.from_bytes(head[24:27], "little") + 1
        return ImageHead("webp", width, int.from_bytes(head[27:30], "little") + 1)
    return ImageHead("webp")
