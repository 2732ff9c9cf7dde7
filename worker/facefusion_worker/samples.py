"""Sample media for the demo and the tests: `python -m facefusion_worker.samples OUT_DIR` makes `clip.mp4` from a portrait in `samples/`.

Always true here: the same arguments give the same frames; the camera's path is known, so a test can tell a face's motion from jitter.
"""

from __future__ import annotations

import argparse
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .vision import av, cv2

PORTRAITS = Path(__file__).resolve().parents[2] / "samples"
WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 25, 4.8
SAMPLE_RATE = 44_100


def camera(frame: int, centre: tuple[float, float], zoom: float, size: tuple[int, int] = (WIDTH, HEIGHT)) -> NDArray[np.float64]:
    """The affine map from the portrait to frame number `frame`: a hand that holds a camera, never still and never hasty."""
    t = frame / RATE
    pan = 9 * math.sin(2 * math.pi * 0.31 * t) + 2.0 * math.sin(2 * math.pi * 1.13 * t + 1)
    tilt = 6 * math.sin(2 * math.pi * 0.23 * t + 0.6) + 1.5 * math.sin(2 * math.pi * 1.37 * t)
    angle = math.radians(3.5 * math.sin(2 * math.pi * 0.19 * t + 0.4))
    scale = zoom * (1 + 0.06 * math.sin(2 * math.pi * 0.15 * t))
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    x, y = centre[0] + pan, centre[1] + tilt
    return np.array([[cos, -sin, size[0] / 2 - cos * x + sin * y], [sin, cos, size[1] / 2 - sin * x - cos * y]])


def sound(seconds: float) -> NDArray[np.float32]:
    """A soft chord that swells and fades, with a slow melody above it; mono, -1..1."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * pitch * t + phase) * 0.09 for pitch, phase in ((220.0, 0.0), (277.18, 0.7), (329.63, 1.9)))
    melody = np.array([440.0, 493.88, 554.37, 659.25, 554.37, 493.88])[(t * 1.6).astype(int) % 6]
    wave = wave + 0.08 * np.sin(2 * np.pi * np.cumsum(melody) / SAMPLE_RATE) * (0.5 - 0.5 * np.cos(2 * np.pi * 1.6 * t))
    return (wave * (0.7 + 0.3 * np.sin(2 * np.pi * 0.4 * t))).astype(np.float32)


def make_clip(
    path: Path,
    portrait: Path = PORTRAITS / "grace_hopper.jpg",
    centre: tuple[float, float] = (262.0, 232.0),
    zoom: float = 0.98,
    seconds: float = SECONDS,
) -> None:
    picture = cv2.imread(str(portrait), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"no portrait at {portrait}")
    with av.open(str(path), "w", format="mp4", container_options={"movflags": "+faststart"}) as output:
        video = output.add_stream("libx264", rate=RATE, options={"crf": "18", "preset": "medium", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono", options={"b": "96000"})
        for number in range(round(seconds * RATE)):
            view = cv2.warpAffine(
                picture, camera(number, centre, zoom), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
            )
            frame = av.VideoFrame.from_ndarray(view, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        wave = sound(seconds)
        for begin in range(0, len(wave), 1024):
            block = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, begin, Fraction(1, SAMPLE_RATE)
            output.mux(audio.encode(block))
        output.mux(audio.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m facefusion_worker.samples", description="Makes the sample clip.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long it is; default: %(default)s")
    arguments = parser.parse_args()
    out: Path = arguments.out_dir
    out.mkdir(parents=True, exist_ok=True)
    make_clip(out / "clip.mp4", seconds=arguments.seconds)
    print(out / "clip.mp4")


if __name__ == "__main__":
    main()
