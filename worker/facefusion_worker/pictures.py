"""Reading and writing pictures.

Always true here: the content decides what a file is, never its name; nothing is decoded before its size is known to be allowed (OpenCV
checks the header against the limit); what comes out is 8-bit BGR, upright, with alpha apart.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .engine import EngineError
from .vision import MAX_PICTURE_PIXELS, cv2

Frame = NDArray[np.uint8]
Kind = Literal["picture", "video", "unknown"]

PICTURE_FORMATS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True)
class Picture:
    pixels: Frame
    alpha: Frame | None


def kind_of(path: str, what: str) -> Kind:
    """What the file's first bytes say."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be opened: {error.strerror}.") from None
    if not head:
        raise EngineError("INPUT_NOT_READABLE", f"The {what} is empty.")
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"GIF8")):
        return "picture"
    if head[:4] == b"RIFF":
        return "picture" if head[8:12] == b"WEBP" else "video" if head[8:11] == b"AVI" else "unknown"
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"):
        return "picture"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip") or head[:4] == b"\x1aE\xdf\xa3":
        return "video"
    return "unknown"


def read_picture(path: str, what: str) -> Picture:
    """`what` names the file to the caller, for example "target picture"."""
    kind = kind_of(path, what)
    if kind == "video":
        raise EngineError("INPUT_WRONG_KIND", f"The {what} is a video, not a picture.")
    if kind == "unknown":
        raise EngineError("INPUT_NOT_READABLE", f"The {what} is not a picture of a known format.")
    try:
        with open(path, "rb") as file:
            content = file.read()
        if not _complete(content):
            raise EngineError("INPUT_NOT_READABLE", f"The {what} is cut short.")
        data = np.frombuffer(content, np.uint8)
        # Colour mode also turns the picture upright (EXIF), and makes 8-bit BGR of grey, palette and 16 bits.
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        alpha = _alpha(data) if pixels is not None and data[:4].tobytes() in (b"\x89PNG", b"RIFF") else None
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error) or "size" in error.err:
            raise _too_large(what) from None
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be decoded.") from None
    if pixels is None or pixels.size == 0:
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be decoded.")
    if pixels.shape[0] * pixels.shape[1] > MAX_PICTURE_PIXELS:
        raise _too_large(what)
    if alpha is not None and alpha.shape == pixels.shape[:2]:
        # What lies under full transparency is arbitrary; a face is looked for, and a JPEG made, as if on white paper.
        cover = alpha[..., None].astype(np.float32) / 255
        pixels = (pixels * cover + 255 * (1 - cover) + 0.5).astype(np.uint8)
        return Picture(pixels, alpha)
    return Picture(pixels, None)


def _complete(content: bytes) -> bool:
    """Whether the file's own end mark is there: OpenCV fills up what a cut file lacks with grey, and says nothing."""
    if content.startswith(b"\xff\xd8"):
        return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda") > 0
    if content.startswith(b"\x89PNG"):
        return b"IEND" in content[-4096:]
    if content.startswith(b"RIFF"):
        return len(content) >= int.from_bytes(content[4:8], "little") + 8
    return True


def _too_large(what: str) -> EngineError:
    return EngineError("INPUT_TOO_LARGE", f"The {what} has more than {MAX_PICTURE_PIXELS // (1024 * 1024)} megapixels.")


def _alpha(data: NDArray[np.uint8]) -> Frame | None:
    """The alpha channel in 8 bits; None where every pixel is opaque."""
    whole = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if whole is None or whole.ndim != 3 or whole.shape[2] != 4:
        return None
    alpha = (whole[..., 3] >> 8).astype(np.uint8) if whole.dtype == np.uint16 else whole[..., 3].astype(np.uint8)
    return None if alpha.min() == 255 else alpha


def write_picture(path: str, picture: Picture, extension: str, quality: int) -> None:
    """Writes beside `path`, reads it back, and only then gives it its name. JPEG has no alpha: it shows the picture on white."""
    pixels = picture.pixels
    if picture.alpha is not None and extension != "jpg":
        pixels = np.dstack([pixels, picture.alpha])
    settings = {
        "jpg": [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, max(1, quality)],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
    }[extension]
    if extension == "webp" and max(pixels.shape[:2]) > 16_383:
        raise EngineError("OUTPUT_TOO_LARGE", "A WebP picture has at most 16383 pixels a side.")
    written, data = cv2.imencode("." + extension, pixels, settings)
    if not written:
        raise EngineError("RESULT_INVALID", "The result could not be encoded.", retryable=True)
    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(data.tobytes())
        with open(temporary, "rb") as file:
            again = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        if again is None or again.shape != picture.pixels.shape:
            raise EngineError("RESULT_INVALID", "The result does not read back as it was written.", retryable=True)


class replacing:
    """A temporary name beside `path`: takes its place when the block ends well, and is gone when it does not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._temporary = path + ".part"

    def __enter__(self) -> str:
        return self._temporary

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            os.replace(self._temporary, self._path)
        elif os.path.exists(self._temporary):
            os.unlink(self._temporary)


def jpeg_preview(frame: Frame, width: int = 320) -> bytes:
    """A small JPEG for a live view."""
    if frame.shape[1] > width:
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 70])[1].tobytes()
