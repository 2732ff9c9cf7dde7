from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media import Recorder

from facefusion_worker.engine import Job, MediaKind, Result
from facefusion_worker.engines.classical import Classical
from facefusion_worker.faces import Face, FaceFinder, Frame
from facefusion_worker.samples import PORTRAITS, make_clip


class Remembering(FaceFinder):
    """Searches each picture once. The tests look at a few portraits hundreds of times, and the search is most of what they compute."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[object, ...], list[Face]] = {}

    def find(self, frame: Frame, *how: Any, **more: Any) -> list[Face]:
        key = ("whole", frame.shape, sha256(np.ascontiguousarray(frame)).digest(), how, *more.items())
        return self._once(key, lambda: super(Remembering, self).find(frame, *how, **more))

    def find_close_up(self, frame: Frame) -> list[Face]:
        key = ("close-up", frame.shape, sha256(np.ascontiguousarray(frame)).digest())
        return self._once(key, lambda: super(Remembering, self).find_close_up(frame))

    def _once(self, key: tuple[object, ...], search: Callable[[], list[Face]]) -> list[Face]:
        if key not in self._known:
            self._known[key] = search()
            for face in self._known[key]:
                face.landmarks.setflags(write=False)
        return list(self._known[key])


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    return Remembering()


@pytest.fixture(scope="session")
def engine(finder) -> Classical:
    engine = Classical()
    engine._finder = finder
    engine.warm()
    return engine


@pytest.fixture(scope="session")
def collins() -> Path:
    return PORTRAITS / "eileen_collins.jpg"


@pytest.fixture(scope="session")
def hopper() -> Path:
    return PORTRAITS / "grace_hopper.jpg"


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """The first 40 frames of the sample clip."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, seconds=1.6)
    return path


@pytest.fixture
def run(engine, collins, tmp_path):
    """Runs one job in this process: `run(target, "png", option=value)` answers the result, its path and what was reported."""

    def run(target: Path, output_format: str, *, sources: tuple[Path, ...] | None = None, report: Recorder | None = None, **parameters):
        is_video = output_format in ("mp4", "webm", "mov")
        output = tmp_path / f"result.{output_format}"
        report = report or Recorder()
        job = Job(
            job_id="j",
            attempt=1,
            source_paths=tuple(str(path) for path in (sources if sources is not None else (collins,))),
            target_path=str(target),
            target_kind=MediaKind.MEDIA_KIND_VIDEO if is_video else MediaKind.MEDIA_KIND_IMAGE,
            output_path=str(output),
            output_format=output_format,
            parameters=parameters,
            work_dir=str(tmp_path),
        )
        result: Result = engine.run(job, report)
        assert not list(tmp_path.glob("*.part"))
        return result, output, report

    return run
