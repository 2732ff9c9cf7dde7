"""The engine that needs no model file: OpenCV and PyAV do a real, plain face swap, enhancement and upscale.

Always true here: a run reads only the paths of its job, writes only beside its output path, and leaves nothing half written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from fractions import Fraction
from typing import Any

import numpy as np

from .. import __version__
from ..engine import Capabilities, EngineError, Job, MediaKind, Report, Result, Step
from ..faces import SEARCH_SIDE_VIDEO, Face, FaceFinder, Frame
from ..options import IGNORED_OPTIONS, OPTIONS, PROCESSORS, resolve
from ..pictures import PICTURE_FORMATS, Picture, jpeg_preview, read_picture, replacing, write_picture
from ..processing import FrameProcessor, VideoSelector, load_source, look_of, select
from ..swap import Swapper
from ..tracking import DETECT_EVERY, Tracker
from ..video import VIDEO_FORMATS, Colours, Sound, VideoInfo, VideoWriter, check_result, decode, examine, schedule
from ..vision import MAX_PICTURE_PIXELS, MAX_VIDEO_PIXELS, cv2

_TARGET = "target video"
# Sampled frames in which the reference face may show itself, once one with any face has come.
_REFERENCE_SAMPLES = 12
_ENCODER_QUEUE = 3
# Repeats of a frame that are encoded in one go.
_STAND = 25


class Classical:
    name = "classical"
    version = __version__

    def __init__(self) -> None:
        self._finder = FaceFinder()
        self._warm = False

    def capabilities(self) -> Capabilities:
        return Capabilities(PROCESSORS, OPTIONS, list(PICTURE_FORMATS), list(VIDEO_FORMATS), IGNORED_OPTIONS)

    def warm(self) -> Sequence[str]:
        if not self._warm:
            self._finder.find(np.full((96, 96, 3), 127, np.uint8))
            self._warm = True
        return ("haarcascade",)

    def cancel(self) -> None:
        """Every loop asks the run's token; there is no long native call to break."""

    def run(self, job: Job, report: Report) -> Result:
        options = resolve(job.parameters)
        if job.target_kind == MediaKind.MEDIA_KIND_IMAGE:
            extension = _extension(job.output_format, PICTURE_FORMATS, "picture")
            report.plan({Step.STEP_ANALYSING: 0.5, Step.STEP_PROCESSING: 0.3, Step.STEP_ENCODING_OUTPUT: 0.2})
            report.enter(Step.STEP_ANALYSING, 1)
            return self._picture(job, report, options, self._processor(job, report, options), extension)
        if job.target_kind == MediaKind.MEDIA_KIND_VIDEO:
            extension = _extension(job.output_format, VIDEO_FORMATS, "video")
            report.plan({Step.STEP_ANALYSING: 0.04, Step.STEP_PROCESSING: 0.92, Step.STEP_ENCODING_OUTPUT: 0.04})
            report.enter(Step.STEP_ANALYSING)
            return self._video(job, report, options, self._processor(job, report, options), extension)
        raise EngineError("INPUT_WRONG_KIND", "The job does not say whether its target is a picture or a video.")

    def _processor(self, job: Job, report: Report, options: Mapping[str, Any]) -> FrameProcessor:
        if "face_swapper" not in options["processors"]:
            return FrameProcessor(options, None)
        if not job.source_paths:
            raise EngineError("SOURCE_MISSING", "face_swapper needs a source picture.")
        return FrameProcessor(options, Swapper(load_source(job.source_paths, self._finder, report), look_of(options)))

    def _picture(self, job: Job, report: Report, options: Mapping[str, Any], processor: FrameProcessor, extension: str) -> Result:
        target = read_picture(job.target_path, "target picture")
        height, width = target.pixels.shape[:2]
        scale = processor.factor * options["output_image_scale"]
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size[0] * size[1] > MAX_PICTURE_PIXELS or width * height * processor.factor**2 > MAX_PICTURE_PIXELS:
            raise EngineError("OUTPUT_TOO_LARGE", f"The result would have more than {MAX_PICTURE_PIXELS // (1 << 20)} megapixels.")
        faces = select(self._finder.find(target.pixels), options) if processor.wants_faces else []
        if not faces and "face_swapper" in options["processors"]:
            raise EngineError("NO_FACE_IN_TARGET", "No face was found in the target picture.")
        report.advance(1)
        report.enter(Step.STEP_PROCESSING, 1)
        pixels = processor.process(target.pixels, faces)
        if (pixels.shape[1], pixels.shape[0]) != size:
            shrink = size[0] < pixels.shape[1]
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
        report.advance(1)
        if report.wants_preview():
            report.preview(jpeg_preview(pixels), 0)
        report.enter(Step.STEP_ENCODING_OUTPUT, 1)
        alpha = target.alpha
        if alpha is not None and alpha.shape != pixels.shape[:2]:
            alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)
        write_picture(job.output_path, Picture(pixels, alpha), extension, options["output_image_quality"])
        report.advance(1)
        warnings = [] if faces or not processor.wants_faces else ["no face was found in the target picture"]
        return Result(PICTURE_FORMATS[extension], size[0], size[1], 1, 0.0, warnings)

    def _video(self, job: Job, report: Report, options: Mapping[str, Any], processor: FrameProcessor, extension: str) -> Result:
        info = examine(job.target_path, _TARGET, report.cancel)
        begin, end, warnings = _trim(info, options)
        size, cropped = _video_size(info, processor.factor, options["output_video_scale"])
        selector = VideoSelector(options, self._reference(job, report, options, info, begin, end)) if processor.wants_faces else None
        if selector is not None and not selector.any_face:
            if "face_swapper" in options["processors"]:
                raise EngineError("NO_FACE_IN_TARGET", "No face was found in any frame of the target video.")
            warnings.append("no face was found in any frame of the target video")

        rate = _rate(options["output_video_fps"], info)
        shown = schedule(info, begin, end, rate, report.cancel)
        frames = sum(shown)
        with replacing(job.output_path) as temporary:
            with ExitStack() as stack:
                sound = None
                if info.has_audio and options["output_audio_volume"] > 0:
                    trimmed = begin > 0 or end < info.frames
                    sound = Sound(job.target_path, _TARGET, info.times[begin], frames / rate, trimmed, options, report.cancel)
                    stack.callback(sound.close)
                colours = Colours.of(job.target_path, _TARGET)
                writer = stack.enter_context(VideoWriter(temporary, extension, size, rate, options, colours, sound))
                report.enter(Step.STEP_PROCESSING, end - begin)
                tracker = Tracker(self._finder) if selector is not None and selector.any_face else None
                behind = stack.enter_context(_Behind(writer))
                lost = self._frames(job, report, info, begin, end, shown, processor, tracker, selector, behind, size, cropped)
                behind.drain()
                report.enter(Step.STEP_ENCODING_OUTPUT)
                writer.finish()
            if lost:
                warnings.append(f"{lost} damaged frames of the target video repeat the frame before them")
            duration = check_result(temporary, frames, rate, size, sound is not None and sound.packets > 0, report.cancel)
        return Result(VIDEO_FORMATS[extension], size[0], size[1], frames, round(duration, 6), warnings)

    def _frames(
        self,
        job: Job,
        report: Report,
        info: VideoInfo,
        begin: int,
        end: int,
        shown: Sequence[int],
        processor: FrameProcessor,
        tracker: Tracker | None,
        selector: VideoSelector | None,
        writer: _Behind,
        size: tuple[int, int],
        cropped: bool,
    ) -> int:
        """Every frame through the processors into the writer; answers how many could not be decoded."""
        due, owed, lost = begin, 0, 0
        last: Frame | None = None
        for number, frame in decode(job.target_path, _TARGET, info, begin, end, report.cancel):
            missing = range(due, number)
            lost += len(missing)
            owed += sum(shown[n - begin] for n in missing)
            if last is not None and owed:
                _stand(writer, last, owed, report, due - begin)
                owed = 0
            tracks = tracker.update(frame) if tracker is not None else []
            times = shown[number - begin] + owed
            if times:  # a lower rate leaves frames out: they are followed, not swapped
                faces = selector.select(frame, tracks) if selector is not None else []
                last = _fit(processor.process(frame, faces), size, cropped)
                _stand(writer, last, times, report, due - begin)
                owed = 0
                if report.wants_preview():
                    report.preview(jpeg_preview(last), number)
            due = number + 1
            report.advance(due - begin)
        lost += end - due
        if last is None or lost > max(2, (end - begin) // 10):
            raise EngineError("INPUT_NOT_READABLE", f"The target video is damaged: {lost} of {end - begin} frames cannot be decoded.")
        _stand(writer, last, sum(shown[n - begin] for n in range(due, end)), report, due - begin)
        return lost

    def _reference(
        self, job: Job, report: Report, options: Mapping[str, Any], info: VideoInfo, begin: int, end: int
    ) -> tuple[Frame, Face] | None:
        """The first face that the job means, in the first sampled frame that shows it; None if no frame shows any."""
        first = options["reference_frame_number"] if options["face_selector_mode"] == "reference" else 0
        if first >= info.frames:
            raise EngineError("REFERENCE_FRAME_OUT_OF_RANGE", f"reference_frame_number is {first}, but the video has {info.frames} frames.")
        begin, end = (first, info.frames) if first else (begin, end)
        problem: EngineError | None = None
        samples = 0
        for number, frame in decode(job.target_path, _TARGET, info, begin, end, report.cancel):
            if (number - begin) % DETECT_EVERY:
                continue
            faces = self._finder.find(frame, SEARCH_SIDE_VIDEO)
            if faces:
                try:
                    return frame, select(faces, options)[0]
                except EngineError as error:
                    problem = problem or error
            samples += problem is not None
            if problem is not None and samples > _REFERENCE_SAMPLES:
                break
        if problem is not None:
            raise problem
        return None


class _Behind(AbstractContextManager["_Behind"]):
    """Encodes in a thread of its own while the next frame is worked on; at most a few frames wait. An error of the encoder comes out at
    the next call."""

    def __init__(self, writer: VideoWriter) -> None:
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._waiting: deque[Future[None]] = deque()

    def write(self, frame: Frame, times: int = 1) -> None:
        """The frame must not be changed afterwards."""
        while len(self._waiting) >= _ENCODER_QUEUE:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._writer.write, frame, times))

    def drain(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


def _stand(writer: _Behind, frame: Frame, times: int, report: Report, done: int) -> None:
    """Shows a frame so many times. One may stand for an hour, in a recorded screen: meanwhile the run gets on and heeds a cancel."""
    for left in range(times, 0, -_STAND):
        if left < times:
            report.advance(done)
        writer.write(frame, min(_STAND, left))


def _extension(wanted: str, known: Mapping[str, str], kind: str) -> str:
    extension = {"jpeg": "jpg"}.get(wanted, wanted)
    if extension not in known:
        raise EngineError(
            "OUTPUT_FORMAT_UNSUPPORTED", f"A {kind} cannot be written as {wanted or 'an unnamed format'}; {', '.join(known)} can."
        )
    return extension


def _trim(info: VideoInfo, options: Mapping[str, Any]) -> tuple[int, int, list[str]]:
    begin, end = options["trim_frame_start"] or 0, options["trim_frame_end"]
    if begin >= info.frames:
        raise EngineError("TRIM_OUT_OF_RANGE", f"trim_frame_start is {begin}, but the video has {info.frames} frames.")
    if end is None:
        return begin, info.frames, []
    if end <= begin:
        raise EngineError("TRIM_OUT_OF_RANGE", f"trim_frame_end is {end}: no frame lies between it and trim_frame_start, {begin}.")
    if end > info.frames:
        return begin, info.frames, [f"trim_frame_end is {end}, but the video has {info.frames} frames: all were taken"]
    return begin, end, []


def _video_size(info: VideoInfo, factor: int, scale: float) -> tuple[tuple[int, int], bool]:
    """The result's size, even as 4:2:0 wants it, and whether an odd line is simply cut off (which keeps every other pixel as it is)."""
    width, height = info.width * factor, info.height * factor
    if scale == 1:
        size, cropped = (width & ~1, height & ~1), True
    else:
        size, cropped = (round(width * scale / 2) * 2, round(height * scale / 2) * 2), False
    if min(size) < 2:
        raise EngineError("OUTPUT_TOO_SMALL", "The result would be less than two pixels wide or high.")
    if max(size[0] * size[1], width * height) > MAX_VIDEO_PIXELS:
        raise EngineError(
            "OUTPUT_TOO_LARGE", f"The result would be {size[0]}x{size[1]}; at most {MAX_VIDEO_PIXELS >> 20} megapixels a frame."
        )
    return size, cropped


def _fit(frame: Frame, size: tuple[int, int], cropped: bool) -> Frame:
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    if cropped:
        return np.ascontiguousarray(frame[: size[1], : size[0]])
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if size[0] < frame.shape[1] else cv2.INTER_CUBIC)


def _rate(wanted: float | None, info: VideoInfo) -> Fraction:
    """29.97 means 30000/1001, as everywhere."""
    if wanted is None:
        return info.rate
    for base in (24, 30, 60, 120):
        if abs(wanted - base * 1000 / 1001) < 0.005:
            return Fraction(base * 1000, 1001)
    rate = Fraction(wanted).limit_denominator(1000)
    return info.rate if abs(rate - info.rate) < Fraction(1, 1000) else rate
