"""Reading and writing video by PyAV, with no program beside it.

Always true here: a file is opened by one of three demuxers and by no other (no playlist, no concat list); sizes are checked before anything
is decoded; packets are counted, headers are not believed; what is written has constant timestamps, and is read back before it is named; a
cancel is heeded at every few packets of a file, at every frame and at every few thousand of a sum, however long the file is.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .engine import CancelToken, EngineError
from .pictures import kind_of
from .vision import MAX_VIDEO_PIXELS, av

Frame = NDArray[np.uint8]

VIDEO_FORMATS = {"mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime"}
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
_VIDEO_CODECS = {"mp4": ("libx264", "libx265"), "mov": ("libx264", "libx265"), "webm": ("libvpx-vp9",)}
# Sound that a container takes as it is, and the encoders for what it does not take, the usual one first.
_AUDIO_COPY = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"},
    "mov": {"aac", "mp3", "ac3", "alac", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}
_AUDIO_CODECS = {
    "mp4": ("aac", "libmp3lame", "libopus", "flac"),
    "mov": ("aac", "libmp3lame", "pcm_s16le"),
    "webm": ("libopus", "libvorbis"),
}
_SAMPLE_RATES = {
    "libopus": (48_000,),
    "libmp3lame": (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "aac": (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
}
_MAX_RATE = 120
_MAX_FRAMES = 2_000_000
# Frames of one sum, and packets of whatever stream, between which a cancel is heeded.
_SUM = 10_000
_PACKETS = 64
_USUAL_RATES = [Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)] + [
    Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)
]


def open_input(path: str, what: str) -> av.container.InputContainer:
    kind = kind_of(path, what)
    if kind == "picture":
        raise EngineError("INPUT_WRONG_KIND", f"The {what} is a picture, not a video.")
    if kind == "unknown":
        raise EngineError("INPUT_NOT_READABLE", f"The {what} is not a video of a known format (mp4, mov, webm, mkv, avi).")
    options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
    try:
        return av.open(path, container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError):
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be read: it is damaged or not complete.") from None


class Times(Sequence[Fraction]):
    """When frames are shown, in seconds, rising. Made as they are asked for: a file has up to millions, of which few are."""

    def __init__(self, stamps: Sequence[int], unit: Fraction) -> None:
        self._stamps = stamps
        self._unit = unit

    def __len__(self) -> int:
        return len(self._stamps)

    @overload
    def __getitem__(self, place: int) -> Fraction: ...
    @overload
    def __getitem__(self, place: slice) -> Times: ...
    def __getitem__(self, place: int | slice) -> Fraction | Times:
        if isinstance(place, slice):
            return Times(self._stamps[place], self._unit)
        return self._stamps[place] * self._unit


@dataclass(frozen=True)
class VideoInfo:
    """What a demuxing pass over the whole file found. Sizes are of the upright picture."""

    width: int
    height: int
    times: Times
    rate: Fraction
    constant: bool  # every frame lies where the rate puts it
    has_audio: bool
    stamps: tuple[int, ...]  # the same times in the stream's own ticks; empty where the container stores none
    keys: tuple[int, ...] = ()  # those of the frames at which decoding can begin

    @property
    def frames(self) -> int:
        return len(self.times)


def examine(path: str, what: str, cancel: CancelToken) -> VideoInfo:
    """Counts the frames and judges the size; decodes nothing but the one frame that shows how the picture stands."""
    with open_input(path, what) as container:
        stream = next((s for s in container.streams.video if not _is_cover(s)), None)
        if stream is None:
            raise EngineError("INPUT_WRONG_KIND", f"The {what} holds no video.")
        context = stream.codec_context
        if context is None:
            raise EngineError("INPUT_NOT_READABLE", f"The {what} has a video codec that cannot be decoded.")
        width, height = context.width, context.height
        if width <= 0 or height <= 0:
            raise EngineError("INPUT_NOT_READABLE", f"The {what} does not say how large its frames are.")
        if width * height > MAX_VIDEO_PIXELS:
            raise EngineError(
                "INPUT_TOO_LARGE", f"The {what} is {width}x{height}; at most {MAX_VIDEO_PIXELS >> 20} megapixels a frame are taken."
            )
        stamps, keys, count, base, announced = _stamps(container, stream, cancel)
        if announced > count and container.format.name.startswith("mov"):
            raise EngineError("INPUT_NOT_READABLE", f"The {what} is cut short: it announces {announced} frames and holds {count}.")
        if count == 0:
            raise EngineError("INPUT_NOT_READABLE", f"The {what} holds no frames.")
        rate, constant = _rate(stamps, count, base, stream, cancel)
        times = Times(stamps, base) if stamps else Times(range(count), 1 / rate)
        has_audio = any(audio.codec_context is not None for audio in container.streams.audio)
    first = next(decode(path, what, VideoInfo(width, height, times, rate, constant, has_audio, stamps), 0, 1, cancel), None)
    if first is None:
        raise EngineError("INPUT_NOT_READABLE", f"The {what} cannot be decoded.")
    height, width = first[1].shape[:2]
    return VideoInfo(width, height, times, rate, constant, has_audio, stamps, keys)


def _is_cover(stream: Any) -> bool:
    """A picture beside the sound (cover art) is no video."""
    return bool(stream.disposition & stream.disposition.attached_pic)


def _stamps(container: Any, stream: Any, cancel: CancelToken) -> tuple[tuple[int, ...], tuple[int, ...], int, Fraction, int]:
    stamps: list[int] = []
    keys: list[int] = []
    count = 0
    complete = True
    announced = stream.frames
    try:
        for packet in packets_of(container, stream, cancel):
            if packet.size == 0:
                continue
            if packet.is_discard:  # an edit list leaves it out
                announced -= 1
                continue
            count += 1
            if packet.pts is None:
                complete = False
            else:
                stamps.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
            if count > _MAX_FRAMES:
                raise EngineError("INPUT_TOO_LARGE", f"A video of more than {_MAX_FRAMES} frames is not taken.")
    except av.error.FFmpegError:
        pass  # what came before the damage counts
    stamps.sort()
    if not complete or len(set(stamps)) != len(stamps):
        stamps, keys = [], []
    return tuple(stamps), tuple(sorted(keys)), count, Fraction(stream.time_base), announced


def _rate(stamps: tuple[int, ...], count: int, base: Fraction, stream: Any, cancel: CancelToken) -> tuple[Fraction, bool]:
    """The frame rate that the timestamps show, and whether they keep to it."""
    declared = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    if len(stamps) < 2:
        rate = next((rate for rate in declared if 0 < rate <= _MAX_RATE), Fraction(25))
        return rate, True
    span = (stamps[-1] - stamps[0]) * base
    mean = (count - 1) / span
    slack = max(Fraction(1, 2) * base, Fraction(1, 1000)) * Fraction(3, 2)
    usual = sorted(_USUAL_RATES, key=lambda rate: abs(rate - mean))
    for rate in [*declared, *usual[:2], mean]:
        if 0 < rate <= _MAX_RATE and _keeps(stamps, base, rate, slack, cancel):
            return rate, True
    mean = min(Fraction(_MAX_RATE), max(Fraction(1), mean))
    nearest = usual[0]
    return (nearest if abs(nearest - mean) < mean / 200 else mean.limit_denominator(1001)), False


def _keeps(stamps: Sequence[int], base: Fraction, rate: Fraction, slack: Fraction, cancel: CancelToken) -> bool:
    """Whether no frame lies further than `slack` seconds from where the rate puts it. In whole numbers, all sides times all denominators:
    an hour of fractions takes a second."""
    tick = base.numerator * rate.numerator * slack.denominator
    frame = rate.denominator * base.denominator * slack.denominator
    most = slack.numerator * base.denominator * rate.numerator
    for begin in range(0, len(stamps), _SUM):
        cancel.check()
        if not all(-most <= (stamp - stamps[0]) * tick - n * frame <= most for n, stamp in enumerate(stamps[begin : begin + _SUM], begin)):
            return False
    return True


def decode(path: str, what: str, info: VideoInfo, begin: int, end: int, cancel: CancelToken) -> Iterator[tuple[int, Frame]]:
    """Frames `begin` to before `end` with their numbers, upright, BGR. A frame that cannot be decoded is left out."""
    place = {stamp: number for number, stamp in enumerate(info.stamps)}
    with open_input(path, what) as container:
        stream = next(s for s in container.streams.video if not _is_cover(s))
        stream.thread_type = "AUTO"
        if begin > 0 and place:
            with suppress(av.error.FFmpegError):
                container.seek(info.stamps[begin], stream=stream, backward=True)
        number = -1
        for frame in decoded(container, stream, cancel):
            number = place.get(frame.pts, -1) if place else number + 1
            if number < begin:
                continue
            if number >= end:
                return
            if frame.width * frame.height > MAX_VIDEO_PIXELS:
                raise EngineError("INPUT_TOO_LARGE", f"The {what} grows to {frame.width}x{frame.height} on its way.")
            pixels = frame.to_ndarray(format="bgr24")
            turns = round(frame.rotation / 90) % 4
            yield number, np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def undecodable(path: str, what: str, info: VideoInfo, numbers: Sequence[int], cancel: CancelToken) -> list[int]:
    """Those of some frames (their numbers, rising) that cannot be decoded. Reads no more of the video than it takes to get to them."""
    if not info.stamps:
        return [number for number in numbers if next(decode(path, what, info, number, number + 1, cancel), None) is None]
    rest = [info.stamps[number] for number in numbers]
    seen: set[int] = set()
    with open_input(path, what) as container:
        stream = next(s for s in container.streams.video if not _is_cover(s))
        stream.thread_type = "AUTO"
        while rest:
            # Those that are decoded from one key frame on are decoded in one go.
            until = next((key for key in info.keys if key > rest[0]), info.stamps[-1] + 1)
            here = [stamp for stamp in rest if stamp < until]
            rest = rest[len(here) :]
            with suppress(av.error.FFmpegError):
                container.seek(here[0], stream=stream, backward=True)
            for frame in decoded(container, stream, cancel):
                seen.add(frame.pts)
                if frame.pts >= here[-1]:
                    break
    return [number for number in numbers if info.stamps[number] not in seen]


def packets_of(container: Any, stream: Any, cancel: CancelToken) -> Iterator[Any]:
    """Like `container.demux(stream)`, which reads on until a packet of the stream comes: hours of sound, where it begins late or goes on
    alone."""
    index = stream.index
    for number, packet in enumerate(container.demux()):
        if number % _PACKETS == 0:
            cancel.check()
        # The last of each stream, which is empty, belongs to it by this alone.
        if packet.stream_index == index if packet.size else packet.stream.index == index:
            yield packet


def decoded(container: Any, stream: Any, cancel: CancelToken) -> Iterator[Any]:
    """Like `container.decode`, but a damaged packet costs its own frames only, and a cancel is heeded at each packet."""
    packets = packets_of(container, stream, cancel)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        cancel.check()
        with suppress(av.error.InvalidDataError):
            for frame in packet.decode():
                cancel.check()
                yield frame


@dataclass(frozen=True)
class Colours:
    """How the source's samples mean colour, handed on to the result: it would look pale or tinted otherwise."""

    matrix: int
    primaries: int
    transfer: int

    @staticmethod
    def of(path: str, what: str) -> Colours:
        with open_input(path, what) as container:
            context = next(s for s in container.streams.video if not _is_cover(s)).codec_context
            return Colours(int(context.colorspace), int(context.color_primaries), int(context.color_trc))


def crf(encoder: str, quality: int) -> int:
    """FaceFusion's own scale (`ffmpeg_builder.set_video_quality`): 0..100 to 51..0, or to 63..0 for VP9."""
    worst = 63 if encoder == "libvpx-vp9" else 51
    return int(np.round(np.interp(quality, [0, 100], [worst, 0])))


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Writes frames at a constant rate, and the sound in step with them."""

    def __init__(
        self,
        path: str,
        extension: str,
        size: tuple[int, int],
        rate: Fraction,
        options: Mapping[str, Any],
        colours: Colours,
        sound: Sound | None,
    ):
        self._rate = rate
        self._count = 0
        self._colours = colours
        faststart = {"movflags": "+faststart"} if extension != "webm" else {}
        self._container = av.open(path, "w", format=extension, container_options=faststart)
        try:
            encoder = video_encoder(extension, options)
            settings = {"crf": str(crf(encoder, options["output_video_quality"]))}
            if encoder == "libvpx-vp9":
                settings |= {"b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
            else:
                settings["preset"] = options["output_video_preset"]
            if encoder == "libx265":
                settings["x265-params"] = "log-level=none"
            stream = self._container.add_stream(encoder, rate=rate, options=settings)
            stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
            context = stream.codec_context
            context.time_base = 1 / rate
            if encoder == "libx265" and extension != "webm":
                context.codec_tag = "hvc1"
            context.color_range = 1
            if colours.matrix not in (0, 2):
                context.colorspace = colours.matrix
            if colours.primaries != 2:
                context.color_primaries = colours.primaries
            if colours.transfer != 2:
                context.color_trc = colours.transfer
            self._stream = stream
            self._sound = sound
            if sound is not None:
                sound.attach(self._container, extension)
        except BaseException:
            self._container.close()
            raise

    def write(self, frame: Frame, times: int = 1) -> None:
        """The frame, at the next `times` places."""
        for _ in range(times):
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24")
            matrix = self._colours.matrix if self._colours.matrix not in (0, 2) else None
            picture = picture.reformat(format="yuv420p", dst_colorspace=matrix)
            picture.pts, picture.time_base = self._count, 1 / self._rate
            self._container.mux(self._stream.encode(picture))
            self._count += 1
            if self._sound is not None:
                self._sound.pump(self._count / self._rate)

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.finish()

    def __exit__(self, *_: object) -> None:
        if self._sound is not None:
            self._sound.close()
        self._container.close()


def video_encoder(extension: str, options: Mapping[str, Any]) -> str:
    wanted = options["output_video_encoder"]
    return wanted if wanted in _VIDEO_CODECS[extension] else _VIDEO_CODECS[extension][0]


class Sound:
    """The source's sound from `begin` on, moved to 0, `length` seconds of it: copied packet by packet where that is exact, encoded anew
    where it is not."""

    def __init__(
        self, path: str, what: str, begin: Fraction, length: Fraction, trimmed: bool, options: Mapping[str, Any], cancel: CancelToken
    ) -> None:
        self._cancel = cancel
        self._begin = begin
        self._length = length
        self._trimmed = trimmed
        self._options = options
        self._input = open_input(path, what)
        self._source = next(s for s in self._input.streams.audio if s.codec_context is not None)
        self.copies = False
        self._queue: Iterator[tuple[Fraction, Any]] = iter(())
        self._pending: tuple[Fraction, Any] | None = None
        self._output: Any = None
        self.packets = 0

    def attach(self, output: Any, extension: str) -> None:
        self._output = output
        wanted = self._options["output_audio_encoder"]
        encoder = wanted if wanted in _AUDIO_CODECS[extension] else _AUDIO_CODECS[extension][0]
        # Matroska has no edit lists: a packet that begins before the cut cannot be shortened there.
        self.copies = (
            self._source.codec_context.name in _AUDIO_COPY[extension]
            and self._options["output_audio_volume"] == 100
            and not (extension == "webm" and self._trimmed)
            and wanted is None
        )
        if self.copies:
            self._queue = self._copied(output.add_stream_from_template(self._source))
            return
        rate = self._source.codec_context.sample_rate
        if rate not in _SAMPLE_RATES.get(encoder, (rate,)):
            rate = 48_000
        layout = "mono" if self._source.codec_context.channels == 1 else "stereo"
        bits = int(np.interp(self._options["output_audio_quality"], [0, 100], [64, 256])) * (500 if layout == "mono" else 1000)
        settings = {} if encoder in ("flac", "pcm_s16le") else {"b": str(bits)}
        self._queue = self._encoded(output.add_stream(encoder, rate=rate, layout=layout, options=settings), rate, layout)

    def pump(self, until: Fraction) -> None:
        """Hands over what sounds before `until`, so that sound and picture lie side by side in the file."""
        while True:
            if self._pending is None:
                self._pending = next(self._queue, None)
            if self._pending is None or self._pending[0] >= until:
                return
            self._output.mux(self._pending[1])
            self.packets += 1
            self._pending = None

    def finish(self) -> None:
        self.pump(self._length)

    def _copied(self, stream: Any) -> Iterator[tuple[Fraction, Any]]:
        base = Fraction(self._source.time_base)
        shift = round(self._begin / base)
        if self._trimmed:
            with suppress(av.error.FFmpegError):
                self._input.seek(max(0, shift), stream=self._source, backward=True)
        held: Any = None  # the packet before the cut: a decoder needs it to begin cleanly, an edit list then hides it
        for packet in packets_of(self._input, self._source, self._cancel):
            if packet.size == 0 or packet.pts is None:
                continue
            if packet.pts + (packet.duration or 0) <= shift and self._trimmed:
                held = packet
                continue
            for ready in (held, packet):
                if ready is not None:
                    ready.pts -= shift
                    ready.dts = ready.pts
                    ready.stream = stream
                    yield ready.pts * base, ready
            held = None

    def _encoded(self, stream: Any, rate: int, layout: str) -> Iterator[tuple[Fraction, Any]]:
        volume = np.float32(self._options["output_audio_volume"] / 100)
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        if self._trimmed:
            with suppress(av.error.FFmpegError):
                # One second early: a lossy codec needs a run-up before its samples are true.
                self._input.seek(max(0, int((self._begin - 1) / self._source.time_base)), stream=self._source, backward=True)
        place: int | None = None  # of the next sample, on the result's clock
        for frame in decoded(self._input, self._source, self._cancel):
            if place is None:
                place = round((frame.pts * Fraction(frame.time_base) - self._begin) * rate) if frame.pts is not None else 0
                silence = np.zeros((1 if layout == "mono" else 2, rate), np.float32)
                # In pieces: a sound may begin hours after the picture.
                for at in range(0, min(place, round(self._length * rate)), rate):
                    yield from self._encode(stream, silence[:, : place - at], at, rate, layout)
            for piece in resampler.resample(frame):
                samples = piece.to_ndarray()[:, : max(0, round(self._length * rate) - place)]
                if place < 0:
                    cut = min(-place, samples.shape[1])
                    samples, place = samples[:, cut:], place + cut
                if samples.shape[1]:
                    yield from self._encode(stream, samples * volume, place, rate, layout)
                    place += samples.shape[1]
        for packet in stream.encode(None):
            yield self._time(packet), packet

    def _encode(self, stream: Any, samples: NDArray[np.float32], place: int, rate: int, layout: str) -> Iterator[tuple[Fraction, Any]]:
        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        piece.sample_rate, piece.pts, piece.time_base = rate, place, Fraction(1, rate)
        for packet in stream.encode(piece):
            yield self._time(packet), packet

    @staticmethod
    def _time(packet: Any) -> Fraction:
        return (packet.pts or 0) * Fraction(packet.time_base)

    def close(self) -> None:
        self._input.close()


def check_result(path: str, frames: int, rate: Fraction, size: tuple[int, int], wants_audio: bool, cancel: CancelToken) -> float:
    """The written file read back: frame count, size, duration, three decoded points, sound. Answers its duration in seconds."""
    try:
        info = examine(path, "result", cancel)
    except EngineError as error:
        raise EngineError("RESULT_INVALID", f"The result does not read back: {error.message}", retryable=True) from None
    problem = ""
    if (info.width, info.height) != size:
        problem = f"it is {info.width}x{info.height} instead of {size[0]}x{size[1]}"
    elif info.frames != frames:
        problem = f"it has {info.frames} frames instead of {frames}"
    elif wants_audio and not info.has_audio:
        problem = "its sound is missing"
    elif abs(float(info.times[-1] - info.times[0]) - float((frames - 1) / rate)) > float(1 / rate):
        problem = "its duration is wrong"
    else:
        for number in {frames // 2, frames - 1}:
            if next(decode(path, "result", info, number, number + 1, cancel), None) is None:
                problem = f"frame {number} does not decode"
    if problem:
        raise EngineError("RESULT_INVALID", f"The result is not right: {problem}.", retryable=True)
    return float(frames / rate)


def schedule(info: VideoInfo, begin: int, end: int, rate: Fraction, cancel: CancelToken) -> list[int]:
    """How often each source frame from `begin` to before `end` is shown at `rate`, so that each stays where it was in time."""
    if info.constant and rate == info.rate:
        return [1] * (end - begin)
    start = info.times[begin]
    stop = info.times[end] if end < info.frames else info.times[-1] + 1 / info.rate
    total = max(1, round((stop - start) * rate))
    moments = [time - start for time in info.times[begin:end]]
    shown = [0] * (end - begin)
    slack = 1 / (1000 * rate) + Fraction(1, 2000)
    for number in range(total):
        if number % _SUM == 0:
            cancel.check()
        shown[max(0, bisect.bisect_right(moments, number / rate + slack) - 1)] += 1
    return shown
