from __future__ import annotations

from pathlib import Path

import pytest
from media import Recorder

from facefusion_worker.engine import Job, MediaKind, Result
from facefusion_worker.engines.classical import Classical
from facefusion_worker.faces import FaceFinder
from facefusion_worker.samples import PORTRAITS, make_clip


@pytest.fixture(scope="session")
def engine() -> Classical:
    engine = Classical()
    engine.warm()
    return engine


@pytest.fixture(scope="session")
def finder() -> FaceFinder:
    return FaceFinder()


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
