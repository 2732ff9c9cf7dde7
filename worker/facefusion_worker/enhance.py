"""Enhancement by plain filters: faces evened out and sharpened, frames doubled in size.

Always true here: a blend of 0 changes nothing (but a frame's size), and nothing is invented that the picture does not hold.
"""

from __future__ import annotations

import numpy as np

from .faces import Face, Frame, apply, invert, similarity
from .swap import face_side, outline_mask, region_of
from .vision import cv2

UPSCALE = 2


def enhance_face(frame: Frame, face: Face, blend: int) -> None:
    """Calms noise without touching edges, lifts local contrast, sharpens; in place, inside the face's outline."""
    side = face_side(face)
    back = invert(similarity(face.landmarks) * side)
    region = region_of(frame, back, side)
    if region is None or blend <= 0:
        return
    left, top, right, bottom = region
    view = frame[top:bottom, left:right]
    size = face.eye_distance
    lab = cv2.cvtColor(view, cv2.COLOR_BGR2LAB)
    light = cv2.bilateralFilter(lab[..., 0], 0 if size < 120 else 7, 18, max(1.0, size / 50)) if size >= 24 else lab[..., 0]
    even = cv2.createCLAHE(clipLimit=1.6, tileGridSize=(2, 2)).apply(light)
    light = cv2.addWeighted(light, 0.7, even, 0.3, 0)
    soft = cv2.GaussianBlur(light, (0, 0), max(0.8, size / 60))
    lab[..., 0] = cv2.addWeighted(light, 1.6, soft, -0.6, 0)
    better = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
    mask = cv2.GaussianBlur(outline_mask(96), (0, 0), 5)
    to_view = back @ np.array([[side / 96, 0, 0], [0, side / 96, 0], [0, 0, 1.0]])
    to_view[:, 2] -= (left, top)
    alpha = cv2.warpAffine(mask, to_view, (right - left, bottom - top), flags=cv2.INTER_LINEAR, borderValue=0)[..., None] * (blend / 100)
    mixed = view + (better.astype(np.float32) - view) * alpha
    view[...] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def upscale(frame: Frame, blend: int) -> Frame:
    """Twice the size by Lanczos, then the detail that the filter lost, held back where it would ring."""
    height, width = frame.shape[:2]
    large = cv2.resize(frame, (width * UPSCALE, height * UPSCALE), interpolation=cv2.INTER_LANCZOS4)
    if blend <= 0:
        return large
    soft = cv2.GaussianBlur(large, (0, 0), 1.4)
    amount = 0.9 * blend / 100
    sharp = cv2.addWeighted(large, 1 + amount, soft, -amount, 0)
    # No pixel leaves the range of its neighbourhood by much: that is what keeps halos away.
    kernel = np.ones((5, 5), np.uint8)
    slack = np.array([6, 6, 6], np.uint8)
    low, high = cv2.subtract(cv2.erode(large, kernel), (*slack.tolist(), 0)), cv2.add(cv2.dilate(large, kernel), (*slack.tolist(), 0))
    return cv2.min(cv2.max(sharp, low), high)


def draw_face(frame: Frame, face: Face, items: frozenset[str]) -> None:
    """What the finder saw, in FaceFusion's colours: box red, landmarks green, mask's outline blue."""
    thick = max(1, round(face.eye_distance / 40))
    if "bounding-box" in items:
        left, top, right, bottom = (round(value) for value in face.box)
        cv2.rectangle(frame, (left, top), (right, bottom), (0, 0, 255), thick)
    if any(item.startswith("face-landmark") for item in items):
        for x, y in face.landmarks:
            cv2.circle(frame, (round(float(x)), round(float(y))), thick + 1, (0, 255, 0), -1, cv2.LINE_AA)
    if "face-mask" in items:
        outline, _ = cv2.findContours((outline_mask(256) > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        points = apply(invert(similarity(face.landmarks)), outline[0].reshape(-1, 2).astype(np.float32) / 256)
        cv2.polylines(frame, [np.round(points).astype(np.int32)], True, (255, 96, 0), thick, cv2.LINE_AA)
