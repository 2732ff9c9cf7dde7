"""Files that are something else besides: whoever reads them by another name would run or show what nobody has examined."""

from __future__ import annotations

from .verdict import Refused

# Few enough bytes that a long file may hold them by chance: looked for where they would count.
SHORT_MARKS = (b"%pdf-", b"<svg", b"<html", b"<?php", b"<mpd", b"<smil")
LONG_MARKS = (b"<script", b"<!doctype html", b"#extm3u", b"ffconcat version", b"urn:mpeg:dash:profile", b"[playlist]")
BINARIES = (b"PK\x03\x04", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\x7fELF", b"MZ", b"\x1f\x8b\x08", b"RIFF", b"\x1aE\xdf\xa3", b"GIF8")


# A record at the end of a ZIP and the longest comment behind it (APPNOTE.TXT 4.3.16).
ARCHIVE_TAIL_BYTES = 22 + 65_535


def refuse_foreign(part: bytes, marks: tuple[bytes, ...]) -> None:
    lower = part.lower()
    if any(mark in lower for mark in marks):
        raise Refused("INPUT_POLYGLOT", "holds a document or a playlist besides")


def refuse_archive(tail: bytes) -> None:
    """A ZIP is found from its end: a record whose comment ends with the file (APPNOTE.TXT 4.3.16)."""
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if len(tail) >= at + 22 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            raise Refused("INPUT_POLYGLOT", "is an archive besides")
        at = tail.rfind(b"PK\x05\x06", 0, at)


def refuse_loose_ends(path: str, size: int) -> None:
    """Boxes must follow one another to the end of the file (ISO/IEC 14496-12, 4.2)."""
    at = 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 0 and name:
                return
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8 or len(name) < 4 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name):
                if header.strip(b"\0") == b"":
                    return
                if at == 0 or header.startswith(BINARIES) or b"<" in header[:2]:
                    raise Refused("INPUT_POLYGLOT", "has something behind its end that is no part of it")
                raise Refused("INPUT_NOT_READABLE", "is damaged: its parts do not follow one another")
            at += length
    if at > size:
        raise Refused("INPUT_TRUNCATED", f"is cut short: {at - size} bytes of it are not there")
