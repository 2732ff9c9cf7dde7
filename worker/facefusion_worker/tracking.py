"""Faces through a video: found at every fifth frame, carried between by optical flow.

Always true here: a face moves by flow alone, and what the finder says later only pulls it, little by little, so that it drifts to the right
place and never jumps; a cut of the scene forgets everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import SEARCH_SIDE_VIDEO, Face, FaceFinder, Frame, Points, apply
from .vision import cv2

DETECT_EVERY = 5
# While faces are followed, only every third detection looks over the whole frame for new ones.
SEARCH_EVERY = 3
# How much of the way to a new detection a face goes, spread over the frames until the next one.
PULL = 0.15
# Detections that may fail in a row before a face counts as gone: it has turned away or left.
MISSES = 3
_FLOW_SIDE = 720
_POINTS = 60
_THUMBNAIL = (48, 27)
_FLOW = {"winSize": (17, 17), "maxLevel": 3, "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02)}


@dataclass
class Track:
    number: int
    face: Face
    points: Points
    pull: Points
    misses: int = 0


class Tracker:
    """Owns the tracks of one video. Frames must come in order, each once."""

    def __init__(self, finder: FaceFinder) -> None:
        self._finder = finder
        self._tracks: list[Track] = []
        self._grey: Frame | None = None
        self._thumbnail: NDArray[np.float32] | None = None
        self._count = 0
        self._born = 0

    def update(self, frame: Frame) -> list[Track]:
        scale = min(1.0, _FLOW_SIDE / max(frame.shape[:2]))
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        if scale < 1.0:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if self._is_cut(grey):
            self._tracks.clear()
            self._count = 0
        elif self._grey is not None and self._tracks:
            self._flow(grey, scale)
        self._grey = grey
        if self._count % DETECT_EVERY == 0:
            self._detect(frame, grey, scale)
        self._count += 1
        return list(self._tracks)

    def _is_cut(self, grey: Frame) -> bool:
        thumbnail = cv2.resize(grey, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        if before is None:
            return False
        if float(np.abs(thumbnail - before).mean()) < 18:
            return False
        a, b = thumbnail - thumbnail.mean(), before - before.mean()
        likeness = float((a * b).sum() / np.sqrt(max(1.0, float((a * a).sum() * (b * b).sum()))))
        return likeness < 0.6

    def _flow(self, grey: Frame, scale: float) -> None:
        points = np.concatenate([track.points for track in self._tracks]).reshape(-1, 1, 2)
        moved, forward, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, points, None, **_FLOW)
        again, backward, _ = cv2.calcOpticalFlowPyrLK(grey, self._grey, moved, None, **_FLOW)
        good = (forward.ravel() == 1) & (backward.ravel() == 1) & (np.abs(again - points).reshape(-1, 2).max(axis=1) < 0.7)
        kept: list[Track] = []
        begin = 0
        for track in self._tracks:
            end = begin + len(track.points)
            fine = good[begin:end]
            old, new = points[begin:end, 0][fine], moved[begin:end, 0][fine]
            begin = end
            motion = None
            if len(old) >= 6:
                motion, inliers = cv2.estimateAffinePartial2D(old, new, method=cv2.RANSAC, ransacReprojThreshold=1.5, refineIters=15)
            if motion is None or not 0.7 < np.hypot(motion[0, 0], motion[1, 0]) < 1.4:
                continue  # lost: the next detection finds it again
            motion = motion.copy()
            motion[:, 2] /= scale
            landmarks = apply(motion, track.face.landmarks) + track.pull
            track.face = Face(landmarks.astype(np.float32), track.face.score)
            track.points = new[inliers.ravel() == 1] if int(inliers.sum()) >= 6 else new
            kept.append(track)
        if len(kept) < len(self._tracks):
            self._count = 0
        self._tracks = kept

    def _detect(self, frame: Frame, grey: Frame, scale: float) -> None:
        for track in self._tracks:
            found = self._find_near(frame, track.face)
            if found is None:
                track.misses += 1
                track.pull = np.zeros((3, 2), np.float32)
            else:
                track.misses = 0
                track.pull = ((found.landmarks - track.face.landmarks) * (PULL / DETECT_EVERY)).astype(np.float32)
                track.face = Face(track.face.landmarks, 0.9 * track.face.score + 0.1 * found.score)
        self._tracks = [track for track in self._tracks if track.misses < MISSES]
        if not self._tracks or self._count % (SEARCH_EVERY * DETECT_EVERY) == 0:
            for face in self._finder.find(frame, SEARCH_SIDE_VIDEO, thorough=not self._tracks):
                if all(_apart(face, track.face) > 1.2 for track in self._tracks):
                    self._born += 1
                    settled = self._find_near(frame, face)
                    self._tracks.append(Track(self._born, settled or face, np.empty((0, 2), np.float32), np.zeros((3, 2), np.float32)))
        for track in self._tracks:
            track.points = _features(grey, track.face, scale)
        self._tracks = [track for track in self._tracks if len(track.points) >= 6]

    def _find_near(self, frame: Frame, face: Face) -> Face | None:
        """The same face, searched for in its neighbourhood only: thorough, and still cheaper than the whole frame."""
        height, width = frame.shape[:2]
        x, y = face.landmarks.mean(axis=0)
        reach = 2.1 * face.eye_distance
        left, top = max(0, int(x - reach)), max(0, int(y - reach))
        right, bottom = min(width, int(x + reach)), min(height, int(y + reach))
        if right - left < 32 or bottom - top < 32:
            return None
        offset = np.array([left, top], np.float32)
        for found in self._finder.find_close_up(frame[top:bottom, left:right]):
            moved = Face(found.landmarks + offset, found.score)
            if _apart(moved, face) < 0.5 and 0.7 < moved.eye_distance / face.eye_distance < 1.4:
                return moved
        return None


def _apart(a: Face, b: Face) -> float:
    """Distance of two faces, in eye distances of the larger."""
    return float(np.hypot(*(a.landmarks.mean(axis=0) - b.landmarks.mean(axis=0)))) / max(a.eye_distance, b.eye_distance, 1.0)


def _features(grey: Frame, face: Face, scale: float) -> Points:
    """Corners on the face's rigid part, in the flow's coordinates."""
    middle = face.landmarks.mean(axis=0) * scale
    size = face.eye_distance * scale
    wide, high = max(4, round(0.95 * size)), max(4, round(1.25 * size))
    left, top = max(0, int(middle[0]) - high), max(0, int(middle[1]) - high)
    part = grey[top : int(middle[1]) + high, left : int(middle[0]) + high]
    if part.size == 0:
        return np.empty((0, 2), np.float32)
    mask = np.zeros_like(part)
    angle = float(np.degrees(np.arctan2(*(face.landmarks[1] - face.landmarks[0])[::-1])))
    cv2.ellipse(mask, (round(float(middle[0])) - left, round(float(middle[1])) - top), (wide, high), angle, 0, 360, 255, -1)
    found = cv2.goodFeaturesToTrack(part, _POINTS, 0.005, max(2.0, size / 14), mask=mask, blockSize=5)
    if found is None:
        return np.empty((0, 2), np.float32)
    return (found.reshape(-1, 2) + np.array([left, top])).astype(np.float32)
