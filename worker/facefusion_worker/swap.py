"""The swap itself: a source's aligned face laid over a target's, in the target's light.

Always true here: nothing outside the face's mask changes by a single bit; the work is done in the target's own aligned square, whose side
is as many pixels as the face has, so that a small face costs little and a large one keeps its detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import TEMPLATE, Face, Frame, Points, apply, fitted, invert
from .vision import cv2

Plane = NDArray[np.float32]

# Outline of the face in the aligned square: above the brows, inside the ears, around the chin; right half, mirrored.
_OUTLINE_RIGHT = np.array(
    [
        [0.50, 0.255],
        [0.60, 0.262],
        [0.69, 0.295],
        [0.775, 0.34],
        [0.81, 0.41],
        [0.785, 0.55],
        [0.735, 0.67],
        [0.68, 0.78],
        [0.60, 0.865],
        [0.50, 0.90],
    ],
    np.float32,
)
_MAP = 96  # side of the square in which light and masks are worked out; they are smooth
_EYE_BAND = ((_MAP // 2, round(0.42 * _MAP)), (round(0.31 * _MAP), round(0.13 * _MAP)))
_SOURCE_SIDE = 640
_SIDES = (64, 768)


@dataclass(frozen=True)
class Look:
    """How the swap is made; the fields' names and ranges are FaceFusion's."""

    mask_blur: float = 0.3
    mask_padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    weight: float = 0.5


def steady(landmarks: Points) -> Points:
    """The landmarks with the mouth held to what a face can have: at most 14 % away from where the eyes put it."""
    eyes = landmarks[:2]
    across = eyes[1] - eyes[0]
    distance = float(np.hypot(*across))
    down = np.array([-across[1], across[0]], np.float32) / max(distance, 1e-3)
    plain = eyes.mean(axis=0) + down * distance * (TEMPLATE[2, 1] - TEMPLATE[0, 1]) / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
    away = landmarks[2] - plain
    length = float(np.hypot(*away))
    limit = 0.14 * distance
    if length <= limit:
        return landmarks
    return np.vstack([eyes, plain + away * (limit / length)]).astype(np.float32)


def face_side(face: Face) -> int:
    """Side of the aligned square in the target's own pixels."""
    side = face.eye_distance / float(TEMPLATE[1, 0] - TEMPLATE[0, 0])
    return int(np.clip(round(side / 8) * 8, *_SIDES))


def outline_mask(side: int, padding: Sequence[int] = (0, 0, 0, 0)) -> Plane:
    """The face's outline filled; `padding` cuts away percents of the square at top, right, bottom, left, as FaceFusion's box mask does."""
    left = _OUTLINE_RIGHT[::-1] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    polygon = np.vstack([_OUTLINE_RIGHT, left])
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * side * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    top, right, bottom, left_cut = (int(side * value / 100) for value in padding)
    mask[:top] = 0
    mask[side - bottom :] = 0
    mask[:, :left_cut] = 0
    mask[:, side - right :] = 0
    return mask.astype(np.float32) / 255


def _blur(plane: Plane, sigma: float) -> Plane:
    return cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)


def _skin(lab: Plane) -> Plane:
    """How much each pixel of an aligned face looks like the skin of its own cheeks and nose; hair, rims and background do not."""
    side = lab.shape[0]
    core = np.concatenate(
        [
            lab[int(0.5 * side) : int(0.66 * side), int(0.3 * side) : int(0.42 * side)].reshape(-1, 3),
            lab[int(0.5 * side) : int(0.66 * side), int(0.58 * side) : int(0.7 * side)].reshape(-1, 3),
            lab[int(0.45 * side) : int(0.6 * side), int(0.46 * side) : int(0.54 * side)].reshape(-1, 3),
        ]
    )
    middle = np.median(core, axis=0)
    spread = np.maximum(1.5 * np.median(np.abs(core - middle), axis=0), (11.0, 4.5, 5.0)).astype(np.float32)
    away = (lab - middle.astype(np.float32)) / spread
    # Shade is no sign of another material until it is deep: lightness counts for less than colour.
    distance = (away[..., 0] * 0.45) ** 2 + away[..., 1] ** 2 * 0.6 + away[..., 2] ** 2 * 0.6
    return np.exp(-0.5 * np.maximum(0.0, distance - 1.5)).astype(np.float32)


@dataclass(frozen=True)
class SourceFace:
    """A source's face, aligned once and used for every frame."""

    picture: Frame
    lab_map: Plane
    skin_map: Plane
    quality: float

    @staticmethod
    def of(frame: Frame, face: Face) -> SourceFace:
        side = int(np.clip(round(face.eye_distance / float(TEMPLATE[1, 0] - TEMPLATE[0, 0])), 96, _SOURCE_SIDE))
        matrix = fitted(steady(face.landmarks)) * side
        picture = cv2.warpAffine(frame, matrix, (side, side), flags=_warp_filter(face, side), borderMode=cv2.BORDER_REPLICATE)
        small = cv2.resize(picture, (_MAP, _MAP), interpolation=cv2.INTER_AREA)
        lab = _to_lab(small)
        return SourceFace(picture, lab, _skin(lab), face.score * min(1.0, face.eye_distance / 60.0))


def _warp_filter(face: Face, side: int) -> int:
    natural = face.eye_distance / float(TEMPLATE[1, 0] - TEMPLATE[0, 0])
    return cv2.INTER_AREA if natural > 1.6 * side else cv2.INTER_CUBIC


def _to_lab(bgr: Frame) -> Plane:
    return cv2.cvtColor(bgr.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)


def _to_bgr(lab: Plane) -> Plane:
    return cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255


def _moved(lab: Plane, gamma: float, chroma: NDArray, usual: float) -> Plane:
    """Lightness by a power curve, so that black and white stay where they are; chroma by a shift, which what has less colour than skin
    (teeth, pupils, rims) follows less. `usual` is the skin's own chroma."""
    moved = np.empty_like(lab)
    moved[..., 0] = np.power(np.clip(lab[..., 0] / 100, 0, 1), gamma) * 100
    moved[..., 1:] = lab[..., 1:] + chroma * _follow(lab, usual)[..., None]
    return moved


def _follow(lab: Plane, usual: float) -> Plane:
    return np.minimum(1.0, cv2.magnitude(lab[..., 1], lab[..., 2]) / max(usual, 4.0))


class Swapper:
    """Lays one source over targets. Keeps the source at the sizes that were asked for, and nothing of a target."""

    def __init__(self, source: SourceFace, look: Look) -> None:
        self._source = source
        self._look = look
        self._sized: dict[int, Plane] = {}
        self._outline = outline_mask(_MAP, look.mask_padding)
        feather = 0.6 + 9.0 * look.mask_blur
        hard = cv2.erode(self._outline, np.ones((3, 3), np.uint8), iterations=max(0, round(feather * 0.5)), borderValue=0)
        self._soft = _blur(hard, feather * 0.75) * np.minimum(1.0, _blur(self._outline, 1.0) * 1.2)
        # Beside the eyes the target's skin is not asked for: what is not skin there is a pair of glasses, and half of one looks worse.
        self._eyes = _blur(cv2.ellipse(np.zeros((_MAP, _MAP), np.float32), *_EYE_BAND, 0, 0, 360, 1.0, -1), 2.0)
        # Weight 0.5 is the whole source in the target's light; below, the target shows through; above, the source keeps its own tone.
        self._opacity = float(np.interp(look.weight, [0.0, 0.5], [0.6, 1.0]))
        self._tone = float(np.interp(look.weight, [0.5, 1.0], [1.0, 0.6]))

    def _at(self, side: int) -> Plane:
        """The source's picture in Lab at this side."""
        sized = self._sized.get(side)
        if sized is None:
            picture, natural = self._source.picture, self._source.picture.shape[0]
            resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if side < natural else cv2.INTER_CUBIC)
            if side > natural:
                resized = cv2.addWeighted(resized, 1.5, cv2.GaussianBlur(resized, (0, 0), 0.9 * side / natural), -0.5, 0)
            sized = _to_lab(resized)
            if len(self._sized) > 24:
                self._sized.clear()
            self._sized[side] = sized
        return sized

    def swap(self, frame: Frame, face: Face) -> None:
        """Puts the source over one face of the frame, in place."""
        side = face_side(face)
        matrix = fitted(steady(face.landmarks)) * side
        region = region_of(frame, invert(matrix), side)
        if region is None:
            return
        left, top, right, bottom = region
        view = frame[top:bottom, left:right]
        local = matrix.copy()
        local[:, 2] += matrix[:, :2] @ (left, top)
        target = cv2.warpAffine(view, local, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        swapped, mask = self._blend(target, side)
        size = (right - left, bottom - top)
        back = invert(local)
        pasted = cv2.warpAffine(swapped, back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(mask, back, size, flags=cv2.INTER_LINEAR, borderValue=0)[..., None]
        mixed = view + (pasted - view) * alpha
        view[...] = np.where(alpha > 0.002, np.clip(mixed + 0.5, 0, 255), view).astype(np.uint8)

    def _blend(self, target: Frame, side: int) -> tuple[Plane, Plane]:
        """The recoloured source, and how much of it to show."""
        source = self._source
        target_map = _to_lab(cv2.resize(target, (_MAP, _MAP), interpolation=cv2.INTER_AREA))
        target_skin = _skin(target_map)
        skin = target_skin * source.skin_map * self._outline
        weight = skin + 1e-4 * self._outline
        total = float(weight.sum())
        if total < 1e-3:
            return _to_bgr(self._at(side)), np.zeros((side, side), np.float32)
        flat = weight[..., None] / total
        source_mean, target_mean = (source.lab_map * flat).sum(axis=(0, 1)), (target_map * flat).sum(axis=(0, 1))
        tone = self._tone
        gamma = float(np.clip(np.log(target_mean[0] / 100) / np.log(source_mean[0] / 100), 0.5, 2.0)) if 1 < source_mean[0] < 99 else 1.0
        gamma = 1 + (gamma - 1) * tone
        chroma = (target_mean[1:] - source_mean[1:]) * tone
        usual = float(np.hypot(source_mean[1], source_mean[2]))
        moved_map = _moved(source.lab_map, gamma, chroma, usual)
        # What global statistics leave over: the direction of the light. Only places that are skin on both sides may speak.
        wide = _blur(weight, 0.12 * _MAP)[..., None]
        residue = _blur((target_map - moved_map) * weight[..., None], 0.12 * _MAP) / np.maximum(wide, 1e-4)
        residue *= np.array([0.8, 0.9, 0.9], np.float32) * tone * np.minimum(1.0, wide / (0.1 * float(wide.max()) + 1e-6))
        picture = self._at(side)
        swapped = _moved(picture, gamma, chroma, usual)
        light = cv2.resize(residue.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
        swapped[..., 0] += light[..., 0] * np.minimum(1.0, swapped[..., 0] / 45.0) * np.clip((100 - swapped[..., 0]) / 25.0, 0, 1)
        swapped[..., 1:] += light[..., 1:] * _follow(picture, usual)[..., None]
        swapped = _to_bgr(swapped)

        # Towards the border the mask gives way to hair and rims: of the target, which stay, and of the source, which must not come along.
        inner = _blur(np.clip(self._soft * 2.2 - 1.2, 0, 1), 2.0)
        skinlike = _blur(np.maximum(np.minimum(target_skin, source.skin_map), self._eyes), 1.6)
        keep = np.clip(skinlike * 1.8 - 0.15, 0, 1)
        mask = self._soft * (inner + (1 - inner) * keep)
        mask_full = cv2.resize(_blur(mask, 1.2), (side, side), interpolation=cv2.INTER_LINEAR)
        return swapped, np.clip(mask_full, 0, 1) * self._opacity


def region_of(frame: Frame, back: NDArray, side: int) -> tuple[int, int, int, int] | None:
    """The part of the frame that the mask can touch: left, top, right, bottom."""
    height, width = frame.shape[:2]
    low, high = 0.15 * side, 0.97 * side
    corners = apply(back, np.array([[low, low], [high, low], [high, high], [low, high]], np.float32))
    left, top = np.floor(corners.min(axis=0)).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
    left, top, right, bottom = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if right - left < 4 or bottom - top < 4:
        return None
    return int(left), int(top), int(right), int(bottom)
