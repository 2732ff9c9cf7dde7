"""Video and sound: every packet is counted, and enough of them decoded to see that they are what they say."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from ..vision import av
from .polyglot import ARCHIVE_TAIL_BYTES, LONG_MARKS, SHORT_MARKS, refuse_archive, refuse_foreign, refuse_loose_ends
from .verdict import Facts, Limits, Refused

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


def examine_footage(path: str, kind: Literal["video", "audio"], media_type: str, limits: Limits) -> Facts:
    """Says what the file is, or raises `Refused`. `media_type` is what its first bytes say."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - ARCHIVE_TAIL_BYTES))
        tail = file.read()
    refuse_foreign(head[:4096], SHORT_MARKS)
    refuse_foreign(head, LONG_MARKS)
    refuse_archive(tail)
    if _DEMUXERS[media_type] == "mov":
        refuse_loose_ends(path, size)
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
