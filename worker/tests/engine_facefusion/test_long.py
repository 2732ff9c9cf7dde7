"""What only shows after many jobs: memory, descriptors, models that come and go, and what was learned of steps."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest
from program import Media, Worker
from synthetic_models import ODD

JOBS = int(os.environ.get("FACEFUSION_TESTS_JOBS", "200"))


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


def test_many_jobs_of_mixed_kinds(worker: Worker, media: Media, tmp_path: Path) -> None:
    picture, video = media.picture(), media.video("short.mp4", 0.4)
    kinds = [
        lambda one: one.done(picture),
        lambda one: one.done(video),
        lambda one: one.done(picture, processors=["face_enhancer"]),
        lambda one: one.submit(media.unfit()),
        lambda one: one.done(video, workflow_strategy="disk"),
        lambda one: one.submit(picture, face_swapper_model=ODD["broken"]),
        lambda one: one.done(picture, processors=["frame_colorizer"]),
        lambda one: one.cancel_when(lambda message: message[1].get("step") == "STEP_PROCESSING", picture, face_swapper_model=ODD["slow"]),
    ]
    with Worker(worker.home, tmp_path) as one:
        resident, descriptors, threads = [], [], []
        for number in range(JOBS):
            kinds[number % len(kinds)](one)
            resident.append(one.resident())
            descriptors.append(one.descriptors())
            threads.append(len(list(Path(f"/proc/{one.process.pid}/task").iterdir())))
        print(f"{JOBS} jobs: {resident[len(kinds)]:.0f} MiB, half way {resident[JOBS // 2]:.0f}, at the end {resident[-1]:.0f}")
        assert max(descriptors[-8:]) <= max(descriptors[8:24])
        assert max(threads[-8:]) <= max(threads[8:24])
        assert statistics.mean(resident[-8:]) < statistics.mean(resident[JOBS // 2 : JOBS // 2 + 8]) * 1.05 + 10


def test_models_beyond_the_budget_go(worker: Worker, media: Media, tmp_path: Path) -> None:
    with Worker(worker.home, tmp_path, FFJOBS_MODEL_MEMORY="3MiB") as one:

        def warm(**parameters: object) -> set[str]:
            job_id, _, _ = one.start(media.picture(), **parameters)
            idle = one.wait_for("idle")
            assert idle["job_id"] == job_id
            return set(idle.get("warm_models", []))

        first = warm(face_swapper_model="inswapper_128")
        assert "inswapper_128" in first
        second = warm(face_swapper_model="simswap_unofficial_512", face_detector_model="retinaface")
        assert {"simswap_unofficial_512", "retinaface_10g"} <= second
        assert "inswapper_128" not in second
        assert {"nsfw_1", "2dfan4"} <= second


def test_percent_is_learned(worker: Worker, media: Media, tmp_path: Path) -> None:
    weights = tmp_path / "steps.json"
    video = media.video("long.mp4", 3.0)
    with Worker(worker.home, tmp_path / "jobs", FFJOBS_STEP_WEIGHTS=str(weights)) as one:
        for _ in range(5):
            one.done(video)
        outcome = one.done(video)
    assert json.loads(weights.read_text())
    # Where each step began on the scale, against where it truly began in time.
    seconds = outcome.body["step_seconds"]
    whole, error, place = sum(seconds.values()), [], 0.0
    begins = {message["step"]: message.get("percent", 0.0) for kind, message in reversed(outcome.messages) if kind == "progress"}
    for step in seconds:
        if step in begins:
            error.append(abs(begins[step] - 100 * place / whole))
        place += seconds[step]
    print("error of percent at the steps' beginnings:", [round(one, 1) for one in error])
    assert statistics.mean(error) < 8
