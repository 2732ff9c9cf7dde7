"""A job's files made fit for the program, and its result held to what was asked for.

Always true here: the program sees only files that were opened by a known demuxer or decoder before, under names that this engine chose by
content, in the job's own work folder; a video it sees has a constant rate, stands upright and starts at 0; and a result that has a name
decodes and has the frames, duration and size that were asked for.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from ... import archive
from ...engine import CancelToken, EngineError, MediaKind, Report
from ...pictures import PICTURE_FORMATS, read_picture
from ...video import VIDEO_FORMATS, VideoInfo, decode, decoded, examine, open_input, undecodable
from ...vision import MAX_PICTURE_PIXELS, av, cv2

_PICTURES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"BM": "bmp", b"II*\0": "tiff", b"MM\0*": "tiff"}
_SOUND_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mp3,wav,flac,ogg,aac"
_SOUND_NAMES = {"mp3": "mp3", "wav": "wav", "flac": "flac", "ogg": "ogg"}
# Encoders whose sound each container takes with the ffmpeg of every current distribution, the usual one first.
AUDIO_ENCODERS = {
    "mp4": ("aac", "libmp3lame", "libopus"),
    "mov": ("aac", "libmp3lame", "pcm_s16le", "pcm_s32le"),
    "webm": ("libopus",),
}
# Seconds that a picture may be late of its sound before anybody minds; AVI is late by its reordered frames.
_UNHEARD = Fraction(1, 10)
# Bytes that count as none: what failed wanted more.
_NO_SPACE = 1 << 20
# What stands between two encodings of a video that had to be made fit: nobody sees the difference, and a minute fits on a disk.
_BETWEEN = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "4")


Popen = Callable[..., Any]


@dataclass(frozen=True)
class Target:
    """The target as the program sees it."""

    path: str
    kind: MediaKind
    size: tuple[int, int]
    has_audio: bool = False
    info: VideoInfo | None = None
    begin: int = 0
    end: int = 1
    rate: Fraction = Fraction(1)
    reference_frame: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        return self.end - self.begin


def extension_of(output_format: str, kind: MediaKind) -> str:
    formats = VIDEO_FORMATS if kind == MediaKind.MEDIA_KIND_VIDEO else PICTURE_FORMATS
    extension = {"jpeg": "jpg"}.get(output_format, output_format)
    if extension not in formats:
        raise EngineError("OUTPUT_FORMAT_INVALID", f"The result cannot be {output_format!r}; it can be: {', '.join(formats)}.")
    return extension


# -- pictures --------------------------------------------------------------------------------------------------------------------------


def stage_picture(path: str, what: str, folder: str, name: str, wanted: str = "") -> tuple[str, tuple[int, int]]:
    """The picture under a name of its content's own, 8 bits, colour and upright, and its size. `wanted` is the format the name must say."""
    with open_readable(path, what) as file:
        head = file.read(65_536)
    extension = next((extension for magic, extension in _PICTURES.items() if head.startswith(magic)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        extension = "webp"
    pixels = _stored(path) if extension and extension in (wanted, wanted or extension) and not _turned(head) else None
    if pixels is not None:
        staged = os.path.join(folder, f"{name}.{extension}")
        os.symlink(path, staged)
        return staged, (pixels.shape[1], pixels.shape[0])
    picture = read_picture(path, what)  # raises where it is none
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        if pixels.dtype != "uint8":
            pixels = (pixels >> 8).astype("uint8")
    # Whatever it was, no more of it is lost: the format that the result must have is made at the end, from the same.
    staged = os.path.join(folder, f"{name}.png")
    if not cv2.imwrite(staged, pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
        raise no_space()
    return staged, (pixels.shape[1], pixels.shape[0])


def open_readable(path: str, what: str) -> Any:
    try:
        return open(path, "rb")
    except OSError as error:
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be opened: {error.strerror}.") from None


def _stored(path: str) -> Any:
    """The picture as it is stored, if the program reads it rightly: it takes grey, palettes and 16 bits for colour."""
    try:
        pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    plain = pixels is not None and pixels.ndim == 3 and pixels.dtype == "uint8" and pixels.shape[2] in (3, 4)
    return pixels if plain and pixels.shape[0] * pixels.shape[1] <= MAX_PICTURE_PIXELS else None


def _turned(head: bytes) -> bool:
    """Whether EXIF says that the picture does not lie as it is stored (tag 0x0112 of the first directory)."""
    place = head.find(b"Exif\0\0")
    if place < 0:
        return False
    tiff = head[place + 6 :]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return False
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(min(count, 256)):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if tag == 0x0112:
                return value not in (0, 1)
    except struct.error:
        pass
    return False


def picture_target(path: str, folder: str, extension: str) -> Target:
    staged, size = stage_picture(path, "target picture", folder, "target", extension)
    return Target(staged, MediaKind.MEDIA_KIND_IMAGE, size)


def finish_picture(made: str, path: str, extension: str, quality: int, size: tuple[int, int]) -> tuple[int, int]:
    """Checks what the program made, and gives it its place and its format. Answers its size."""
    pixels = cv2.imread(made, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise EngineError("RESULT_INVALID", "The result does not read back.", retryable=True)
    found = (pixels.shape[1], pixels.shape[0])
    if found != size:
        raise EngineError("RESULT_INVALID", f"The result is {found[0]}x{found[1]} instead of {size[0]}x{size[1]}.", retryable=True)
    if os.path.splitext(made)[1] != "." + extension:
        settings = {
            "jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
            "webp": [cv2.IMWRITE_WEBP_QUALITY, max(1, quality)],
            "png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
        }[extension]
        converted = f"{os.path.splitext(made)[0]}.{extension}"
        if not cv2.imwrite(converted, pixels, settings):
            if is_full(os.path.dirname(made)):
                raise no_space()
            raise EngineError("RESULT_INVALID", "The result could not be encoded.", retryable=True)
        made = converted
    _move(made, path)
    return found


def _move(made: str, path: str) -> None:
    """In one step where both lie on one disk; otherwise beside the place first."""
    try:
        os.replace(made, path)
    except OSError:
        beside = path + ".part"
        try:
            shutil.copyfile(made, beside)
            os.replace(beside, path)
        finally:
            if os.path.exists(beside):
                os.unlink(beside)
        os.unlink(made)


# -- sound -----------------------------------------------------------------------------------------------------------------------------


def stage_sound(path: str, folder: str, cancel: CancelToken, popen: Popen) -> str:
    """The source's sound as a file that the program takes; that of a video too."""
    what = "source audio"
    with open_readable(path, what):
        pass
    try:
        with av.open(
            path, container_options={"format_whitelist": _SOUND_DEMUXERS, "protocol_whitelist": "file"}, metadata_errors="replace"
        ) as container:
            stream = next((stream for stream in container.streams.audio if stream.codec_context is not None), None)
            if stream is None:
                raise EngineError("INPUT_WRONG_KIND", f"The {what} holds no sound.")
            if next(decoded(container, stream, cancel), None) is None:
                raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be decoded.")
            extension = _SOUND_NAMES.get(container.format.name, "")
    except (av.error.FFmpegError, ValueError, OSError):
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be read: it is damaged or of no known format.") from None
    staged = os.path.join(folder, f"source.{extension or 'wav'}")
    if extension:
        os.symlink(path, staged)
    else:
        _ffmpeg(popen, ["-i", path, "-map", "0:a:0", "-c:a", "pcm_s16le", staged], cancel, what)
    return staged


# -- video -----------------------------------------------------------------------------------------------------------------------------


def video_target(
    path: str,
    folder: str,
    extension: str,
    arguments: Mapping[str, Any],
    probe: Callable[[str], tuple[float, int]],
    cancel: CancelToken,
    popen: Popen,
) -> tuple[Target, Callable[[Callable[[int], None]], Target]]:
    """The target as it will be, and what makes it so (which may take a while: it is told how to report frames).

    `probe` answers what the program thinks of a video: its rate, and how many frames it has.
    """
    what = "target video"
    info = examine(path, what, cancel)
    staged = os.path.join(folder, f"target.{extension}")
    # ffmpeg tells what a file is by its content; the program tells what to make by its name.
    os.symlink(path, staged)
    begin, end, warnings = _trim(info, arguments)
    reference = min(int(arguments["reference_frame_number"] or 0), info.frames - 1)
    target = Target(
        staged, MediaKind.MEDIA_KIND_VIDEO, (info.width, info.height), info.has_audio, info, begin, end, info.rate, reference, warnings
    )
    rate = info.rate
    wanted = arguments["output_video_fps"]
    if wanted and Fraction(wanted).limit_denominator(1001) < rate * Fraction(999, 1000):
        # The program cannot go below its source's rate: it would stretch the video, or look faces up in the wrong frames.
        rate = Fraction(wanted).limit_denominator(1001)
    if rate < 1:
        rate = Fraction(1)  # its content analyser divides by the whole part of the rate
    start, turned = _lies(path, what, info, cancel)
    thinks_rate, thinks_frames = probe(staged)
    fit = (
        rate == info.rate
        and info.constant
        and not turned
        and start * info.rate < Fraction(1, 2)
        and math.isclose(thinks_rate, float(info.rate), rel_tol=1e-3)
        and thinks_frames >= info.frames
    )
    if fit:
        return target, lambda report: target

    # A gap before the first picture is filled with it, unless nobody would miss it: then the pictures come that much earlier.
    gap = start if start >= _UNHEARD else Fraction(0)

    def place(frame: int) -> int:
        time = info.times[frame] if frame < info.frames else info.times[-1] + 1 / info.rate
        return round((time - info.times[0] + gap) * rate)

    whole = begin == 0 and end == info.frames
    first = 0 if begin == 0 else place(begin)
    planned = replace(target, begin=first, end=max(first + 1, place(end)), rate=rate, reference_frame=place(reference))

    def make(report: Callable[[int], None]) -> Target:
        made = os.path.join(folder, f"normal.{extension}")
        steady = f"fps={rate.numerator}/{rate.denominator}" + (":start_time=0" if gap else "")
        command = ["-i", path, "-map", "0:v:0", "-map", "0:a:0?", "-vf", steady if gap else f"setpts=PTS-STARTPTS,{steady}", *_BETWEEN]
        _ffmpeg(popen, [*command, "-c:a", "copy", "-f", "matroska", made], cancel, what, report)
        again = examine(made, what, cancel)
        last = again.frames if whole else min(planned.end, again.frames)
        if planned.begin >= last:
            raise EngineError("OPTION_INVALID", "trim_frame_start lies behind the end of the target video.")
        os.unlink(staged)
        return replace(planned, path=made, info=again, size=(again.width, again.height), end=last)

    return planned, make


def _trim(info: VideoInfo, arguments: Mapping[str, Any]) -> tuple[int, int, tuple[str, ...]]:
    begin = arguments["trim_frame_start"] or 0
    asked = arguments["trim_frame_end"]
    end = info.frames if asked is None else min(asked, info.frames)
    if begin >= info.frames:
        raise EngineError("OPTION_INVALID", f"trim_frame_start is {begin}, but the target video has {info.frames} frames.")
    if begin >= end:
        raise EngineError("OPTION_INVALID", "trim_frame_end does not lie behind trim_frame_start.")
    if asked is not None and asked > info.frames:
        return begin, end, (f"trim_frame_end is {asked}, but the target video has {info.frames} frames",)
    return begin, end, ()


def _lies(path: str, what: str, info: VideoInfo, cancel: CancelToken) -> tuple[Fraction, bool]:
    """How long after the file's own start its first picture comes, and whether a player has to turn its pictures."""
    with open_input(path, what) as container:
        origin = Fraction(container.start_time or 0, 1_000_000)
        stream = next(stream for stream in container.streams.video if not stream.disposition & stream.disposition.attached_pic)
        frame = next(decoded(container, stream, cancel), None)
        start = info.times[0] - origin if info.stamps else Fraction(0)
        return max(Fraction(0), start), frame is not None and frame.rotation % 360 != 0


def has_sample(target: Target) -> bool:
    """Whether the program's content analyser, which looks at one frame a second, looks at any frame of the range."""
    every = max(1, int(target.rate))
    return -(-target.begin // every) * every < target.end


def finish_video(
    made: str, path: str, target: Target, rate: Fraction, size: tuple[int, int], wants_audio: bool, cancel: CancelToken
) -> tuple[int, float, bool]:
    """Checks what the program made and gives it its place. Answers its frames, its seconds, and whether its sound is lost."""
    try:
        info = examine(made, "result", cancel)
    except EngineError as error:
        raise EngineError("RESULT_INVALID", f"The result does not read back: {error.message}", retryable=True) from None
    wanted = target.frames if rate == target.rate else round(target.frames * rate / target.rate)
    slack = 0 if rate == target.rate else 1 + math.ceil(rate / target.rate)
    seconds = float(target.frames / target.rate)
    problem = ""
    if (info.width, info.height) != size:
        problem = f"it is {info.width}x{info.height} instead of {size[0]}x{size[1]}"
    elif abs(info.frames - wanted) > slack:
        problem = f"it has {info.frames} frames instead of {wanted}"
    elif abs(float(info.times[-1] - info.times[0] + 1 / info.rate) - seconds) > float(1 / target.rate) + float(1 / rate):
        problem = f"it lasts {float(info.times[-1] - info.times[0] + 1 / info.rate):.2f} s instead of {seconds:.2f}"
    else:
        lost = undecodable(made, "result", info, sorted({info.frames // 2, info.frames - 1}), cancel)
        if lost:
            problem = f"frame {lost[0]} does not decode"
    if problem:
        raise not_right(problem)
    _move(made, path)
    return info.frames, float(info.frames / rate), wants_audio and not info.has_audio


def finish_frames(folder: str, path: str, wanted: int, slack: int, size: tuple[int, int], report: Report) -> int:
    """Checks each picture that the program made of `wanted` frames, give or take `slack`, and packs them. Answers how many there are."""
    pictures = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if not pictures or abs(len(pictures) - wanted) > slack:
        raise not_right(f"it has {len(pictures)} frames instead of {wanted}")

    def checked() -> Iterator[str]:
        for name in pictures:
            report.cancel.check()
            picture = os.path.join(folder, name)
            pixels = cv2.imread(picture, cv2.IMREAD_UNCHANGED)
            if pixels is None:
                raise not_right(f"frame {name} does not decode")
            if (pixels.shape[1], pixels.shape[0]) != size:
                raise not_right(f"frame {name} is {pixels.shape[1]}x{pixels.shape[0]} instead of {size[0]}x{size[1]}")
            yield picture

    made = f"{folder}.{archive.EXTENSION}"
    archive.pack(checked(), made, report.cancel, report.advance)
    _move(made, path)
    return len(pictures)


def is_full(folder: str) -> bool:
    """Whether what went wrong there went wrong for want of space: neither the program nor its encoders tell."""
    return shutil.disk_usage(folder).free < _NO_SPACE


def no_space() -> EngineError:
    return EngineError("DISK_FULL", "There is no space left in the work folder.", retryable=True)


def not_right(problem: str) -> EngineError:
    return EngineError("RESULT_INVALID", f"The result is not right: {problem}.", retryable=True)


def damaged_frames(path: str, cancel: CancelToken) -> int:
    """How many frames of a video cannot be decoded. Reads all of it."""
    info = examine(path, "target video", cancel)
    return info.frames - sum(1 for _ in decode(path, "target video", info, 0, info.frames, cancel))


def _ffmpeg(popen: Popen, arguments: Sequence[str], cancel: CancelToken, what: str, report: Callable[[int], None] | None = None) -> None:
    """`popen` is one whose children end with the run: a cancel need not wait for the next line."""
    command = [shutil.which("ffmpeg") or "ffmpeg", "-nostdin", "-y", "-loglevel", "error", "-progress", "pipe:1", "-stats_period", "0.1"]
    with popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for line in process.stdout:
            name, _, value = line.decode(errors="replace").strip().partition("=")
            if name == "frame" and value.isdecimal() and report is not None:
                report(int(value))
    cancel.check()
    if process.returncode != 0:
        if is_full(os.path.dirname(arguments[-1])):
            raise no_space()
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be decoded.")
