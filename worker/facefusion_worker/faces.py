"""Finding faces without a model file: OpenCV's Haar cascades, and landmarks of three points (both eyes and the mouth).

Always true here: coordinates are pixels of the picture that was handed in, whatever size the search ran at; the "left" eye is the one on
the picture's left; a face is only answered when its eyes, its skin and the agreement of several cascades together say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .vision import cv2

Frame = NDArray[np.uint8]
Points = NDArray[np.float32]

# Where the landmarks lie in the aligned square, as fractions of its side. The square shows the face from hairline to below the chin.
TEMPLATE: Points = np.array([[0.345, 0.40], [0.655, 0.40], [0.5, 0.735]], np.float32)

# The long side of the search. A face smaller than a twelfth of it is not worth a swap by these means.
SEARCH_SIDE_PICTURE = 960
SEARCH_SIDE_VIDEO = 448

_EYE_PRIOR = np.array([[0.31, 0.38], [0.69, 0.38]], np.float32)
_MOUTH_PRIOR = np.array([0.5, 0.78], np.float32)
_CROP = 160


@dataclass(frozen=True)
class Face:
    """`landmarks`: left eye, right eye, mouth; `score`: 0..1, how sure the finder is."""

    landmarks: Points
    score: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the aligned face region (upright hull of the rotated square's inner part)."""
        inner = np.array([[0.12, 0.12], [0.88, 0.12], [0.88, 0.98], [0.12, 0.98]], np.float32)
        corners = apply(invert(similarity(self.landmarks)), inner)
        low, high = corners.min(axis=0), corners.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def eye_distance(self) -> float:
        return float(np.hypot(*(self.landmarks[1] - self.landmarks[0])))

    @property
    def area(self) -> float:
        return self.eye_distance**2

    def scaled(self, factor: float) -> Face:
        return replace(self, landmarks=(self.landmarks * np.float32(factor)).astype(np.float32))


def apply(matrix: NDArray, points: Points) -> Points:
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def invert(matrix: NDArray) -> NDArray:
    return cv2.invertAffineTransform(matrix)


def compose(outer: NDArray, inner: NDArray) -> NDArray:
    """The affine map that does `inner` first."""
    square = np.vstack([inner, [0.0, 0.0, 1.0]])
    return outer @ square


def similarity(landmarks: Points) -> NDArray:
    """Least-squares similarity from the landmarks to the unit template."""
    source, target = landmarks.astype(np.float64), TEMPLATE.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    norm = (a * a).sum()
    cos, sin = (a * b).sum() / norm, (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / norm
    rotation = np.array([[cos, -sin], [sin, cos]])
    return np.hstack([rotation, (target_mean - rotation @ source_mean)[:, None]])


def fitted(landmarks: Points) -> NDArray:
    """Affine map from the landmarks exactly onto the unit template, so that eyes and mouth of any face come to lie on each other."""
    return cv2.getAffineTransform(landmarks.astype(np.float32), TEMPLATE).astype(np.float64)


def skin_share(patch: Frame) -> float:
    """Share of pixels whose chroma could be skin of any tone under ordinary light; 1 for a picture without colour."""
    chroma = cv2.cvtColor(patch, cv2.COLOR_BGR2YCrCb)
    red, blue = chroma[..., 1].astype(np.int16), chroma[..., 2].astype(np.int16)
    if np.abs(red - 128).mean() < 2.5 and np.abs(blue - 128).mean() < 2.5:
        return 1.0
    return float(((red > 130) & (red < 185) & (blue > 70) & (blue < 132)).mean())


class FaceFinder:
    """Owns the cascades. Not for two threads at once: a cascade keeps state while it runs."""

    def __init__(self) -> None:
        def cascade(name: str) -> cv2.CascadeClassifier:
            return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml")

        self._faces = [cascade("frontalface_alt2"), cascade("frontalface_default")]
        self._eyes = [cascade("eye_tree_eyeglasses"), cascade("eye"), cascade("lefteye_2splits"), cascade("righteye_2splits")]
        self._mouth = cascade("smile")
        self._equalise = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8))

    def find(self, frame: Frame, side: int = SEARCH_SIDE_PICTURE, thorough: bool = True) -> list[Face]:
        """All frontal faces, best first. `thorough` also tries a tilted head when an upright search finds nothing."""
        faces = self._find_upright(frame, side, thorough)
        if faces or not thorough:
            return faces
        for angle in (-30, 30):
            height, width = frame.shape[:2]
            turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
            turned = cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
            faces = self._find_upright(turned, side, thorough)
            if faces:
                back = invert(turn)
                return [replace(face, landmarks=apply(back, face.landmarks)) for face in faces]
        return []

    def find_close_up(self, frame: Frame) -> list[Face]:
        """Faces in a cut-out that one face is known to fill by a third to two thirds; best first."""
        scale = min(1.0, 160 / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1.0 else frame
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        least, most = int(0.3 * min(grey.shape)), max(grey.shape)
        boxes: list[tuple[NDArray, float]] = []
        for cascade in self._faces:
            boxes = [(box, 2.0) for box in cascade.detectMultiScale(grey, 1.1, 3, minSize=(least, least), maxSize=(most, most))]
            if boxes:
                break
        groups = self._grouped(boxes)
        found = [face for box, votes in groups if (face := self._examine(frame, box / scale, votes)) is not None]
        return sorted(found, key=lambda face: face.score, reverse=True)

    def _find_upright(self, frame: Frame, side: int, thorough: bool) -> list[Face]:
        height, width = frame.shape[:2]
        scale = min(1.0, side / max(height, width))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1.0 else frame
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        least = max(24, max(grey.shape) // 14)
        if min(grey.shape) < least:
            return []
        candidates = self._candidates(grey, least, thorough)
        faces = [face for box, votes in candidates if (face := self._examine(frame, box / scale, votes)) is not None]
        faces.sort(key=lambda face: face.score, reverse=True)
        kept: list[Face] = []
        for face in faces:
            middle = face.landmarks.mean(axis=0)
            if all(np.hypot(*(middle - other.landmarks.mean(axis=0))) > 0.9 * max(face.eye_distance, other.eye_distance) for other in kept):
                kept.append(face)
        return kept

    def _candidates(self, grey: Frame, least: int, thorough: bool) -> list[tuple[NDArray, float]]:
        """Boxes with the number of votes behind each. A search on equalised grey sees faces in the shade, where the others saw none."""
        boxes: list[tuple[NDArray, float]] = []
        for cascade in self._faces if thorough else self._faces[:1]:
            found = cascade.detectMultiScale(grey, 1.1 if thorough else 1.15, 3, minSize=(least, least))
            boxes += [(box, 1.0) for box in found]
        if not boxes:
            found = self._faces[0].detectMultiScale(self._equalise.apply(grey), 1.1, 3, minSize=(least, least))
            boxes += [(box, 1.0) for box in found]
        return self._grouped(boxes)

    @staticmethod
    def _grouped(boxes: Iterable[tuple[NDArray, float]]) -> list[tuple[NDArray, float]]:
        """Boxes of the same face merged, their votes added up."""
        groups: list[tuple[NDArray, float]] = []
        for found, vote in boxes:
            box = np.asarray(found, np.float32)
            for index, (other, votes) in enumerate(groups):
                if _overlap(box, other) > 0.4:
                    groups[index] = ((other * votes + box) / (votes + 1), votes + vote)
                    break
            else:
                groups.append((box, vote))
        return groups

    def _examine(self, frame: Frame, box: NDArray, votes: float) -> Face | None:
        """Landmarks inside one candidate, or None if it is no face."""
        x, y, width, height = (float(value) for value in box)
        to_crop = np.array([[_CROP / width, 0, -x * _CROP / width], [0, _CROP / height, -y * _CROP / height]])
        shrink = width > 2 * _CROP
        crop = cv2.warpAffine(
            frame, to_crop, (_CROP, _CROP), flags=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
        eyes, certainty = self._find_eyes(grey)
        if eyes is None:
            return None
        middle = crop[int(0.25 * _CROP) : int(0.9 * _CROP), int(0.2 * _CROP) : int(0.8 * _CROP)]
        skin = skin_share(middle)
        if skin < 0.25 or (votes < 2 and certainty < 0.5) or grey.std() < 12:
            return None
        mouth = self._find_mouth(grey, eyes)
        landmarks = apply(invert(to_crop), np.vstack([eyes, mouth]).astype(np.float32))
        return Face(landmarks, float(min(1.0, 0.15 * votes + 0.4 * certainty + 0.3 * min(1.0, skin / 0.6))))

    def _find_eyes(self, grey: Frame) -> tuple[Points | None, float]:
        """Both eyes in an aligned crop: the cascades' hits, weighted by how near they lie to where eyes are. The certainty is 1 with both
        eyes seen by several cascades, 0.5 with one eye; None with a geometry that no face has."""
        top, bottom = int(0.14 * _CROP), int(0.62 * _CROP)
        strip = self._equalise.apply(grey[top:bottom])
        least, most = _CROP // 8, _CROP // 3
        sums, weights, seen = np.zeros((2, 2)), np.zeros(2), np.zeros(2)
        for index, cascade in enumerate(self._eyes):
            hits = cascade.detectMultiScale(strip, 1.1, 3, minSize=(least, least), maxSize=(most, most))
            best: list[tuple[float, NDArray] | None] = [None, None]
            for x, y, width, height in hits:
                middle = np.array([x + width / 2, y + height / 2 + top]) / _CROP
                which = int(middle[0] > 0.5)
                away = np.hypot(*((middle - _EYE_PRIOR[which]) * (1.0, 1.4)))
                trust = float(np.exp(-((away / 0.12) ** 2))) * (1.0 if index < 2 else 0.5)
                if trust > 0.05 and (best[which] is None or trust > best[which][0]):  # type: ignore[index]
                    best[which] = (trust, middle)
            for which, hit in enumerate(best):
                if hit is not None:
                    sums[which] += hit[0] * hit[1]
                    weights[which] += hit[0]
                    seen[which] += 1
            if index == 1 and seen.min() == 2:
                break  # two cascades agree on both eyes: the other two would not say more
        found = weights > 0
        if not found.any():
            return None, 0.0
        eyes = np.where(found[:, None], sums / np.maximum(weights, 1e-6)[:, None], 0)
        if not found.all():  # the other eye mirrors the one that was seen
            here = int(found.argmax())
            eyes[1 - here] = (1.0 - eyes[here][0], eyes[here][1])
        distance = float(np.hypot(*(eyes[1] - eyes[0]))) * _CROP
        eyes = np.array([_find_pupil(grey, eye * _CROP, distance) for eye in eyes]) / _CROP
        across = eyes[1] - eyes[0]
        if not 0.22 < across[0] < 0.62 or abs(across[1]) > 0.5 * across[0]:
            return None, 0.0
        certainty = float(found.sum() / 2 * min(1.0, seen.sum() / 4))
        return (eyes * _CROP).astype(np.float32), certainty

    def _find_mouth(self, grey: Frame, eyes: Points) -> Points:
        """Middle of the mouth in the crop. Where the cascade is silent, it lies where the eyes' distance puts it."""
        across = eyes[1] - eyes[0]
        distance = float(np.hypot(*across))
        down = np.array([-across[1], across[0]]) / distance
        expected = eyes.mean(axis=0) + down * distance * 1.08
        top = int(np.clip(expected[1] - 0.22 * _CROP, 0, _CROP - 40))
        strip = grey[top:]
        hits = self._mouth.detectMultiScale(strip, 1.15, 3, minSize=(_CROP // 4, _CROP // 8))
        total, weight = expected * 0.5, 0.5
        for x, y, width, height in hits:
            middle = np.array([x + width / 2, y + height / 2 + top])
            away = np.hypot(*(middle - expected)) / distance
            if away < 0.4:
                trust = float(np.exp(-((away / 0.2) ** 2))) * width / _CROP * 2
                total, weight = total + trust * middle, weight + trust
        return (total / weight).astype(np.float32)


def _find_pupil(grey: Frame, guess: NDArray, distance: float) -> NDArray:
    """The pupil near a guess: the dark point that the gradients around it point away from (Timm and Barth, VISAPP 2011), held near the
    guess by a soft prior. Lids, brows and the rims of glasses have gradients that do not agree on one middle."""
    reach = int(np.clip(0.2 * distance, 6, 24))
    x, y = round(float(guess[0])), round(float(guess[1]))
    left, top = x - reach, y - reach
    if left < 1 or top < 1 or x + reach + 2 > grey.shape[1] or y + reach + 2 > grey.shape[0]:
        return guess
    patch = cv2.GaussianBlur(grey[top - 1 : y + reach + 2, left - 1 : x + reach + 2], (0, 0), 1.2).astype(np.float32)
    across = (patch[1:-1, 2:] - patch[1:-1, :-2]) / 2
    down = (patch[2:, 1:-1] - patch[:-2, 1:-1]) / 2
    patch = patch[1:-1, 1:-1]
    strength = np.hypot(across, down)
    rows, columns = np.nonzero(strength > strength.mean() + 0.3 * strength.std())
    if rows.size < 12:
        return guess
    unit = np.stack([across[rows, columns], down[rows, columns]]) / strength[rows, columns]
    grid = np.arange(patch.shape[0], dtype=np.float32)
    dx = columns[None, None, :].astype(np.float32) - grid[None, :, None]
    dy = rows[None, None, :].astype(np.float32) - grid[:, None, None]
    length = np.hypot(dx, dy)
    near = (length > 1.5) & (length < 0.14 * distance)  # an iris has a radius of about a twelfth of the eyes' distance
    agreement = np.maximum(0.0, (dx * unit[0] + dy * unit[1]) / np.maximum(length, 1e-3)) ** 2 * near
    votes = agreement.sum(axis=2) * (255.0 - patch)
    away = (grid[None, :] - reach) ** 2 + (grid[:, None] - reach) ** 2
    votes *= np.exp(-away / (2 * (0.5 * reach) ** 2))
    peak = votes > 0.9 * votes.max()
    weights = votes * peak
    found = np.array([(weights * grid[None, :]).sum(), (weights * grid[:, None]).sum()]) / weights.sum()
    return found + np.array([left, top])


def _overlap(a: NDArray, b: NDArray) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / min(a[2] * a[3], b[2] * b[3]))


def ordered(faces: Sequence[Face], order: str) -> list[Face]:
    """FaceFusion's orders, by its own keys (a face's left edge, top edge, area, detector score)."""
    keys = {
        "left-right": (lambda face: face.box[0], False),
        "right-left": (lambda face: face.box[0], True),
        "top-bottom": (lambda face: face.box[1], False),
        "bottom-top": (lambda face: face.box[1], True),
        "small-large": (lambda face: face.area, False),
        "large-small": (lambda face: face.area, True),
        "best-worst": (lambda face: face.score, True),
        "worst-best": (lambda face: face.score, False),
    }
    key, reverse = keys[order]
    return sorted(faces, key=key, reverse=reverse)
