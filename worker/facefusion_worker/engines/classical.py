"""The engine that needs no model file: OpenCV and PyAV do a real, plain face swap, enhancement and upscale.

Always true here: a run reads only the paths of its job, writes only beside its output path, and leaves nothing half written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import __version__
from ..engine import Capabilities, EngineError, Job, MediaKind, Report, Result, Step
from ..faces import FaceFinder
from ..options import IGNORED_OPTIONS, OPTIONS, PROCESSORS, resolve
from ..pictures import PICTURE_FORMATS, Picture, jpeg_preview, read_picture, write_picture
from ..processing import FrameProcessor, load_source, look_of, select
from ..swap import Swapper
from ..vision import MAX_PICTURE_PIXELS, cv2

VIDEO_FORMATS = {"mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime"}


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
        swapper = None
        if "face_swapper" in options["processors"]:
            if not job.source_paths:
                raise EngineError("SOURCE_MISSING", "face_swapper needs a source picture.")
            swapper = Swapper(load_source(job.source_paths, self._finder, report), look_of(options))
        processor = FrameProcessor(options, swapper)
        if job.target_kind == MediaKind.MEDIA_KIND_IMAGE:
            return self._picture(job, report, options, processor)
        raise EngineError("INPUT_WRONG_KIND", "The job does not say whether its target is a picture or a video.")

    def _picture(self, job: Job, report: Report, options: Mapping[str, Any], processor: FrameProcessor) -> Result:
        extension = "jpg" if job.output_format == "jpeg" else job.output_format
        if extension not in PICTURE_FORMATS:
            raise EngineError("OUTPUT_FORMAT_UNSUPPORTED", f"A picture cannot be written as {job.output_format or 'nothing'}.")
        report.plan({Step.STEP_ANALYSING: 0.5, Step.STEP_PROCESSING: 0.3, Step.STEP_ENCODING_OUTPUT: 0.2})
        report.enter(Step.STEP_ANALYSING, 1)
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
