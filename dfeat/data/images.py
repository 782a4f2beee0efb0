"""Image decoding: all image files are read here.

What enters: the bytes of a file. What leaves: `inspect` gives its size and what is unusual about it, mostly from the
header; `decode` the picture, 8-bit RGB: CMYK, palette, grey and bilevel converted, transparency over white, 16 bits
scaled to 8, gzip unwrapped, and the EXIF orientation applied, where a size is given (that of the annotations) only if
the upright picture has it. What cannot be decoded faithfully is rejected. AVIF, HEIC and JPEG XL are read where Pillow has
a reader for them, its own or an installed plugin's.
"""

from __future__ import annotations

import importlib
import io
import mmap
import re
import warnings
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageOps, features

from dfeat.errors import UserError
from dfeat.shortage import pass_on, shortage
from dfeat.storage.provenance import bytes_digest

MAX_PIXELS: Final = 100_000_000
_WHOLE_PICTURE: Final = 16 * MAX_PIXELS
"""Bytes that decoding the largest picture takes: as read, as RGB, turned and as an array, at most 4 bytes a pixel each."""
MAX_UNPACKED: Final = 256 << 20
FORMATS: Final = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
"""Pillow formats that are always opened (MPO comes with JPEG). Some others run programs or read further files."""
_PLUGINS: Final = {
    "AVIF": ("pillow_avif", "pillow-avif-plugin"),
    "HEIF": ("pillow_heif", "pillow-heif"),
    "JXL": ("pillow_jxl", "pillow-jxl-plugin"),
}
"""Formats that are opened where Pillow can: the module that teaches it to, and the package that has it."""
_COMMON_NAMES: Final = {"HEIF": "HEIC", "JXL": "JPEG XL"}
LATER_SUFFIXES: Final = frozenset({".avif", ".heic", ".heif", ".hif", ".jxl"})
"""Those of the formats in _PLUGINS, and of many a JPEG that was renamed to one of them."""
SUFFIXES: Final = LATER_SUFFIXES | {
    ".jpeg", ".jpg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".ppm", ".pgm"
}  # fmt: skip
_USUAL_SUFFIX: Final = {
    "JPEG": (".jpeg", ".jpg", ".jpe", ".jfif"),
    "MPO": (".mpo", ".jpeg", ".jpg"),
    "HEIF": (".heic", ".heif", ".hif"),
}
HEAD: Final = 64
"""Bytes that `format_of` looks at."""
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JXL"), (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"8BPS", "Photoshop"),
)  # fmt: skip
_OTHER_SIGNATURES: Final = (
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
    (re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}", re.DOTALL), "BMP"),
    (re.compile(rb"P[1-6]\s+(?:#|\d+\s)"), "PPM"),
    (re.compile(rb".{4}ftyp(?:avi[fs]|(?:mif1|msf1)(?:.{4})+?avi[fs])", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "HEIF"),
)
_ORDINARY_MODES: Final = {"RGB", "L", "1"}
_TAIL: Final = 64
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Size = tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """What `inspect` found: pixels as `decode` would give them, and notes on what is unusual."""

    width: int
    height: int
    notes: tuple[str, ...]
    digest: str
    """SHA-256 of the file's bytes."""


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def stem_of(name: str) -> str:
    """The last part of a name without the ending of an image; without one, all of it."""
    path = PurePosixPath(name)
    return path.stem if is_image_name(name) else path.name


def format_of(head: bytes) -> str:
    """The image format whose signature the first HEAD bytes of a file have, by Pillow's name for it; "" for none."""
    plain = next((name for signature, name in _SIGNATURES if head.startswith(signature)), "")
    return plain or next((name for signature, name in _OTHER_SIGNATURES if signature.match(head[:HEAD])), "")


@cache
def formats() -> tuple[str, ...]:
    """The Pillow formats that are opened here: FORMATS, and of _PLUGINS those that Pillow has a reader for."""
    return (*FORMATS, *(name for name in _PLUGINS if _has_reader(name)))


def _has_reader(name: str) -> bool:
    Image.init()
    if name == "AVIF" and features.check("avif"):
        return True
    try:
        plugin = importlib.import_module(_PLUGINS[name][0])
        getattr(plugin, f"register_{name.lower()}_opener", lambda: None)()
    except Exception:  # a plugin whose library is missing fails in any way it likes; its format stays unread
        return False
    return name in Image.OPEN


def unread_format(head: bytes) -> str:
    """What an image is and what to do, where its format is known and not opened here; "" otherwise."""
    name = format_of(head)
    if not name or name in formats():
        return ""
    install = f"run `pip install {_PLUGINS[name][1]}`, or " if name in _PLUGINS else ""
    return f"is a {_COMMON_NAMES.get(name, name)} image, which is not read here; {install}convert it to JPEG or PNG"


def inspect(raw: bytes, where: str, size: Size | None = None) -> Seen:
    """Read the header, and decode only what looks cut off or unusual.

    `size` (width, height) is that of the annotations, where there are some. Raises UserError like `decode`.
    """
    digest = bytes_digest(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, raw, notes = _open(raw, where)
        if not _looks_whole(image, raw):
            _converted(image, where)
        orientation = _orientation(image, raw, where)
        width, height = image.size
        if _applies(orientation, image.size, size):
            unsure = size is not None and (orientation < 5 or width == height)
            doubt = " (the size does not tell whether the annotations mean it)" if unsure else ""
            notes.append(f"EXIF orientation {orientation}, applied{doubt}")
            if orientation >= 5:
                width, height = height, width
        elif orientation != 1 and image.size == size:
            notes.append(f"EXIF orientation {orientation}, not applied: the annotations have the size without it")
    return Seen(width, height, tuple(notes), digest)


def decode(raw: bytes, where: str, size: Size | None = None) -> tuple[Image.Image, list[str]]:
    """The picture in 8-bit RGB, and notes on what was converted. Raises UserError for bytes that are no whole image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, raw, notes = _open(raw, where)
        orientation = _orientation(image, raw, where)
        rgb = _converted(image, where)
        if _applies(orientation, image.size, size):
            rgb = rgb.transpose(_TURNS[orientation])
            notes.append(f"EXIF orientation {orientation}, applied")
    return rgb, notes


def as_rgb(image: Image.Image, where: str) -> Image.Image:
    """A picture that a caller opened, in 8-bit RGB and upright, as `decode` gives it. Raises UserError like `decode`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _converted(ImageOps.exif_transpose(image), where)


def _open(raw: bytes, where: str) -> tuple[Image.Image, bytes, list[str]]:
    """The image with its header read, its bytes without gzip, and notes on what is unusual."""
    raw, notes = _unwrap(raw, where)
    try:
        image = Image.open(io.BytesIO(raw), formats=formats())
    except Image.DecompressionBombError:
        raise _refusal(where, f"it is larger than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # on a broken header Pillow's readers raise exceptions of any type
        _pass_shortage_on(error, where)
        reason = f"it {unread_format(raw) or 'is no image that can be read'}" if raw else "it is empty"
        raise _refusal(where, reason) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _refusal(where, f"it claims {width} x {height} pixels, more than {MAX_PIXELS:,}")
    if width < 1 or height < 1:
        raise _refusal(where, f"it has {width} x {height} pixels")
    return image, raw, notes + _notes(image, where)


def _converted(image: Image.Image, where: str) -> Image.Image:
    """The decoded picture in RGB."""
    try:
        image.load()
    except Exception as error:  # as above
        _pass_shortage_on(error, where)
        raise _refusal(where, f"it is truncated or damaged ({error})") from None
    try:
        return _to_rgb(image)
    except Exception as error:
        _pass_shortage_on(error, where)
        raise _refusal(where, f"its mode {image.mode} cannot be converted to RGB ({error})") from None


def _unwrap(raw: bytes, where: str) -> tuple[bytes, list[str]]:
    """Unwrap a gzip file, up to `MAX_UNPACKED` bytes."""
    if raw[:2] != b"\x1f\x8b":
        return raw, []
    reader = zlib.decompressobj(wbits=31)
    try:
        unpacked = reader.decompress(raw, MAX_UNPACKED)
    except zlib.error as error:
        _pass_shortage_on(error, where)
        raise _refusal(where, f"it is gzip-wrapped and damaged ({error})") from None
    if reader.unconsumed_tail:
        raise _refusal(where, f"it is gzip-wrapped and larger than {MAX_UNPACKED:,} bytes")
    if not reader.eof:
        raise _refusal(where, "it is gzip-wrapped and truncated")
    return unpacked, ["gzip-wrapped, unwrapped"]


def _looks_whole(image: Image.Image, raw: bytes) -> bool:
    """Whether the file ends as its format ends; others than plain JPEG and PNG must be decoded to know."""
    if image.format == "JPEG":
        return b"\xff\xd9" in raw[-_TAIL:]
    if image.format == "PNG":
        return b"IEND" in raw[-_TAIL:] and image.mode in _ORDINARY_MODES
    return False


def _pass_shortage_on(error: Exception, where: str) -> None:
    """Raise the shortage of memory that kept a picture from being decoded.

    A damaged picture can ask for more memory than any picture needs: where a whole one's is to be had, it is at fault.
    """
    if shortage(error) is None:
        return
    try:
        mmap.mmap(-1, _WHOLE_PICTURE).close()  # address space alone: no page of it is touched
    except OSError:
        pass_on(error, where)


def _notes(image: Image.Image, where: str) -> list[str]:
    notes = []
    if image.mode not in _ORDINARY_MODES:
        notes.append(f"mode {image.mode}, converted to RGB")
    if "transparency" in image.info and image.mode in {"L", "RGB", "1"}:
        notes.append("transparent colour, put over white")
    suffix = PurePosixPath(where).suffix.lower()
    kind = str(image.format)
    usual = _USUAL_SUFFIX.get(kind, (f".{kind.lower()}", f".{kind.lower()[:3]}", ".pgm"))
    if suffix in SUFFIXES and suffix not in usual:
        notes.append(f"named {suffix} but is {kind}, read as {kind}")
    if kind not in {"JPEG", "MPO"} and _frames(image, where) > 1:
        notes.append("several frames, the first taken")
    return notes


def _frames(image: Image.Image, where: str) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # counting frames reads on in the file
        _pass_shortage_on(error, where)
        raise _refusal(where, f"it is truncated or damaged ({error})") from None


def _orientation(image: Image.Image, raw: bytes, where: str) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or nonsense. Pillow applies that of TIFF itself."""
    if image.format == "TIFF" or (image.format == "PNG" and b"eXIf" not in raw):
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # broken EXIF raises exceptions of any type and does not affect the pixels
        _pass_shortage_on(error, where)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _applies(orientation: int, stored: Size, wanted: Size | None) -> bool:
    if orientation == 1:
        return False
    upright = stored[::-1] if orientation >= 5 else stored
    return wanted is None or upright == tuple(wanted)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _scaled(np.asarray(image).astype(np.float64) / 257)
    if image.mode in {"I", "F"}:
        return _scaled(_to_eight_bits(np.asarray(image).astype(np.float64)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale 32-bit values by the range they use: 0..1, 0..255 or 0..65535."""
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"values from {low:g} to {high:g} have no known scale")
    if high <= 1 and not float(high).is_integer():
        return values * 255
    return values if high <= 255 else values / 257


def _scaled(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8)).convert("RGB")


def _refusal(where: str, reason: str) -> UserError:
    return UserError(f"{where} cannot be used: {reason}")
