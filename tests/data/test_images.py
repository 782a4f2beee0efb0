"""An image is shown faithfully or refused with a sentence."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfeat.data import images
from dfeat.data.images import decode, inspect
from dfeat.errors import UserError

from .conftest import encoded


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "format"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"),
     ("RGB", "TIFF"), ("P", "GIF"), ("RGB", "WEBP"), ("RGB", "BMP"), ("I;16", "PNG")],
)  # fmt: skip
def test_every_mode_becomes_rgb_of_the_same_size(mode: str, format: str) -> None:
    if mode == "I;16":
        buffer = io.BytesIO()
        Image.fromarray(np.full((16, 24), 40_000, np.uint16)).save(buffer, "PNG")
        raw = buffer.getvalue()
    else:
        raw = encoded(mode=mode, format=format)
    image, _ = decode(raw, "x")
    seen = inspect(raw, "x")
    assert (image.mode, image.size) == ("RGB", (24, 16))
    assert (seen.width, seen.height) == (24, 16)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 257 * 100, 65_535]], np.uint16)).save(buffer, "PNG")
    image, notes = decode(buffer.getvalue(), "x.png")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 255]
    assert any("I;16" in note for note in notes)


def test_transparency_lies_over_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(buffer, "PNG")
    assert np.asarray(decode(buffer.getvalue(), "x.png")[0]).min() == 255


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied_as_pillow_does(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(format="PNG", exif=exif)
    image, _ = decode(raw, "x.png")
    expected = (16, 24) if orientation >= 5 else (24, 16)
    assert image.size == expected
    seen = inspect(raw, "x.png")
    assert (seen.width, seen.height) == expected
    from PIL import ImageOps

    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
    assert np.array_equal(np.asarray(image), np.asarray(wanted))


def test_orientation_follows_the_size_of_the_annotations() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = encoded(exif=exif)
    assert decode(raw, "x", (24, 16))[0].size == (24, 16)
    assert decode(raw, "x", (16, 24))[0].size == (16, 24)
    assert any("not applied" in note for note in inspect(raw, "x", (24, 16)).notes)


def test_a_gzip_wrapped_image_is_unwrapped() -> None:
    image, notes = decode(gzip.compress(encoded()), "x.JPEG")
    assert image.size == (24, 16)
    assert notes == ["gzip-wrapped, unwrapped"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"not an image", "no image"),
        (encoded((200, 200), quality=95)[:-900], "truncated"),
        (encoded((200, 200), format="PNG")[:-40], "truncated"),
        (gzip.compress(encoded())[:-20], "truncated"),
        (png_header(20_000, 20_000), "100,000,000 pixels"),
        (png_header(10_001, 10_000), "10001 x 10000"),
        (png_header(60_000, 60_000), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "cut gzip", "bomb", "just too large", "huge", "eps"],
)
def test_what_cannot_be_shown_is_refused_by_name(raw: bytes, reason: str) -> None:
    for read in (inspect, decode):
        with pytest.raises(UserError, match=reason) as caught:
            read(raw, "folder/name.JPEG")
        assert "folder/name.JPEG" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_values_without_a_scale_are_refused_when_indexed() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(buffer, "TIFF")
    with pytest.raises(UserError, match="mode F"):
        inspect(buffer.getvalue(), "x.tiff")


def test_a_gzip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(UserError, match="larger than"):
        decode(gzip.compress(bytes(4 << 20)), "x")


def test_no_cut_of_a_jpeg_is_anything_but_a_refusal() -> None:
    raw = encoded((64, 48))
    for length in range(0, len(raw) - 2, 13):
        with pytest.raises(UserError):
            inspect(raw[:length], "x.JPEG")


def test_no_flipped_byte_is_anything_but_an_image_or_a_refusal() -> None:
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "TIFF", "GIF", "WEBP"):
        whole = encoded((32, 32), format=format)
        for _ in range(60):
            raw = bytearray(whole)
            raw[rng.integers(len(raw))] = rng.integers(256)
            for read in (inspect, decode):
                try:
                    read(bytes(raw), "x")
                except UserError as error:
                    assert str(error)


def test_reference_images(shared_data: Callable[[str], Path]) -> None:
    """Real files with every defect that users report: shown, or refused with a sentence; without a warning."""
    outcomes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(shared_data("torture/images").iterdir()):
            try:
                image, _ = decode(path.read_bytes(), path.name)
                seen = inspect(path.read_bytes(), path.name)
                assert (seen.width, seen.height) == image.size
                outcomes[path.name] = "shown"
            except UserError:
                with pytest.raises(UserError):
                    inspect(path.read_bytes(), path.name)
                outcomes[path.name] = "refused"
    refused = {name for name, outcome in outcomes.items() if outcome == "refused"}
    assert refused == {"._n02487347_1000.JPEG", "truncated_end_chunk.png", "truncated_jpeg.jpg"}
