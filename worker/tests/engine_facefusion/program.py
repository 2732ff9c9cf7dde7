"""A worker with the real program in it, the jobs it is given, and the small media they are about."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import WorkerProcess

from facefusion_worker.samples import PORTRAITS
from facefusion_worker.vision import av, cv2

SIZE = (640, 360)
SOURCE = PORTRAITS / "eileen_collins.jpg"
OTHER_SOURCE = PORTRAITS / "grace_hopper.jpg"
Message = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Home:
    path: Path
    python: str

    def environment(self) -> dict[str, str]:
        return {"FACEFUSION_HOME": str(self.path), "FFJOBS_TEST_SYNTHETIC_MODELS": "1", "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True)
class Outcome:
    kind: str
    body: dict[str, Any]
    messages: list[Message]
    output: Path
    work_dir: Path

    @property
    def reason(self) -> str:
        return self.body.get("reason", "")

    @property
    def steps(self) -> list[str]:
        return list(dict.fromkeys(message["step"] for kind, message in self.messages if kind == "progress"))

    @property
    def warnings(self) -> list[str]:
        return self.body.get("warnings", [])


class Worker(WorkerProcess):
    def __init__(self, home: Home, folder: Path, engine: str = "facefusion", **environment: str) -> None:
        self.home = home
        self._folder = folder
        self._count = 0
        self._guards: list[int] = []
        super().__init__(engine, python=home.python, **{**home.environment(), **environment})
        self._guards = self.children()  # the one that outlives the worker for an instant; a run leaves no other

    @property
    def version(self) -> str:
        return self.ready["engine_version"]

    def options(self) -> dict[str, dict[str, Any]]:
        return {option["name"]: option for option in self.ready["capabilities"]["options"]}

    def start(
        self,
        target: Path,
        output_format: str = "",
        *,
        source: Path | None = SOURCE,
        previews: bool = False,
        low_memory: bool = False,
        **parameters: Any,
    ) -> tuple[str, Path, Path]:
        """Sends a job; answers its id, its output path and its work folder."""
        self._count += 1
        job_id = f"job_{self._count}"
        work_dir = self._folder / job_id / "tmp"
        work_dir.mkdir(parents=True)
        extension = output_format or target.suffix[1:]
        output = work_dir.parent / f"result.{extension}"
        sources = [source] if isinstance(source, Path) else source or []
        self.run(
            job_id,
            output,
            target_path=str(target),
            target_kind="MEDIA_KIND_IMAGE" if target.suffix in (".png", ".jpg", ".jpeg", ".webp", ".bmp") else "MEDIA_KIND_VIDEO",
            source_paths=[str(path) for path in sources if path.suffix not in (".wav", ".mp3", ".m4a")],
            source_audio_path=next((str(path) for path in sources if path.suffix in (".wav", ".mp3", ".m4a")), ""),
            output_format=extension,
            work_dir=str(work_dir),
            parameters=parameters,
            previews=previews,
            low_memory=low_memory,
        )
        return job_id, output, work_dir

    def finish(self, output: Path, work_dir: Path, seen: list[Message] | None = None) -> Outcome:
        messages = (seen or []) + self.until("done", "failed")
        kind, body = messages[-1]
        assert self.wait_for("idle")["job_id"] == body["job_id"]
        assert not list(work_dir.iterdir()), "the work folder is not empty"
        assert output.exists() == (kind == "done")
        assert {path.name for path in work_dir.parent.iterdir()} == {work_dir.name} | ({output.name} if kind == "done" else set())
        return Outcome(kind, body, messages, output, work_dir)

    def submit(self, target: Path, output_format: str = "", **job: Any) -> Outcome:
        _, output, work_dir = self.start(target, output_format, **job)
        return self.finish(output, work_dir)

    def done(self, target: Path, output_format: str = "", **job: Any) -> Outcome:
        outcome = self.submit(target, output_format, **job)
        assert outcome.kind == "done", outcome.body
        return outcome

    def cancel_when(
        self, met: Callable[[Message], bool], target: Path, output_format: str = "", after: float = 0.0, **job: Any
    ) -> tuple[Outcome, float]:
        """Cancels a job on the first message that meets the condition; answers how it ended, and how long that took."""
        job_id, output, work_dir = self.start(target, output_format, **job)
        seen: list[Message] = []
        while not seen or not met(seen[-1]):
            seen.append(self.next())
            assert seen[-1][0] not in ("done", "failed"), seen[-1]
        if after:
            time.sleep(after)  # into the middle of a native call, which says nothing
        began = time.monotonic()
        self.send(cancel={"job_id": job_id})
        outcome = self.finish(output, work_dir, seen)
        return outcome, time.monotonic() - began

    def children(self) -> list[int]:
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
        return [child for child in found if child not in self._guards]

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def resident(self) -> float:
        """In MiB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *map(str, arguments)], check=True)


class Media:
    """Pictures and videos of test patterns: 640x360, where all detectors see the same face."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self._folder / name
        if not path.exists():
            make(path)
        return path

    def picture(self, name: str = "target.png") -> Path:
        return self._made(name, lambda path: cv2.imwrite(str(path), self.pixels()))

    @staticmethod
    def pixels() -> np.ndarray:
        y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
        return np.stack([x % 256, (x + y) % 256, 90 + (y % 120)], 2).astype(np.uint8)

    def plain(self, colour: tuple[int, int, int], name: str) -> Path:
        """`colour` is blue, green, red."""
        return self._made(name, lambda path: cv2.imwrite(str(path), np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)))

    def green(self, name: str = "green.png") -> Path:
        return self.plain((0, 255, 0), name)

    def unfit(self, name: str = "magenta.png") -> Path:
        return self.plain((255, 0, 255), name)

    def video(self, name: str = "target.mp4", seconds: float = 1.2, rate: str = "25", sound: bool = True, *more: object) -> Path:
        def make(path: Path) -> None:
            tone = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}") if sound else ()
            codec = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8") if path.suffix == ".webm" else ("-c:v", "libx264")
            ffmpeg(
                "-f",
                "lavfi",
                "-i",
                f"testsrc2=size=640x360:rate={rate}:duration={seconds}",
                *tone,
                *codec,
                "-pix_fmt",
                "yuv420p",
                *more,
                path,
            )

        return self._made(name, make)

    def colour_video(self, colour: str, name: str, seconds: float = 1.2) -> Path:
        return self._made(
            name,
            lambda path: ffmpeg(
                "-f", "lavfi", "-i", f"color={colour}:size=640x360:rate=25:duration={seconds}", "-pix_fmt", "yuv420p", path
            ),
        )

    def sound(self, name: str = "voice.wav", seconds: float = 1.5) -> Path:
        return self._made(name, lambda path: ffmpeg("-f", "lavfi", "-i", f"sine=frequency=220:duration={seconds}", path))


def pixels_of(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def has_sound(path: Path) -> bool:
    with av.open(str(path)) as container:
        return bool(container.streams.audio) and next(container.decode(audio=0), None) is not None
