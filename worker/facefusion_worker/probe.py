"""`python -m facefusion_worker.probe`: says what a media file really is before any engine opens it.

Always true here: the process that Node talks to never opens a file of a caller. It forks children ahead, each for one file, with little
memory, processor time and no right to write; whatever a file does, it does to such a child, and its death is an answer too. What is
reported was counted or decoded, never read from a header that could lie.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

# Before numpy is loaded: a forked child has one thread, and its address space is counted.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from .vision import av, cv2

Kind = Literal["image", "video", "audio"]

# Demuxers by media type. No playlist, no concat list, nothing that opens a second file.
_DEMUXERS = {
    "video/mp4": "mov",
    "video/quicktime": "mov",
    "audio/mp4": "mov",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "video/x-msvideo": "avi",
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
}
_FORMAT_WHITELIST = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,wav,mp3,flac,ogg"
# What cameras, phones, screens and editors write. The many decoders for old games and the like stay shut.
# fmt: off
_VIDEO_CODECS = frozenset({
    "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "h263", "mjpeg",
    "prores", "dnxhd", "cfhd", "ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo", "qtrle", "png", "theora", "wmv1",
    "wmv2", "dvvideo", "v210",
})
_AUDIO_CODECS = frozenset({
    "aac", "aac_latm", "mp1", "mp2", "mp3", "mp1float", "mp2float", "mp3float", "ac3", "eac3", "opus", "libopus", "vorbis",
    "libvorbis", "flac", "alac", "pcm_s8", "pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be",
    "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_mulaw", "pcm_alaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "dca", "speex",
    "wmav1", "wmav2", "amrnb", "amrwb",
})
# fmt: on
# Key frames that are decoded to see that the size stays: all of them in a short video, spread over the whole of a long one.
_SAMPLES = 48
_HEAD_BYTES = 1 << 20
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


class Refused(Exception):
    """`message` goes on from "this": "is cut short"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Limits:
    image_pixels: int
    video_pixels: int
    side: int
    frames: int
    seconds: float
    streams: int


@dataclass
class Facts:
    """What was found. Sizes in pixels as decoded, times in seconds; 0 where it does not apply."""

    width: int = 0
    height: int = 0
    frames: int = 0
    seconds: float = 0
    rate: float = 0
    streams: int = 1
    audio: bool = False
    codec: str = ""


def examine(path: str, kind: Kind, media_type: str, limits: Limits) -> Facts:
    """Says what the file is, or raises `Refused`. `media_type` is what its first bytes say."""
    if kind == "image":
        return _examine_picture(path, media_type, limits)
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_557))
        tail = file.read()
    _refuse_foreign(head[:4096], _SHORT_MARKS)
    _refuse_foreign(head, _LONG_MARKS)
    _refuse_archive(tail)
    if _DEMUXERS[media_type] == "mov":
        _refuse_loose_ends(path, size)
    elif media_type == "video/x-msvideo" and 8 + int.from_bytes(head[4:8], "little") > size:
        raise Refused("INPUT_TRUNCATED", "is cut short")
    options = {"format_whitelist": _FORMAT_WHITELIST, "protocol_whitelist": "file"}
    try:
        container = av.open(path, container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError):
        raise Refused("INPUT_NOT_READABLE", "cannot be read: it is damaged, not complete, or no medium") from None
    with container:
        if _DEMUXERS[media_type] not in container.format.name.split(","):
            raise Refused("INPUT_POLYGLOT", "can be read as files of more than one format")
        if len(container.streams) > limits.streams:
            raise Refused("INPUT_TOO_LARGE", f"has more than {limits.streams} streams")
        return _examine_video(container, limits) if kind == "video" else _examine_sound(container, limits)


# Pictures


def _examine_picture(path: str, media_type: str, limits: Limits) -> Facts:
    with open(path, "rb") as file:
        content = file.read()
    walk = {"image/jpeg": _walk_jpeg, "image/png": _walk_png, "image/webp": _walk_webp}[media_type]
    try:
        width, height, described, end = walk(content)
    except (IndexError, struct.error):
        raise Refused("INPUT_TRUNCATED", "is cut short") from None
    if width <= 0 or height <= 0:
        raise Refused("INPUT_NOT_READABLE", "does not say how large it is")
    if max(width, height) > limits.side or width * height > limits.image_pixels:
        raise Refused("INPUT_TOO_LARGE", f"is {width}x{height}; at most {limits.side} a side and {limits.image_pixels} pixels are taken")
    rest = content[end:]
    _refuse_foreign(content[:1024], (b"%pdf-",))
    _refuse_foreign(described, _SHORT_MARKS + _LONG_MARKS)
    _refuse_foreign(rest, _SHORT_MARKS + _LONG_MARKS)
    if rest.lstrip(b"\0 \r\n").startswith(_BINARIES):
        raise Refused("INPUT_POLYGLOT", "has another file behind its end")
    _refuse_archive(content[-65_557:])
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


# Files that are something else besides

# Few enough bytes that a long file may hold them by chance: looked for where they would count.
_SHORT_MARKS = (b"%pdf-", b"<svg", b"<html", b"<?php", b"<mpd", b"<smil")
_LONG_MARKS = (b"<script", b"<!doctype html", b"#extm3u", b"ffconcat version", b"urn:mpeg:dash:profile", b"[playlist]")
_BINARIES = (b"PK\x03\x04", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\x7fELF", b"MZ", b"\x1f\x8b\x08", b"RIFF", b"\x1aE\xdf\xa3", b"GIF8")


def _refuse_foreign(part: bytes, marks: tuple[bytes, ...]) -> None:
    lower = part.lower()
    if any(mark in lower for mark in marks):
        raise Refused("INPUT_POLYGLOT", "holds a document or a playlist besides")


def _refuse_archive(tail: bytes) -> None:
    """A ZIP is found from its end: a record whose comment ends with the file (APPNOTE.TXT 4.3.16)."""
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if len(tail) >= at + 22 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") == len(tail):
            raise Refused("INPUT_POLYGLOT", "is an archive besides")
        at = tail.rfind(b"PK\x05\x06", 0, at)


def _refuse_loose_ends(path: str, size: int) -> None:
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
                if at == 0 or header.startswith(_BINARIES) or b"<" in header[:2]:
                    raise Refused("INPUT_POLYGLOT", "has something behind its end that is no part of it")
                raise Refused("INPUT_NOT_READABLE", "is damaged: its parts do not follow one another")
            at += length
    if at > size:
        raise Refused("INPUT_TRUNCATED", f"is cut short: {at - size} bytes of it are not there")


# Video and sound


@dataclass
class _Counted:
    packets: int = 0
    first: float | None = None
    end: float = 0
    keys: list[int] = field(default_factory=list)
    """Time stamps of key frames, in the stream's ticks."""
    announced_change: bool = False


def _count(container: Any, streams: list[Any], limits: Limits) -> dict[int, _Counted]:
    """Goes through all packets once: what is there, and until when. Headers do not count."""
    counted = {stream.index: _Counted() for stream in streams}
    bases = {stream.index: float(stream.time_base or Fraction(1, 1000)) for stream in streams}
    try:
        for packet in container.demux(streams):
            if packet.size == 0 or packet.is_discard:
                continue
            index = packet.stream_index
            one = counted[index]
            one.packets += 1
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None:
                at = stamp * bases[index]
                if one.first is None or at < one.first:
                    one.first = at
                one.end = max(one.end, at + (packet.duration or 0) * bases[index])
                if packet.is_keyframe and len(one.keys) < limits.frames:
                    one.keys.append(stamp)
            if one.packets > limits.frames and packet.stream.type == "video":
                raise Refused("INPUT_TOO_LARGE", f"has more than {limits.frames} frames")
            if one.end - (one.first or 0) > limits.seconds:
                raise Refused("INPUT_TOO_LARGE", f"is longer than {limits.seconds:g} seconds")
            if one.packets > 50 * limits.frames:
                raise Refused("INPUT_TOO_LARGE", "has too many packets")
    except av.error.FFmpegError:
        pass  # what came before the damage counts
    return counted


def _examine_video(container: Any, limits: Limits) -> Facts:
    stream = next((one for one in container.streams.video if not one.disposition & one.disposition.attached_pic), None)
    if stream is None:
        raise Refused("INPUT_WRONG_KIND", "holds no video")
    context = stream.codec_context
    if context is None or context.name not in _VIDEO_CODECS:
        raise Refused("INPUT_NOT_READABLE", "has its video in a codec that is not taken")
    width, height = context.width, context.height
    _refuse_size(width, height, limits)
    announced = stream.frames
    sounds = [one for one in container.streams.audio if one.codec_context is not None]
    counted = _count(container, [stream, *sounds], limits)
    video = counted[stream.index]
    if video.packets == 0:
        raise Refused("INPUT_NOT_READABLE", "holds no frames")
    end = max(one.end for one in counted.values())
    # What an edit list leaves out is announced too, but a tenth of a video is more than that.
    if announced - video.packets > max(2, video.packets // 10):
        raise Refused("INPUT_TRUNCATED", f"announces {announced} frames and holds {video.packets}")
    claimed = max((container.duration or 0) / 1_000_000, float((stream.duration or 0) * (stream.time_base or 0)))
    if claimed > end * 1.1 + 2:
        raise Refused("INPUT_TRUNCATED", f"announces {claimed:.0f} seconds and holds {end:.0f}")
    width, height = _decode_samples(container, stream, video, limits)
    seconds = max(0.0, video.end - (video.first or 0))
    rate = video.packets / seconds if seconds > 0 else float(stream.average_rate or 0)
    return Facts(width, height, video.packets, round(seconds, 3), round(rate, 3), len(container.streams), bool(sounds), context.name)


def _refuse_size(width: int, height: int, limits: Limits) -> None:
    if width <= 0 or height <= 0:
        raise Refused("INPUT_NOT_READABLE", "does not say how large its frames are")
    if max(width, height) > limits.side or width * height > limits.video_pixels:
        raise Refused("INPUT_TOO_LARGE", f"is {width}x{height}; at most {limits.side} a side and {limits.video_pixels} pixels are taken")


def _decode_samples(container: Any, stream: Any, video: _Counted, limits: Limits) -> tuple[int, int]:
    """Decodes key frames from the first to the last: at least one must be a picture, and all of one size."""
    context = stream.codec_context
    context.thread_count = 1
    keys = sorted(set(video.keys))
    step = max(1, len(keys) / _SAMPLES)
    chosen = sorted({keys[min(len(keys) - 1, int(i * step))] for i in range(_SAMPLES)} | {keys[-1]}) if keys else [None]
    # A change of size comes at the ends of what was put together as likely as anywhere; the budget may end before the rest.
    order = chosen[:1] + chosen[-1:] + chosen[1:-1]
    budget = resource.getrlimit(resource.RLIMIT_CPU)[0]
    latest = time.process_time() + (budget * 0.4 if budget != resource.RLIM_INFINITY else 5)
    size: tuple[int, int] | None = None
    for i, stamp in enumerate(order):
        if i > 1 and size is not None and time.process_time() > latest:
            break
        for frame in _frames_at(container, stream, stamp):
            found = (frame.width, frame.height)
            _refuse_size(*found, limits)
            if size is not None and found != size:
                raise Refused("INPUT_CHANGES_SIZE", f"changes its size from {size[0]}x{size[1]} to {found[0]}x{found[1]}")
            size = found
    if size is None:
        raise Refused("INPUT_NOT_READABLE", "holds no frame that can be decoded")
    return size


def _frames_at(container: Any, stream: Any, stamp: int | None) -> list[Any]:
    """The picture of the key frame at or before a time stamp."""
    context = stream.codec_context
    try:
        container.seek(stamp or 0, stream=stream, backward=True)
        context.flush_buffers()
        for tried, packet in enumerate(container.demux(stream)):
            if packet.size == 0 or tried > 64:
                break
            if not packet.is_keyframe or (stamp is not None and packet.pts is not None and packet.pts < stamp):
                continue
            frames = context.decode(packet)
            if not frames:
                frames = context.decode(None)
            return frames[:1]
    except MemoryError:
        raise  # PyAV's own is an FFmpegError too, and says that a frame is far too large
    except (av.error.FFmpegError, ValueError):
        pass
    return []


def _examine_sound(container: Any, limits: Limits) -> Facts:
    stream = next((one for one in container.streams.audio if one.codec_context is not None), None)
    if stream is None:
        raise Refused("INPUT_WRONG_KIND", "holds no sound")
    context = stream.codec_context
    if context.name not in _AUDIO_CODECS:
        raise Refused("INPUT_NOT_READABLE", "has its sound in a codec that is not taken")
    counted = _count(container, [stream], limits)[stream.index]
    if counted.packets == 0:
        raise Refused("INPUT_NOT_READABLE", "holds no sound")
    claimed = float((stream.duration or 0) * (stream.time_base or 0))
    if claimed > counted.end * 1.1 + 2:
        raise Refused("INPUT_TRUNCATED", f"announces {claimed:.0f} seconds and holds {counted.end:.0f}")
    with suppress(av.error.FFmpegError, ValueError):
        container.seek(0)
        for tried, packet in enumerate(container.demux(stream)):
            if tried > 64:
                break
            if any(frame.samples > 0 for frame in context.decode(packet if packet.size else None)):
                seconds = max(0.0, counted.end - (counted.first or 0))
                return Facts(seconds=round(seconds, 3), streams=len(container.streams), audio=True, codec=context.name)
            if packet.size == 0:
                break
    raise Refused("INPUT_NOT_READABLE", "holds no sound that can be decoded")


# The nursery


@dataclass
class _Child:
    pid: int
    channel: socket.socket
    request: int | None = None
    deadline: float = 0
    heard: bytes = b""
    late: bool = False


class Nursery:
    """Keeps children ready, gives each one file, and tells what came of it. Requests and answers are JSON lines."""

    def __init__(self, requests: int, answers: int, children: int, memory: int, cpu_seconds: float, wall_seconds: float) -> None:
        self._requests = requests
        self._answers = answers
        self._width = children
        self._memory = memory
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._idle: list[_Child] = []
        self._busy: list[_Child] = []
        self._waiting: deque[dict[str, Any]] = deque()
        self._heard = b""

    def serve(self) -> None:
        """Until nobody asks any more."""
        self._fill()
        self._say({"ready": True})
        while True:
            timeout = min((child.deadline for child in self._busy), default=None)
            wait = None if timeout is None else max(0.0, timeout - time.monotonic())
            channels = [child.channel for child in (*self._busy, *self._idle)]
            ready, _, _ = select.select([self._requests, *channels], [], [], wait)
            if self._requests in ready and not self._listen():
                break
            for child in [one for one in (*self._busy, *self._idle) if one.channel in ready]:
                self._hear(child)
            now = time.monotonic()
            for child in self._busy:
                if now >= child.deadline and not child.late:
                    child.late = True
                    os.kill(child.pid, signal.SIGKILL)
                    child.deadline = now + 60
            self._hand_out()
        for child in (*self._busy, *self._idle):
            os.kill(child.pid, signal.SIGKILL)

    def _listen(self) -> bool:
        data = os.read(self._requests, 65_536)
        if not data:
            return False
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "leave" in request:
                self._waiting = deque(one for one in self._waiting if one["id"] != request["leave"])
                for child in self._busy:
                    if child.request == request["leave"]:
                        os.kill(child.pid, signal.SIGKILL)
            else:
                self._waiting.append(request)
        return True

    def _hand_out(self) -> None:
        while self._waiting and len(self._busy) < self._width:
            self._fill()
            child = self._idle.pop()
            request = self._waiting.popleft()
            child.request = request["id"]
            child.deadline = time.monotonic() + self._wall_seconds
            self._busy.append(child)
            with suppress(OSError):
                child.channel.sendall(json.dumps(request).encode() + b"\n")
        self._fill()

    def _hear(self, child: _Child) -> None:
        try:
            data = child.channel.recv(65_536)
        except OSError:
            data = b""
        child.heard += data
        if data and not child.heard.endswith(b"\n"):
            return
        child.channel.close()
        # A child has no more to say after its answer; one that says it and hangs does not stay.
        with suppress(ProcessLookupError):
            if data:
                os.kill(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        if child in self._idle:
            self._idle.remove(child)
            return
        self._busy.remove(child)
        if child.heard.endswith(b"\n"):
            self._say({"id": child.request, **json.loads(child.heard)})
        elif child.late:
            self._say({"id": child.request, "died": "late"})
        else:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self._say({"id": child.request, "died": "cpu" if number == signal.SIGXCPU else f"signal {number}"})

    def _say(self, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode() + b"\n"
        while data:
            data = data[os.write(self._answers, data) :]

    def _fill(self) -> None:
        while len(self._idle) + len(self._busy) < self._width or (self._waiting and not self._idle):
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    self._be_child(theirs)
                    status = 0
                finally:
                    os._exit(status)
            theirs.close()
            self._idle.append(_Child(pid, ours))

    def _be_child(self, channel: socket.socket) -> None:
        keep = channel.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, 4096)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for what, value in (
            (resource.RLIMIT_AS, self._memory),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, 32),
        ):
            resource.setrlimit(what, (value, value))
        seconds = max(1, round(self._cpu_seconds))
        # Where both limits are the same the end comes by SIGKILL, which could be anybody's.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        with channel.makefile("rb") as lines:
            line = lines.readline()
        if not line:
            return
        request = json.loads(line)
        try:
            facts = examine(request["path"], request["kind"], request["type"], Limits(**request["limits"]))
            answer: dict[str, Any] = {"facts": vars(facts)}
        except Refused as refused:
            answer = {"refused": {"reason": refused.reason, "message": refused.message}}
        except MemoryError:
            answer = {"refused": {"reason": "INPUT_TOO_LARGE", "message": "takes more memory to decode than is allowed"}}
        except FileNotFoundError:
            answer = {"gone": True}
        channel.sendall(json.dumps(answer).encode() + b"\n")


def _leave_the_network() -> None:
    """Where the system lets a process do so; nothing here opens a socket anyway, unless a decoder is taken over."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m facefusion_worker.probe", description="Examines media files, named on stdin as JSON lines."
    )
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--memory", type=int, default=1536 * 1024 * 1024, help="address space of a child, in bytes")
    parser.add_argument("--cpu-seconds", type=float, default=10)
    parser.add_argument("--wall-seconds", type=float, default=25)
    arguments = parser.parse_args()
    answers = os.dup(1)
    os.dup2(2, 1)
    _leave_the_network()
    cv2.setNumThreads(1)
    Nursery(0, answers, arguments.children, arguments.memory, arguments.cpu_seconds, arguments.wall_seconds).serve()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)
