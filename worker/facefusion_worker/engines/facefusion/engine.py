"""The engine `facefusion`: the real program, in this process, one job after another, with its models warm.

Always true here: a job sees the program as a fresh process would find it, but for the models that are loaded; whatever ends a run, nothing
of it is left; and the content analyser has had its say before anything of a result is shown or named.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence

from ... import archive
from ...engine import Canceled, Capabilities, ContentRefused, EngineError, Job, MediaKind, Report, Result, Step
from ...pictures import PICTURE_FORMATS
from ...video import VIDEO_FORMATS
from ...vision import cv2
from ...weights import Weights
from . import media
from .hooks import Hooks, Run, is_out_of_memory
from .job import Jobs, Prepared
from .models import Models
from .program import Program
from .settings import Settings

REFUSED = "FaceFusion's content analyser refused the target."
# What `conditional_process` answers.
_DONE, _FAILED, _NOT_FIT, _REFUSED, _STOPPED = range(5)

_log = logging.getLogger(__name__)


class Facefusion:
    name = "facefusion"

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings.read(os.environ)
        self._settings = settings
        self._program = Program(settings)
        self.version = self._program.version
        self._models = Models(self._program)
        self._hooks = Hooks(self._program, self._models)
        self._jobs = Jobs(self._program)
        self._weights = Weights(settings.weights_path)
        self._warmed = False
        # The program's own sentences that have an outcome of their own.
        self._sentences = {
            self._program.say("no_source_face_detected"): ("NO_FACE_IN_SOURCE", "No face was found in the source pictures."),
            self._program.say("choose_image_source"): ("SOURCE_MISSING", "There is no source picture."),
            self._program.say("choose_audio_source"): ("SOURCE_MISSING", "There is no source audio."),
        }

    def model_digest(self) -> str:
        return self._models.digest()

    def capabilities(self) -> Capabilities:
        pictures, videos = list(PICTURE_FORMATS), list(VIDEO_FORMATS)
        if self._program.release.writes_frames:
            videos.append(archive.EXTENSION)
        if self._program.release.speaks:
            pictures += videos  # a picture that speaks
        return Capabilities(self._jobs.options.processors, self._jobs.options.options, pictures, videos)

    def warm(self) -> Sequence[str]:
        if not self._warmed:
            self._warmed = True
            self._load_defaults()
            # What is there now stays: looking for garbage after each run then costs a millisecond, and not a tenth of a second.
            gc.collect()
            gc.freeze()
        return self._models.warm_names()

    def _load_defaults(self) -> None:
        """What a job without parameters needs, where it is there."""
        arguments = self._jobs.options.resolve({})
        paths = self._models.needed_paths(arguments)
        try:
            self._models.require(paths)
        except EngineError as error:
            _log.warning("%s", error.message)
            return
        self._models.begin(paths)
        self._program.apply(arguments)
        try:
            self._program.load_models(arguments)
        except EngineError as error:
            _log.warning("%s", error.message)
        finally:
            self._program.reset()

    def cancel(self) -> None:
        self._hooks.interrupt()

    def run(self, job: Job, report: Report) -> Result:
        run = Run(report, 1)
        ended_well = False
        if not job.work_dir:
            raise EngineError("INTERNAL", "The job has no work folder.")
        # A folder of its own within the service's: what is removed at the end is what was put there, and no more.
        folder = tempfile.mkdtemp(prefix="run-", dir=job.work_dir)
        try:
            with self._hooks.serving(run):
                staged = job._replace(work_dir=folder)
                result = self._run(staged, self._jobs.prepare(staged, report), report, run)
                ended_well = True
                return result
        except Exception as error:
            raise self._ended(job, report, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not ended_well and os.path.isfile(job.output_path):
                os.unlink(job.output_path)
            self._models.end()
            gc.collect()

    def _run(self, job: Job, prepared: Prepared, report: Report, run: Run) -> Result:
        kind = prepared.kind(self.version)
        report.plan(*self._weights.predict(kind, prepared.steps()))
        run.frames = prepared.frames
        run.enter(Step.STEP_LOADING_MODELS)
        paths = self._models.needed_paths(prepared.arguments)
        self._models.require(paths)
        if job.low_memory:
            self._models.forget_all()
        self._models.begin(paths)
        self._jobs.make_fit(prepared, report)
        run.frames = prepared.frames
        target = prepared.target
        run.range = (target.begin, target.end) if target.info else None
        run.after_analysis = lambda: self._unsampled(prepared)
        code = self._process(prepared, run)
        if code == _REFUSED:
            raise ContentRefused(REFUSED)
        if code != _DONE:
            raise self._failure(prepared, run, code)
        self._check_faces(prepared, run)
        prepared.warnings += run.warnings
        result = self._finish(job, prepared, report)
        run.leave()
        self._weights.learn(kind, prepared.frames, run.step_seconds, run.step_shapes)
        return result

    def _process(self, prepared: Prepared, run: Run) -> int:
        core = self._program.module("core")
        self._program.apply(prepared.arguments)
        run.check()
        if not core.common_pre_check():
            raise EngineError("ENGINE_BROKEN", "FaceFusion's content analyser is not the released one.")
        if not core.processors_pre_check():
            self._models.complain(prepared.arguments)
            raise EngineError("MODEL_DAMAGED", f"FaceFusion does not accept its models: {_last(run.errors)}.")
        if prepared.arguments["video_memory_strategy"] != "strict":
            self._program.load_models(prepared.arguments)
        return int(core.conditional_process())

    def _unsampled(self, prepared: Prepared) -> bool:
        """The analyser looks at one frame a second: of a range with none of those it looks at three, by its own judgement."""
        target = prepared.target
        if target.info is None or media.has_sample(target):
            return False
        analyser, vision = self._program.module("content_analyser"), self._program.module("vision")
        numbers = sorted({target.begin, (target.begin + target.end) // 2, target.end - 1})
        frames = [frame for number in numbers if (frame := vision.read_video_frame(target.path, number)) is not None]
        if not frames:
            raise EngineError("INPUT_NOT_READABLE", "The target video is damaged: no frame of the trim can be decoded.")
        return any(analyser.analyse_frame(frame) for frame in frames)

    def _check_faces(self, prepared: Prepared, run: Run) -> None:
        if run.faces_found or not run.faces_asked:
            return
        what = "any frame of the target video" if prepared.target.info else "the target picture"
        if "face_swapper" in prepared.arguments["processors"]:
            raise EngineError("NO_FACE_IN_TARGET", f"No face that was asked for was found in {what}.")
        prepared.warnings.append(f"no face that was asked for was found in {what}")

    def _finish(self, job: Job, prepared: Prepared, report: Report) -> Result:
        try:
            return self._jobs.finish(job, prepared, report)
        except EngineError as error:
            if error.reason == "RESULT_INVALID" and media.is_full(job.work_dir):
                raise media.no_space() from None
            if error.reason == "RESULT_INVALID" and job.target_kind == MediaKind.MEDIA_KIND_VIDEO:
                lost = media.damaged_frames(job.target_path, report.cancel)
                if lost > 0:
                    raise EngineError(
                        "INPUT_NOT_READABLE", f"The target video is damaged: {lost} of its frames cannot be decoded."
                    ) from None
            raise

    def _failure(self, prepared: Prepared, run: Run, code: int) -> EngineError:
        for error in run.errors:
            for sentence, (reason, message) in self._sentences.items():
                if sentence in error:
                    return EngineError(reason, message)
        if code == _NOT_FIT:
            return EngineError("ENGINE_REFUSED", f"FaceFusion does not take this job: {_last(run.errors)}.")
        if media.is_full(prepared.arguments["temp_path"]):
            return media.no_space()
        said = run.said()
        if code == _STOPPED:
            return EngineError(
                "ENCODER_FAILED", f"The video encoder {prepared.arguments['output_video_encoder']} gave up{': ' + said if said else '.'}"
            )
        return EngineError("ENGINE_FAILED", f"FaceFusion failed: {_last(run.errors)}{' (' + said + ')' if said else ''}.", retryable=True)

    def _ended(self, job: Job, report: Report, error: Exception) -> BaseException:
        """What a run's end means, whatever the program made of it on the way."""
        if report.cancel.is_set:
            return Canceled()
        if isinstance(error, EngineError):
            if error.reason == "GPU_OUT_OF_MEMORY":
                self._models.forget_all()
            return error
        if isinstance(error, ContentRefused | MemoryError):
            return error
        if media.is_full(job.work_dir):
            return media.no_space()
        if is_out_of_memory(error):
            self._models.forget_all()
            return EngineError("GPU_OUT_OF_MEMORY", "The models ran out of memory.", retryable=True)
        if (
            isinstance(error, cv2.error | TypeError | AttributeError | ValueError | IndexError)
            and job.target_kind == MediaKind.MEDIA_KIND_VIDEO
        ):
            # The program runs into these where a frame that should be there is not.
            try:
                lost = media.damaged_frames(job.target_path, report.cancel)
            except EngineError as damage:
                return damage
            if lost > 0:
                return EngineError("INPUT_NOT_READABLE", f"The target video is damaged: {lost} of its frames cannot be decoded.")
        if isinstance(error, BrokenPipeError):
            return EngineError("ENCODER_FAILED", "The video encoder gave up before the end.")
        return error


def _last(errors: Sequence[str]) -> str:
    return errors[-1].rstrip(".!") if errors else "it does not say why"
