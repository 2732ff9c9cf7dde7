"""A line of text over every frame, so that people see what machines read in the manifest.

Always true here: a video keeps its frames, its times and its sound; a picture keeps its size, and so does each picture of an archive of
frames. All are encoded once more. What is in none of these forms gets no label, and is said to have none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import archive
from ..engine import CancelToken, EngineError
from ..faces import Frame
from ..options import resolve
from ..pictures import PICTURE_FORMATS, Picture, read_picture, write_picture
from ..video import VIDEO_FORMATS, Colours, Sound, VideoWriter, check_result, decode, examine
from ..vision import av, cv2

_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Of the shorter side; below the second figure nobody could read it.
_HEIGHT = 0.035
_MIN_PIXELS = 5
# One generation more should not be seen.
_QUALITY = 90
_WHAT = "result"
_ENCODERS = {"hevc": "libx265", "h264": "libx264", "vp9": "libvpx-vp9"}


class Stamp:
    """The text at the size that a frame of `width` by `height` wants."""

    def __init__(self, text: str, width: int, height: int) -> None:
        wanted = max(_MIN_PIXELS, round(min(width, height) * _HEIGHT))
        # Hershey letters are 22 units high at scale 1.
        scale = wanted / 22
        (span, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
        room = width - 2 * wanted
        if span > room > 0:
            scale *= room / span
        thickness = max(1, round(scale * 1.6))
        (span, rise), below = cv2.getTextSize(text, _FONT, scale, thickness)
        pad = max(2, rise // 2)
        self._text, self._scale, self._thickness = text, scale, thickness
        self._box = (pad, height - rise - below - 3 * pad, pad + span + 2 * pad, height - pad)
        self._origin = (2 * pad, height - 2 * pad - below)
        self.fits = rise >= _MIN_PIXELS and self._box[1] >= 0 and self._box[2] <= width and room > 0

    def draw(self, frame: Frame) -> Frame:
        """A copy with the text on it, light on dark."""
        frame = np.ascontiguousarray(frame).copy()
        left, top, right, bottom = self._box
        frame[top:bottom, left:right] //= 3
        cv2.putText(frame, self._text, self._origin, _FONT, self._scale, (255, 255, 255), self._thickness, cv2.LINE_AA)
        return frame

    def cover(self, alpha: Frame) -> Frame:
        """A copy that hides nothing of the text."""
        alpha = alpha.copy()
        left, top, right, bottom = self._box
        alpha[top:bottom, left:right] = 255
        return alpha


def write(source: str, destination: str, extension: str, text: str, parameters: Mapping[str, Any]) -> bool:
    """Writes the labelled copy; False, and nothing is written: it is too small for the text. `parameters` are the run's: its quality is
    kept to where it names one above ours."""
    if extension in PICTURE_FORMATS:
        return _picture(source, destination, extension, text, parameters)
    if extension in VIDEO_FORMATS:
        return _video(source, destination, extension, text, parameters)
    if extension == archive.EXTENSION:
        return _frames(source, destination, text)
    return False


def _picture(source: str, destination: str, extension: str, text: str, parameters: Mapping[str, Any]) -> bool:
    picture = read_picture(source, _WHAT)
    stamp = Stamp(text, picture.pixels.shape[1], picture.pixels.shape[0])
    if not stamp.fits:
        return False
    alpha = None if picture.alpha is None else stamp.cover(picture.alpha)
    write_picture(destination, Picture(stamp.draw(picture.pixels), alpha), extension, _quality(parameters, "output_image_quality"))
    return True


def _frames(source: str, destination: str, text: str) -> bool:
    with tempfile.TemporaryDirectory(dir=os.path.dirname(destination)) as plain, tempfile.TemporaryDirectory(dir=plain) as labelled:
        written = []
        for path in archive.unpack(source, plain):
            pixels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.ndim != 3:
                raise EngineError("RESULT_INVALID", f"the frame {os.path.basename(path)} is no picture", retryable=True)
            stamp = Stamp(text, pixels.shape[1], pixels.shape[0])
            if not stamp.fits:
                return False
            stamped = stamp.draw(pixels[:, :, :3])
            if pixels.shape[2] == 4:
                stamped = np.dstack([stamped, stamp.cover(pixels[:, :, 3])])
            written.append(os.path.join(labelled, os.path.basename(path)))
            if not cv2.imwrite(written[-1], stamped):
                raise OSError("a labelled frame could not be written")
        archive.pack(written, destination, CancelToken(), lambda _: None)
    return True


def _video(source: str, destination: str, extension: str, text: str, parameters: Mapping[str, Any]) -> bool:
    cancel = CancelToken()
    info = examine(source, _WHAT, cancel)
    stamp = Stamp(text, info.width, info.height)
    if not stamp.fits:
        return False
    with av.open(source) as container:
        codec = container.streams.video[0].codec_context.name
    options = resolve(
        {
            "processors": ["face_enhancer"],
            "output_video_quality": _quality(parameters, "output_video_quality"),
            **({"output_video_encoder": _ENCODERS[codec]} if codec in _ENCODERS else {}),
        }
    )
    size = (info.width, info.height)
    sound = Sound(source, _WHAT, info.times[0], info.frames / info.rate, False, options, cancel) if info.has_audio else None
    with VideoWriter(destination, extension, size, info.rate, options, Colours.of(source, _WHAT), sound) as writer:
        last: Frame | None = None
        due = 0
        for number, frame in decode(source, _WHAT, info, 0, info.frames, cancel):
            last = stamp.draw(frame)
            writer.write(last, number + 1 - due)
            due = number + 1
        if last is not None and due < info.frames:
            writer.write(last, info.frames - due)
        writer.finish()
    check_result(destination, info.frames, info.rate, size, sound is not None and sound.packets > 0, cancel)
    return True


def _quality(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name)
    return max(_QUALITY, value) if isinstance(value, int) and 0 <= value <= 100 else _QUALITY
