"""Pictures: walked part by part to their end, then decoded. Both must tell of the same size."""

from __future__ import annotations

import struct

import numpy as np

from ..vision import cv2
from .polyglot import ARCHIVE_TAIL_BYTES, BINARIES, LONG_MARKS, SHORT_MARKS, refuse_archive, refuse_foreign
from .verdict import Facts, Limits, Refused


def examine_picture(path: str, media_type: str, limits: Limits) -> Facts:
    with open(path, "rb") as file:
        content = file.read()
    walk = {"image/jpeg": _walk_jpeg, "image/png": _walk_png, "image/webp": _walk_webp}[media_type]
    try:
        width, height, described, end = walk(content)
    except (IndexError, ValueError, struct.error):
        raise Refused("INPUT_TRUNCATED", "is cut short") from None
    if width <= 0 or height <= 0:
        raise Refused("INPUT_NOT_READABLE", "does not say how large it is")
    if max(width, height) > limits.side or width * height > limits.image_pixels:
        raise Refused("INPUT_TOO_LARGE", f"is {width}x{height}; at most {limits.side} a side and {limits.image_pixels} pixels are taken")
    rest = content[end:]
    refuse_foreign(content[:1024], (b"%pdf-",))
    refuse_foreign(described, SHORT_MARKS + LONG_MARKS)
    refuse_foreign(rest, SHORT_MARKS + LONG_MARKS)
    if rest.lstrip(b"\0 \r\n").startswith(BINARIES):
        raise Refused("INPUT_POLYGLOT", "has another file behind its end")
    refuse_archive(content[-ARCHIVE_TAIL_BYTES:])
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):
            raise Refused("INPUT_TOO_LARGE", f"is {width}x{height}, which is more than is taken") from None
        raise Refused("INPUT_NOT_READABLE", "cannot be decoded") from None
    if pixels is None or pixels.size == 0:
        raise Refused("INPUT_NOT_READABLE", "cannot be decoded")
    # Upright, so the sides may have changed places.
    if sorted(pixels.shape[:2]) != sorted((width, height)):
        raise Refused("INPUT_INCONSISTENT", "says that it has another size than it has")
    return Facts(width=pixels.shape[1], height=pixels.shape[0], frames=1)


def _walk_jpeg(content: bytes) -> tuple[int, int, bytes, int]:
    """Size, what is not picture, and where the picture ends (ITU-T T.81, annex B)."""
    at, width, height, described = 2, 0, 0, []
    while True:
        at = content.index(b"\xff", at) if content[at] != 0xFF else at
        while content[at] == 0xFF:
            at += 1
        marker = content[at]
        at += 1
        if marker == 0xD9:
            if width == 0:
                raise Refused("INPUT_NOT_READABLE", "holds no picture")
            return width, height, b"".join(described), at
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            found = struct.unpack_from(">HH", content, at + 3)
            if width and found != (height, width):
                raise Refused("INPUT_INCONSISTENT", "says twice how large it is, and not the same")
            height, width = found
        if marker == 0xFE or 0xE0 <= marker <= 0xEF:
            described.append(content[at + 2 : at + length])
        at += length
        if marker == 0xDA:
            at = _end_of_scan(content, at)


def _end_of_scan(content: bytes, at: int) -> int:
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 1 >= len(content):
            raise Refused("INPUT_TRUNCATED", "is cut short")
        following = content[at + 1]
        if following != 0 and following != 0xFF and not 0xD0 <= following <= 0xD7:
            return at
        at += 1 if following == 0xFF else 2


def _walk_png(content: bytes) -> tuple[int, int, bytes, int]:
    width, height = struct.unpack_from(">II", content, 16)
    at, described = 8, []
    if content[12:16] != b"IHDR":
        raise Refused("INPUT_NOT_READABLE", "does not say how large it is")
    while True:
        (length,) = struct.unpack_from(">I", content, at)
        name = content[at + 4 : at + 8]
        if at + 12 + length > len(content):
            raise Refused("INPUT_TRUNCATED", "is cut short")
        if name == b"acTL":
            raise Refused("INPUT_ANIMATED", "is an animated picture; give it as a video")
        if name not in (b"IDAT", b"IHDR", b"PLTE"):
            described.append(content[at + 8 : at + 8 + length])
        at += 12 + length
        if name == b"IEND":
            return width, height, b"".join(described), at


def _walk_webp(content: bytes) -> tuple[int, int, bytes, int]:
    end = 8 + int.from_bytes(content[4:8], "little")
    if end > len(content):
        raise Refused("INPUT_TRUNCATED", "is cut short")
    at, size, described = 12, None, []
    while at + 8 <= end:
        name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        body = content[at + 8 : at + 8 + length]
        if name in (b"ANIM", b"ANMF"):
            raise Refused("INPUT_ANIMATED", "is an animated picture; give it as a video")
        if name == b"VP8X":
            size = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
        elif name == b"VP8 " and size is None:
            size = (int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
        elif name == b"VP8L" and size is None:
            bits = int.from_bytes(body[1:5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif name not in (b"ALPH", b"VP8 ", b"VP8L"):
            described.append(body)
        at += 8 + length + (length & 1)
    return (*(size or (0, 0)), b"".join(described), end)
