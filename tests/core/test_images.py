"""Images: measured in every form from their heads, never decoded and never fetched."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llmops_core import (
    Span,
    monitor_llm,
)
from llmops_core.image_heads import image_head
from llmops_core.measuring.images import images_in
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]


def one(spans: CapturedSpans) -> Span:
    (span,) = spans()
    return span


# ---- images ----


def png(width: int, height: int, extra: int = 0) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"\0" * extra)


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_the_head_of_every_format_tells_its_size(name: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (37, 21)).save(file, name)
    assert image_head(file.getvalue()[:4096]) == (name.lower(), 37, 21)
    for size in range(40):  # cut anywhere it is no error
        image_head(file.getvalue()[:size])


def as_file(data: bytes, tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    return str(path)


SMALL = png(640, 480)
FORMS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: SMALL,
    "data url": lambda path: data_url(SMALL),
    "base64": lambda path: base64.b64encode(SMALL).decode(),
    "path": lambda path: as_file(SMALL, path),
    "Path": lambda path: Path(as_file(SMALL, path)),
    "openai part": lambda path: [{"type": "image_url", "image_url": {"url": data_url(SMALL)}}],
    "anthropic part": lambda path: [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                     "data": base64.b64encode(SMALL).decode()}}],
    "langchain part": lambda path: [{"type": "image", "base64": base64.b64encode(SMALL).decode()}],
    "message": lambda path: {"role": "user", "content": [
        {"type": "text", "text": "what is it?"},
        {"type": "input_image", "image_url": data_url(SMALL)}]},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_measured_in_every_form(
    spans: CapturedSpans, tmp_path: Path, form: str
) -> None:
    @monitor_llm(measure_images=True, monitor=spans.monitor)
    def look(picture: object) -> None: ...

    look(FORMS[form](tmp_path))
    span = one(spans)
    assert (span.image_count, span.image_pixels, span.image_bytes) == (1, 640 * 480, len(SMALL))
    assert (span.attributes or {})["image_formats"] == "png"


def test_pictures_in_memory_are_measured_by_their_shape(spans: CapturedSpans) -> None:
    @monitor_llm(measure_images=True, monitor=spans.monitor)
    def look(*pictures: object) -> None: ...

    look(Image.new("RGB", (10, 20)), np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5)))
    span = one(spans)
    assert (span.image_count, span.image_pixels, span.image_bytes) == (2, 220, 60)


def test_an_array_with_its_colours_first_is_an_image(spans: CapturedSpans) -> None:
    @monitor_llm(measure_images=True, monitor=spans.monitor)
    def look(picture: object) -> None: ...

    look(np.zeros((3, 8, 5), np.uint8))
    span = one(spans)
    assert (span.image_count, span.image_pixels, span.image_bytes) == (1, 40, 120)


def test_a_decompression_bomb_costs_nothing_and_its_claim_is_told(spans: CapturedSpans) -> None:
    @monitor_llm(measure_images=["pixels"], monitor=spans.monitor)
    def look(picture: object) -> None: ...

    look(png(60_000, 60_000))
    assert one(spans).image_pixels == 3_600_000_000


def test_the_bytes_of_a_picture_that_was_cut_are_kept(spans: CapturedSpans) -> None:
    @monitor_llm(measure_images=True, monitor=spans.monitor)
    def look(pictures: object) -> None: ...

    large = png(640, 480, extra=300_000)
    look([large, data_url(large)])
    span = one(spans)
    assert span.image_count == 2
    assert span.image_bytes == pytest.approx(2 * len(large), rel=0.02)


def test_a_url_is_counted_and_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refused(*args: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    (image,) = images_in('[{"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]')
    assert (image.format, image.pixels, image.bytes) == ("png", 0, 0)


def test_a_pipe_a_folder_and_what_is_missing_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "missing.png"):
        assert images_in(str(tmp_path / name)) == []


@pytest.mark.parametrize(
    "stored",
    ["", "{", "[]", '{"type": "image"}', '{"type": "image_url", "image_url": 3}', "data:image/png;base64,",
     "data:image/png;base64,!!!", "iVBORw0KGgo", '{"mime": 3, "size": "x"}',
     '{"type": "numpy.ndarray", "shape": [1e9, 2, 3], "dtype": "|u1"}',
     '{"type": "PIL.Image", "size": [-1, "x"]}', "[" * 40 + "]" * 40],
)  # fmt: skip
def test_nonsense_is_no_error(stored: str) -> None:
    for image in images_in(stored):
        assert image.pixels == 0
