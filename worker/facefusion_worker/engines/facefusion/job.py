"""One job in the program's terms: what both ways of running it share.

Everything before the program starts (options, files made fit, models looked for) and after it ends (the result checked and put in its
place); how it runs in between is the caller's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ... import archive
from ...engine import CancelToken, EngineError, Job, MediaKind, Report, Result, Step
from ...pictures import PICTURE_FORMATS
from ...video import VIDEO_FORMATS, examine
from ...vision import MAX_PICTURE_PIXELS, MAX_VIDEO_PIXELS
from . import media
from .media import Target
from .options import Options
from .program import LOW_MEMORY, Program

# Releases whose memory strategy writes frames of another size than it told the encoder, once frame_enhancer has enlarged them.
_ENLARGED_IN_MEMORY = ("3.8.0", "3.8.1", "4")
_FACTOR = re.compile(r"_x(\d)")


@dataclass
class Prepared:
    """A job that is ready to run."""

    arguments: dict[str, Any]
    target: Target
    extension: str
    made: str  # where the program writes
    size: tuple[int, int]
    rate: Fraction
    wants_audio: bool
    spoken: int  # frames of a picture that becomes a video, as many as its sound is long; 0: it becomes none
    as_frames: bool  # the pictures of a video, in one archive
    make_fit: Callable[[Callable[[int], None]], Target] | None
    warnings: list[str] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return self.spoken or self.target.frames

    def kind(self, version: str) -> str:
        """Jobs that take alike, for what is learned from them."""
        arguments = self.arguments
        models = [str(arguments.get(f"{name}_model", "")) for name in arguments["processors"]]
        width, height = self.target.size
        bucket = next((side for side in (360, 720, 1080, 1440, 2160) if min(width, height) <= side), 4320)
        media_kind = "spoken" if self.spoken else "video " + arguments["workflow_strategy"] if self.target.info else "picture"
        if self.as_frames:
            media_kind += " frames"
        return " ".join([version, media_kind, "+".join(arguments["processors"]), "+".join(models), str(bucket)])

    def steps(self) -> dict[Step, float]:
        """The steps that this job will go through, with the frames that each counts."""
        frames = float(self.frames)
        if self.target.info is None and not self.spoken:
            steps = [
                Step.STEP_LOADING_MODELS,
                Step.STEP_ANALYSING,
                Step.STEP_EXTRACTING_FRAMES,
                Step.STEP_PROCESSING,
                Step.STEP_ENCODING_OUTPUT,
            ]
            return dict.fromkeys(steps, frames)
        steps = [Step.STEP_LOADING_MODELS, Step.STEP_ANALYSING, Step.STEP_PROCESSING]
        if self.arguments["workflow_strategy"] == "disk" or self.spoken:
            steps += [Step.STEP_EXTRACTING_FRAMES, Step.STEP_ENCODING_OUTPUT]
        if not self.as_frames:
            steps.append(Step.STEP_RESTORING_AUDIO)
        return dict.fromkeys(steps, frames)


class Jobs:
    def __init__(self, program: Program) -> None:
        self._program = program
        self.options = Options(program)
        # The one that the program itself uses: its children are the run's.
        self._popen = program.module("ffmpeg").subprocess.Popen

    def prepare(self, job: Job, report: Report) -> Prepared:
        """Raises EngineError for whatever can be told before the program runs."""
        arguments = self.options.resolve(job.parameters)
        if job.low_memory:
            arguments |= LOW_MEMORY
            report.log("The run before this one ran out of memory: this one takes as little as it can, and longer.")
        processors = arguments["processors"]
        warnings: list[str] = []
        as_frames = self._writes_frames(job)
        speaks = self._speaks(job, as_frames)
        is_video = job.target_kind == MediaKind.MEDIA_KIND_VIDEO
        if not is_video and job.target_kind != MediaKind.MEDIA_KIND_IMAGE:
            raise EngineError("INPUT_WRONG_KIND", "The job does not say whether its target is a picture or a video.")
        extension = job.output_format
        if not as_frames:
            extension = media.extension_of(extension, MediaKind.MEDIA_KIND_VIDEO if speaks else job.target_kind)
        self._check_mode(arguments, is_video, speaks, as_frames)
        folder = job.work_dir
        sources = self._sources(job, folder, report.cancel, is_video or speaks, warnings, processors)
        make_fit = None
        if is_video:
            name = "mp4" if as_frames else extension
            target, make_fit = media.video_target(job.target_path, folder, name, arguments, self._thinks, report.cancel, self._popen)
            warnings += target.warnings
            self._strategy(arguments, report)
        else:
            target = media.picture_target(job.target_path, folder, extension)
        if as_frames:
            arguments["workflow_strategy"] = "disk"
        # A path without an extension is how the program is told to write pictures.
        suffix = "" if as_frames else f".{extension}" if is_video or speaks else os.path.splitext(target.path)[1]
        arguments |= {
            "source_paths": sources or None,
            "target_path": target.path,
            "temp_path": folder,
            "output_path": os.path.join(folder, "result" + suffix),
        }
        sounds = any(self._is_sound(path) for path in sources)
        wants_audio = (is_video or speaks) and not as_frames and arguments["output_audio_volume"] > 0 and (target.has_audio or sounds)
        rate = self._rate(arguments, target, as_frames, warnings) if is_video else target.rate
        self._sound(arguments, extension, wants_audio, warnings)
        scale = arguments["output_video_scale" if is_video else "output_image_scale"]
        size = tuple(self._program.module("vision").scale_resolution(target.size, scale))
        if as_frames:
            size = self._size_of_frames(target.size, size, arguments, warnings)
        self._room(size, target.size, arguments, is_video and not as_frames)
        made, spoken = arguments["output_path"], self._spoken(arguments) if speaks else 0
        return Prepared(arguments, target, extension, made, size, rate, wants_audio, spoken, as_frames, make_fit, warnings)

    def make_fit(self, prepared: Prepared, report: Report) -> None:
        """Once the first step has been said: normalising a long video takes its time."""
        target = prepared.target
        if prepared.make_fit is not None:
            target = prepared.make_fit(report.advance)
            if target.path != prepared.target.path:
                report.log(f"The target video was made even first: {float(target.rate):g} frames per second, upright, from the start.")
            prepared.make_fit = None
        prepared.target = target
        prepared.arguments["target_path"] = target.path
        if target.info is not None:
            prepared.arguments |= {
                "trim_frame_start": target.begin,
                "trim_frame_end": target.end,
                "reference_frame_number": target.reference_frame,
            }

    def _writes_frames(self, job: Job) -> bool:
        if job.output_format != archive.EXTENSION:
            return False
        if not self._program.release.writes_frames:
            formats = VIDEO_FORMATS if job.target_kind == MediaKind.MEDIA_KIND_VIDEO else PICTURE_FORMATS
            raise EngineError(
                "OUTPUT_FORMAT_INVALID", f"FaceFusion {self._program.version} writes no frames; the result can be: {', '.join(formats)}."
            )
        return True

    def _speaks(self, job: Job, as_frames: bool) -> bool:
        wants_video = as_frames or job.output_format in VIDEO_FORMATS
        if job.target_kind != MediaKind.MEDIA_KIND_IMAGE or not wants_video:
            return False
        if not self._program.release.speaks:
            raise EngineError(
                "OUTPUT_FORMAT_INVALID",
                f"FaceFusion {self._program.version} makes no video of a picture; the result can be: {', '.join(PICTURE_FORMATS)}.",
            )
        if not job.source_audio_path:
            raise EngineError("SOURCE_MISSING", "A picture becomes a video, or the frames of one, only with a source audio.")
        return True

    def _check_mode(self, arguments: Mapping[str, Any], is_video: bool, speaks: bool, as_frames: bool) -> None:
        mode = arguments.get("workflow_mode", "auto")
        moving = "image-to-video" + (":frames" if as_frames else "")
        spoken = "audio-to-image" + (":frames" if as_frames else ":video")
        fits = moving if is_video else spoken if speaks else "image-to-image"
        if mode not in ("auto", fits):
            hint = f"; with output_format {archive.EXTENSION} {mode} does" if mode.startswith(fits.partition(":")[0] + ":frames") else ""
            raise EngineError("OPTION_INVALID", f"workflow_mode {mode} does not fit these inputs; {fits} does{hint}.")
        if is_video and as_frames and "lip_syncer" in arguments["processors"]:
            raise EngineError(
                "OPTION_INVALID", f"FaceFusion {self._program.version} moves no lips in frames: it hears the source audio only for a video."
            )

    @staticmethod
    def _rate(arguments: dict[str, Any], target: Target, as_frames: bool, warnings: list[str]) -> Fraction:
        """Unless it is raised, the rate is the video's own, in the program's own words."""
        wanted = Fraction(arguments["output_video_fps"] or 0).limit_denominator(1001)
        raised = wanted > target.rate * Fraction(1001, 1000)
        if raised and as_frames:
            warnings.append("output_video_fps has no effect on frames above the rate of the target video")
            raised = False
        arguments["output_video_fps"] = float(wanted) if raised else None
        return wanted if raised else target.rate

    @staticmethod
    def _size_of_frames(
        target: tuple[int, int], scaled: tuple[int, int], arguments: Mapping[str, Any], warnings: list[str]
    ) -> tuple[int, int]:
        """Frames are never scaled up by the program, which leaves that to the encoder; what frame_enhancer adds stays."""
        if scaled > target:
            warnings.append("an output scale above 1 has no effect on frames: frame_enhancer makes them larger")
        width, height = min(target, scaled)
        factor = _FACTOR.search(str(arguments.get("frame_enhancer_model", "")))
        times = int(factor[1]) ** arguments["processors"].count("frame_enhancer") if factor else 1
        return width * times, height * times

    def _sources(
        self, job: Job, folder: str, cancel: CancelToken, takes_sound: bool, warnings: list[str], processors: list[str]
    ) -> list[str]:
        several = len(job.source_paths) > 1
        staged = []
        for number, path in enumerate(job.source_paths, 1):
            what = f"source picture {number}" if several else "source picture"
            staged.append(media.stage_picture(path, what, folder, f"source_{number}")[0])
        if "face_swapper" in processors and not staged:
            raise EngineError("SOURCE_MISSING", "face_swapper needs a source picture.")
        if "lip_syncer" in processors and not job.source_audio_path:
            raise EngineError("SOURCE_MISSING", "lip_syncer needs a source audio.")
        if not job.source_audio_path:
            return staged
        moves_lips, later = "lip_syncer" in processors, self._program.release.speaks
        if takes_sound or (moves_lips and not later):
            staged.append(media.stage_sound(job.source_audio_path, folder, cancel, self._popen))
        elif moves_lips:
            # This release takes a picture with sound for a video to be made.
            raise EngineError("OUTPUT_FORMAT_INVALID", f"lip_syncer makes a video of a picture; it can be: {', '.join(VIDEO_FORMATS)}.")
        if not takes_sound:
            warnings.append("the source audio has no effect on a picture")
        return staged

    def _is_sound(self, path: str) -> bool:
        return bool(self._program.module("filesystem").is_audio(path))

    def _thinks(self, path: str) -> tuple[float, int]:
        """The program's own idea of a video."""
        vision = self._program.module("vision")
        try:
            return float(vision.detect_video_fps(path) or 0), int(vision.count_video_frame_total(path))
        except (TypeError, ValueError, ZeroDivisionError):
            return 0.0, 0

    def _strategy(self, arguments: dict[str, Any], report: Report) -> None:
        if (
            "frame_enhancer" in arguments["processors"]
            and arguments["workflow_strategy"] == "memory"
            and self._program.version in _ENLARGED_IN_MEMORY
        ):
            report.log("Frames go over the disk: this release writes enlarged frames wrongly otherwise.")
            arguments["workflow_strategy"] = "disk"

    def _sound(self, arguments: dict[str, Any], extension: str, wants_audio: bool, warnings: list[str]) -> None:
        if not wants_audio:
            arguments["output_audio_volume"] = 0  # the program would try, fail and say so
            return
        asked = arguments["output_audio_encoder"]
        known = [str(choice) for choice in self._program.actions["output_audio_encoder"].choices or ()]
        fitting = [encoder for encoder in media.AUDIO_ENCODERS[extension] if encoder in known]
        if asked in fitting or not fitting:
            return
        arguments["output_audio_encoder"] = fitting[0]
        if asked is not None:
            warnings.append(f"output_audio_encoder {asked} does not fit {extension}: {fitting[0]} is used")

    def _room(self, size: tuple[int, int], target: tuple[int, int], arguments: Mapping[str, Any], is_video: bool) -> None:
        most = MAX_VIDEO_PIXELS if is_video else MAX_PICTURE_PIXELS
        if size[0] * size[1] > most:
            raise EngineError("OUTPUT_TOO_LARGE", f"The result would have more than {most >> 20} megapixels.")
        factor = _FACTOR.search(str(arguments.get("frame_enhancer_model", "")))
        if factor and "frame_enhancer" in arguments["processors"]:
            most = int(self._program.settings.limits["enhanced_megapixels"])
            if target[0] * target[1] * int(factor[1]) ** 2 > most << 20:
                model = arguments["frame_enhancer_model"]
                raise EngineError("OUTPUT_TOO_LARGE", f"{model} would make more than {most} megapixels of {target[0]}x{target[1]}.")

    def finish(self, job: Job, prepared: Prepared, report: Report) -> Result:
        """Checks what was made, and gives it its place."""
        warnings = prepared.warnings
        if prepared.as_frames:
            rate = Fraction(prepared.arguments["output_audio_fps"]) if prepared.spoken else prepared.rate
            size = prepared.size
            slack = 1 if prepared.spoken else 0  # the encoder rounds the end of the sound
            frames = media.finish_frames(prepared.made, job.output_path, prepared.frames, slack, size, report)
            seconds, lost = float(frames / rate), False
        elif prepared.spoken:
            info = examine(prepared.made, "result", report.cancel)
            if abs(info.frames - prepared.spoken) > 1:
                raise media.not_right(f"it has {info.frames} frames instead of {prepared.spoken}")
            target = Target(
                prepared.target.path, prepared.target.kind, (info.width, info.height), info=info, end=info.frames, rate=info.rate
            )
            frames, seconds, lost = media.finish_video(prepared.made, job.output_path, target, info.rate, target.size, True, report.cancel)
            size = target.size
        elif prepared.target.info is not None:
            size = prepared.size
            frames, seconds, lost = media.finish_video(
                prepared.made, job.output_path, prepared.target, prepared.rate, size, prepared.wants_audio, report.cancel
            )
        else:
            quality = int(prepared.arguments["output_image_quality"])
            size = media.finish_picture(prepared.made, job.output_path, prepared.extension, quality, prepared.size)
            frames, seconds, lost = 1, 0.0, False
        if lost:
            warnings.append("the sound could not be kept: the result is silent")
        media_type = (VIDEO_FORMATS | PICTURE_FORMATS | {archive.EXTENSION: archive.MEDIA_TYPE})[prepared.extension]
        return Result(media_type, size[0], size[1], frames, seconds, tuple(dict.fromkeys(warnings)))

    def _spoken(self, arguments: Mapping[str, Any]) -> int:
        """The frames that the program makes for a source audio, in its own words."""
        path = next(path for path in arguments["source_paths"] if self._is_sound(path))
        begin, end = self._program.module("audio").restrict_trim_audio_frame(
            path, arguments["output_audio_fps"], arguments["trim_frame_start"], arguments["trim_frame_end"]
        )
        if begin >= end:
            raise EngineError("OPTION_INVALID", "The trim leaves nothing of the source audio.")
        return int(end - begin)
