"""The swap itself: a source's aligned face laid over a target's, in the target's light.

Always true here: nothing outside the face's mask changes by a single bit; the work is done in the target's own aligned square, whose side
is as many pixels as the face has, so that a small face costs little and a large one keeps its detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
_SIDES = (64, 1024)


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
    """A source's face, aligned once and used for every frame. `chroma` is how colourful its skin is."""

    picture: Frame
    lab_map: Plane
    skin_map: Plane
    chroma: float
    quality: float

    @staticmethod
    def of(frame: Frame, face: Face) -> SourceFace:
        natural = face.eye_distance / float(TEMPLATE[1, 0] - TEMPLATE[0, 0])
        side = int(np.clip(round(natural), 96, _SOURCE_SIDE))
        matrix = fitted(steady(face.landmarks)) * side
        filter_ = cv2.INTER_AREA if natural > 1.6 * side else cv2.INTER_CUBIC
        picture = cv2.warpAffine(frame, matrix, (side, side), flags=filter_, borderMode=cv2.BORDER_REPLICATE)
        lab = _to_lab(cv2.resize(picture, (_MAP, _MAP), interpolation=cv2.INTER_AREA))
        skin = _skin(lab)
        share = skin * outline_mask(_MAP)
        mean = (lab * share[..., None]).sum(axis=(0, 1)) / max(1e-3, float(share.sum()))
        return SourceFace(picture, lab, skin, max(4.0, float(np.hypot(mean[1], mean[2]))), face.score * min(1.0, face.eye_distance / 60.0))


def _to_lab(bgr: Frame) -> Plane:
    """L 0..100, a and b around 0."""
    return cv2.cvtColor(bgr.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)


def _follow(a: Plane, b: Plane, usual: float) -> Plane:
    """How far a pixel goes along when the colour of skin is moved: what has less colour than skin (teeth, pupils, rims) goes less."""
    return np.minimum(1.0, cv2.magnitude(a, b) / usual)


class _Sized(NamedTuple):
    """A source at one side: lightness in 8 bits (0..255), chroma around 128, and how each pixel follows a change of chroma."""

    light: Frame
    a: Plane
    b: Plane
    follow: Plane


class Swapper:
    """Lays one source over targets. Keeps the source at the sizes that were asked for, and nothing of a target."""

    def __init__(self, source: SourceFace, look: Look) -> None:
        self._source = source
        self._sized: dict[int, _Sized] = {}
        self._outline = outline_mask(_MAP, look.mask_padding)
        feather = 0.6 + 9.0 * look.mask_blur
        hard = cv2.erode(self._outline, np.ones((3, 3), np.uint8), iterations=max(0, round(feather * 0.5)), borderValue=0)
        self._soft = _blur(hard, feather * 0.75) * np.minimum(1.0, _blur(self._outline, 1.0) * 1.2)
        self._inner = _blur(np.clip(self._soft * 2.2 - 1.2, 0, 1).astype(np.float32), 2.0)
        # Beside the eyes the target's skin is not asked for: what is not skin there is a pair of glasses, and half of one looks worse.
        self._eyes = _blur(cv2.ellipse(np.zeros((_MAP, _MAP), np.float32), *_EYE_BAND, 0, 0, 360, 1.0, -1), 2.0)
        # Weight 0.5 is the whole source in the target's light; below, the target shows through; above, the source keeps its own tone.
        self._opacity = float(np.interp(look.weight, [0.0, 0.5], [0.6, 1.0]))
        self._tone = float(np.interp(look.weight, [0.5, 1.0], [1.0, 0.6]))

    def _at(self, side: int) -> _Sized:
        sized = self._sized.get(side)
        if sized is None:
            picture, natural = self._source.picture, self._source.picture.shape[0]
            resized = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if side < natural else cv2.INTER_CUBIC)
            if side > natural:
                resized = cv2.addWeighted(resized, 1.5, cv2.GaussianBlur(resized, (0, 0), 0.9 * side / natural), -0.5, 0)
            light, a, b = cv2.split(cv2.cvtColor(resized, cv2.COLOR_BGR2LAB))
            a, b = a.astype(np.float32), b.astype(np.float32)
            sized = _Sized(light, a, b, _follow(a - 128, b - 128, self._source.chroma))
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
        # The target is only asked for its light and its skin, which the small map holds.
        to_map = local * (_MAP / side)
        averaged = cv2.blur(view, (max(1, side // _MAP),) * 2) if side >= 2 * _MAP else view
        target = cv2.warpAffine(averaged, to_map, (_MAP, _MAP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        swapped, mask = self._blend(target, side)
        size = (right - left, bottom - top)
        pasted = cv2.warpAffine(swapped, invert(local), size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.warpAffine(mask, invert(to_map), size, flags=cv2.INTER_LINEAR, borderValue=0)
        view[...] = cv2.blendLinear(pasted, view, alpha, 1 - alpha)

    def _blend(self, target: Frame, side: int) -> tuple[Frame, Plane]:
        """The recoloured source at `side`, and how much of it to show, as a map."""
        source, tone = self._source, self._tone
        target_map = _to_lab(target)
        target_skin = _skin(target_map)
        weight = (target_skin * source.skin_map + 1e-4) * self._outline
        flat = (weight / max(1e-6, float(weight.sum())))[..., None]
        source_mean, target_mean = (source.lab_map * flat).sum(axis=(0, 1)), (target_map * flat).sum(axis=(0, 1))
        # Lightness by a power curve, so that black and white stay where they are.
        gamma = float(np.clip(np.log(target_mean[0] / 100) / np.log(source_mean[0] / 100), 0.5, 2.0)) if 1 < source_mean[0] < 99 else 1.0
        gamma = 1 + (gamma - 1) * tone
        chroma = ((target_mean[1:] - source_mean[1:]) * tone).astype(np.float32)
        # What global statistics leave over is the direction of the light. Only places that are skin on both sides may speak.
        moved = np.empty_like(source.lab_map)
        moved[..., 0] = np.power(np.clip(source.lab_map[..., 0] / 100, 0, 1), gamma) * 100
        follow = _follow(source.lab_map[..., 1].copy(), source.lab_map[..., 2].copy(), source.chroma)
        moved[..., 1:] = source.lab_map[..., 1:] + chroma * follow[..., None]
        sigma = 0.12 * _MAP
        wide = _blur(weight, sigma)
        residue = _blur((target_map - moved) * weight[..., None], sigma) / np.maximum(wide, 1e-4)[..., None]
        trust = np.minimum(1.0, wide / (0.1 * float(wide.max()) + 1e-6))[..., None]
        residue *= trust * np.array([0.8 * 2.55, 0.9, 0.9], np.float32) * tone
        residue[..., 1:] += chroma
        add_light, add_a, add_b = cv2.split(cv2.resize(residue, (side, side), interpolation=cv2.INTER_LINEAR))

        sized = self._at(side)
        levels = np.power(np.arange(256, dtype=np.float32) / 255, gamma) * 255
        room = np.minimum(1.0, levels / 115) * np.clip((255 - levels) / 64, 0, 1)
        light = cv2.add(cv2.LUT(sized.light, levels), cv2.multiply(add_light, cv2.LUT(sized.light, room.astype(np.float32))))
        a = cv2.add(sized.a, cv2.multiply(add_a, sized.follow))
        b = cv2.add(sized.b, cv2.multiply(add_b, sized.follow))
        lab = cv2.convertScaleAbs(cv2.merge([light, a, b]))
        swapped = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)

        # Towards the border the mask gives way to hair and rims: of the target, which stay, and of the source, which must not come along.
        skinlike = _blur(np.maximum(np.minimum(target_skin, source.skin_map), self._eyes), 1.6)
        keep = np.clip(skinlike * 1.8 - 0.15, 0, 1)
        mask = _blur(self._soft * (self._inner + (1 - self._inner) * keep), 1.2)
        return swapped, np.clip(mask, 0, 1) * np.float32(self._opacity)


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
