"""One frame through the processors, in the order that the job gave; the same for a picture and for each frame of a video.

Always true here: faces are found before the first processor runs, so what one processor does to a face cannot hide it from the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine import EngineError, Report
from .enhance import UPSCALE, draw_face, enhance_face, upscale
from .faces import Face, FaceFinder, Frame, ordered, similarity
from .pictures import read_picture
from .swap import Look, SourceFace, Swapper, outline_mask
from .tracking import Track
from .vision import cv2

FACE_PROCESSORS = frozenset({"face_swapper", "face_enhancer", "face_debugger"})


def padding_of(values: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, right, bottom, left from one to four numbers, as in CSS (and as FaceFusion reads them)."""
    match [int(value) for value in values][:4]:
        case []:
            return 0, 0, 0, 0
        case [every]:
            return every, every, every, every
        case [vertical, horizontal]:
            return vertical, horizontal, vertical, horizontal
        case [top, horizontal, bottom]:
            return top, horizontal, bottom, horizontal
        case [top, right, bottom, left]:
            return top, right, bottom, left
    raise AssertionError


class FrameProcessor:
    def __init__(self, options: Mapping[str, Any], swapper: Swapper | None) -> None:
        self._options = options
        self._processors: list[str] = list(options["processors"])
        self._swapper = swapper
        self._items = frozenset(options["face_debugger_items"])

    @property
    def wants_faces(self) -> bool:
        return any(name in FACE_PROCESSORS for name in self._processors)

    @property
    def factor(self) -> int:
        """How much larger the frame comes out."""
        return UPSCALE ** self._processors.count("frame_enhancer")

    def process(self, frame: Frame, faces: Sequence[Face]) -> Frame:
        """May write into `frame`; answers the result."""
        for name in self._processors:
            if name == "frame_enhancer":
                frame = upscale(frame, self._options["frame_enhancer_blend"])
                faces = [face.scaled(UPSCALE) for face in faces]
                continue
            for face in faces:
                if name == "face_swapper" and self._swapper is not None:
                    self._swapper.swap(frame, face)
                elif name == "face_enhancer":
                    enhance_face(frame, face, self._options["face_enhancer_blend"])
                elif name == "face_debugger":
                    draw_face(frame, face, self._items)
        return frame


def select(faces: Sequence[Face], options: Mapping[str, Any]) -> list[Face]:
    """The faces of one picture that the job means; raises when it points at one that is not there."""
    faces = ordered(faces, options["face_selector_order"])
    if options["face_selector_mode"] == "many" or not faces:
        return faces
    position = 0 if options["face_selector_mode"] == "one" else options["reference_face_position"]
    if position >= len(faces):
        shown = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        raise EngineError(
            "REFERENCE_FACE_NOT_FOUND", f"reference_face_position is {position}, but the target shows {shown} (counted from 0)."
        )
    return [faces[position]]


def load_source(paths: Sequence[str], finder: FaceFinder, report: Report) -> SourceFace:
    """The best face of all source pictures: of several pictures of one person the clearest makes the best swap; an average makes a blur."""
    found: list[SourceFace] = []
    for number, path in enumerate(paths, 1):
        report.cancel.check()
        name = "source picture" if len(paths) == 1 else f"source picture {number}"
        picture = read_picture(path, name)
        faces = ordered(finder.find(picture.pixels), "large-small")
        if faces:
            found.append(SourceFace.of(picture.pixels, faces[0]))
        elif len(paths) > 1:
            report.log(f"no face in {name}", "WARN")
    if not found:
        raise EngineError(
            "NO_FACE_IN_SOURCE", "No face was found in the source picture." if len(paths) == 1 else "No source picture shows a face."
        )
    return max(found, key=lambda source: source.quality)


def look_of(options: Mapping[str, Any]) -> Look:
    return Look(
        mask_blur=options["face_mask_blur"],
        mask_padding=padding_of(options["face_mask_padding"]),
        weight=options["face_swapper_weight"],
    )


class VideoSelector:
    """Chooses, in every frame, the tracked faces that the job means.

    A reference face is recognised by the looks of its aligned grey square: enough to tell two people of one scene apart, and to find
    one again after a cut. A track is judged once, when it begins, so that a face does not flicker."""

    def __init__(self, options: Mapping[str, Any], reference: tuple[Frame, Face] | None) -> None:
        self._mode: str = options["face_selector_mode"]
        self._order: str = options["face_selector_order"]
        self._distance: float = options["reference_face_distance"]
        self._reference = _signature(*reference) if reference is not None else None
        self._likeness: dict[int, float] = {}

    @property
    def any_face(self) -> bool:
        return self._reference is not None

    def select(self, frame: Frame, tracks: Sequence[Track]) -> list[Face]:
        """`frame` as it was decoded: before a processor has changed it."""
        if self._mode != "reference":
            faces = ordered([track.face for track in tracks], self._order)
            return faces if self._mode == "many" else faces[:1]
        for track in tracks:
            if track.number not in self._likeness and self._reference is not None:
                self._likeness[track.number] = float((_signature(frame, track.face) * self._reference).sum())
        # FaceFusion's distance of two faces: one minus the cosine, halved.
        matching = [track for track in tracks if (1 - self._likeness[track.number]) / 2 < self._distance]
        return [max(matching, key=lambda track: self._likeness[track.number]).face] if matching else []


def _signature(frame: Frame, face: Face) -> NDArray[np.float32]:
    side = 40
    square = cv2.warpAffine(frame, similarity(face.landmarks) * side, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    grey = cv2.GaussianBlur(cv2.cvtColor(square, cv2.COLOR_BGR2GRAY).astype(np.float32), (0, 0), 1.0)
    mask = outline_mask(side)
    grey = (grey - float((grey * mask).sum() / mask.sum())) * mask
    return grey / max(1e-3, float(np.sqrt((grey * grey).sum())))
