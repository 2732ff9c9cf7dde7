"""Small media for tests, and measures of what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np

from facefusion_worker.engine import CancelToken, Step
from facefusion_worker.faces import Face, similarity
from facefusion_worker.swap import outline_mask
from facefusion_worker.vision import av, cv2


class Recorder:
    """A `Report` that keeps what it is told; `cancel_when(step, done)` sets the token."""

    def __init__(self, previews: bool = False, cancel_when: Callable[[Step, int], bool] = lambda *_: False) -> None:
        self.cancel = CancelToken()
        self.steps: list[Step] = []
        self.done: list[tuple[Step, int]] = []
        self.total = 0
        self.logs: list[str] = []
        self.previews: list[bytes] = []
        self._wants = previews
        self._cancel_when = cancel_when

    def plan(self, weights: Mapping[Step, float], shapes: Mapping[Step, Sequence[float]] = MappingProxyType({})) -> None:
        self.weights = weights

    def enter(self, step: Step, total: int = 0) -> None:
        self.cancel.check()
        assert step in self.weights
        self.steps.append(step)
        self.total = total or self.total
        self._ask(0)

    def advance(self, done: int) -> None:
        self.cancel.check()
        self.done.append((self.steps[-1], done))
        self._ask(done)

    def _ask(self, done: int) -> None:
        if self._cancel_when(self.steps[-1], done):
            self.cancel.set()

    def wants_preview(self) -> bool:
        return self._wants

    def preview(self, jpeg: bytes, frame: int) -> None:
        self.previews.append(jpeg)

    def log(self, message: str, level: str = "INFO") -> None:
        self.logs.append(message)


def picture(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def stamps(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def samples(path: Path) -> tuple[np.ndarray, int, float]:
    """Mono samples as a player would hear them, the rate, and the time of the first."""
    with av.open(str(path)) as container:
        pieces, rate, first = [], 0, None
        for frame in container.decode(audio=0):
            rate = frame.sample_rate
            first = float(frame.pts * frame.time_base) if first is None else first
            data = frame.to_ndarray().astype(np.float64)
            channels = len(frame.layout.channels)
            data = data.reshape(-1, channels).mean(axis=1) if not frame.format.is_planar else data.mean(axis=0)
            pieces.append(data / (32768 if frame.format.name.startswith("s16") else 1))
    return np.concatenate(pieces), rate, float(first)


def make_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    places: Sequence[int] | None = None,
    tone: bool = False,
    **options: str,
) -> Path:
    """`places`: timestamps in milliseconds instead of a constant rate."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, options={"crf": "20", **options} if codec == "libx264" else options)
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], pix_fmt
        if places is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream("aac", rate=44_100, layout="mono") if tone else None
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts, frame.time_base = (number, 1 / Fraction(rate)) if places is None else (places[number], Fraction(1, 1000))
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            wave = 0.3 * np.sin(np.arange(int(44_100 * len(pictures) / Fraction(rate))) * 0.05)
            block = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 44_100, 0, Fraction(1, 44_100)
            output.mux(sound.encode(block))
            output.mux(sound.encode(None))
    return path


def numbered(count: int, size: tuple[int, int] = (160, 120)) -> list[np.ndarray]:
    """Frames that tell their number by a bright bar (`number_of` reads it back through any codec)."""
    made = []
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 60, np.uint8)
        for bit in range(8):
            if number >> bit & 1:
                frame[10:30, 4 + bit * 16 : 16 + bit * 16] = 220
        made.append(frame)
    return made


def number_of(frame: np.ndarray) -> int:
    scale = frame.shape[1] / 160
    return sum(
        int(frame[int(14 * scale) : int(26 * scale), int((7 + bit * 16) * scale) : int((13 + bit * 16) * scale)].mean() > 140) << bit
        for bit in range(8)
    )


def aligned(frame: np.ndarray, face: Face, side: int = 128) -> np.ndarray:
    return cv2.warpAffine(frame, similarity(face.landmarks) * side, (side, side), flags=cv2.INTER_AREA)


def structure_likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of what two aligned faces are drawn with - eyes, brows, nose, mouth - without their light and skin tone: a band of
    spatial frequencies inside the face's outline. Two pictures of one face are near 1, of two people near 0.3."""

    def band(picture: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
        return cv2.GaussianBlur(grey, (0, 0), 1.5) - cv2.GaussianBlur(grey, (0, 0), 8)

    inside = cv2.erode(outline_mask(a.shape[0]), np.ones((9, 9), np.uint8)) > 0.9
    x, y = band(a)[inside], band(b)[inside]
    return float(np.corrcoef(x, y)[0, 1])


def skin_tone(face: np.ndarray) -> np.ndarray:
    """Lab of the cheeks of an aligned face: L 0..100, a, b."""
    side = face.shape[0]
    lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    rows = slice(int(0.5 * side), int(0.66 * side))
    return np.median(
        np.concatenate(
            [lab[rows, int(0.26 * side) : int(0.4 * side)].reshape(-1, 3), lab[rows, int(0.6 * side) : int(0.74 * side)].reshape(-1, 3)]
        ),
        axis=0,
    )
