"""XMP with the digital source type of the IPTC, for readers that know no C2PA. Standard library only.

Where each format keeps its packet: XMP Specification Part 3 (Adobe, 2020), 1.1.3 JPEG, 1.1.4 PNG, 1.2.7.1 MPEG-4, and the WebP container
specification. Files are written anew beside their source; what a file holds is not understood beyond the frames of its format.
"""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

_JPEG_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_MAX_SEGMENT = 65_533


class Malformed(ValueError):
    """The file is not framed as its format wants it."""


def packet(source_type: str) -> bytes:
    """`source_type` is a URI of https://cv.iptc.org/newscodes/digitalsourcetype/."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f" Iptc4xmpExt:DigitalSourceType={quoteattr(source_type)}/>"
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def write(source: str, destination: str, media_type: str, source_type: str) -> bool:
    """Copies `source` to `destination` with the packet in it. False, and nothing is written: the format has no place for it, or the file
    has a packet of its own."""
    writer = _WRITERS.get(media_type)
    if writer is None:
        return False
    with open(source, "rb") as file:
        if _has_packet(file):
            return False
        file.seek(0)
        with open(destination, "xb") as out:
            writer(file, out, packet(source_type))
    return True


def _has_packet(file: BinaryIO) -> bool:
    """As far as the first and last MiB show, where writers put it."""
    head = file.read(1 << 20)
    file.seek(max(0, file.seek(0, 2) - (1 << 20)))
    return b"W5M0MpCehiHzreSzNTczkc9d" in head or b"W5M0MpCehiHzreSzNTczkc9d" in file.read()


def _jpeg(file: BinaryIO, out: BinaryIO, data: bytes) -> None:
    if file.read(2) != b"\xff\xd8":
        raise Malformed("no JPEG")
    segment = _JPEG_NAMESPACE + data
    if len(segment) > _MAX_SEGMENT:
        raise Malformed("the packet is too long for a segment")
    out.write(b"\xff\xd8")
    # After JFIF and Exif, which readers want first.
    while (head := file.read(4))[:2] in (b"\xff\xe0", b"\xff\xe1") and len(head) == 4:
        out.write(head + file.read(struct.unpack(">H", head[2:])[0] - 2))
    out.write(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + head)
    shutil.copyfileobj(file, out)


def _png(file: BinaryIO, out: BinaryIO, data: bytes) -> None:
    signature, head = file.read(8), file.read(25)  # IHDR has 13 bytes, always
    if signature != b"\x89PNG\r\n\x1a\n" or head[4:8] != b"IHDR":
        raise Malformed("no PNG")
    chunk = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + data
    out.write(signature + head + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    shutil.copyfileobj(file, out)


def _webp(file: BinaryIO, out: BinaryIO, data: bytes) -> None:
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        raise Malformed("no WebP")
    length = struct.unpack("<I", head[4:8])[0] - 4
    body = bytearray(file.read(length))
    if len(body) != length or length < 18:
        raise Malformed("the WebP is cut short")
    if body[:4] == b"VP8X":
        body[8] |= 0x04
    else:
        width, height, alpha = _webp_size(bytes(body))
        flags = 0x04 | (0x10 if alpha else 0)
        body[:0] = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + _three(width - 1) + _three(height - 1)
    body += b"XMP " + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)
    out.write(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)


def _webp_size(body: bytes) -> tuple[int, int, bool]:
    """Of a file with one bitstream and nothing else: RFC 6386, 9.1 (lossy), and the WebP lossless bitstream specification, 3."""
    if body[:4] == b"VP8 ":
        width, height = struct.unpack("<HH", body[14:18])
        return width & 0x3FFF, height & 0x3FFF, False
    if body[:4] == b"VP8L" and body[8] == 0x2F:
        bits = struct.unpack("<I", body[9:13])[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    raise Malformed("an unknown kind of WebP")


def _three(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


def _boxes(file: BinaryIO, out: BinaryIO, data: bytes) -> None:
    """A box of its own at the end moves no other, so that no table of offsets changes."""
    shutil.copyfileobj(file, out, 1 << 20)
    out.write(struct.pack(">I", 8 + len(_UUID) + len(data)) + b"uuid" + _UUID + data)


_WRITERS: dict[str, Callable[[BinaryIO, BinaryIO, bytes], None]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "video/mp4": _boxes,
    "video/quicktime": _boxes,
}
