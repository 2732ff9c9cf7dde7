"""A cancel ends the run at once wherever it is, and leaves nothing behind but a warm worker; so does the end of the process itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from harness import DEADLINE
from program import Media, Worker, ffmpeg
from synthetic_models import ODD


def soon() -> float:
    """The promise is 500 ms, on a machine that has the time: others build and test on this one meanwhile."""
    return 0.5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


STEPS = {
    "memory": ["STEP_LOADING_MODELS", "STEP_ANALYSING", "STEP_PROCESSING", "STEP_RESTORING_AUDIO"],
    "disk": ["STEP_EXTRACTING_FRAMES", "STEP_PROCESSING", "STEP_ENCODING_OUTPUT", "STEP_RESTORING_AUDIO"],
}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


def is_canceled(outcome) -> bool:
    return outcome.body.get("outcome") == "OUTCOME_CANCELED"


@pytest.mark.quick
def test_inside_a_long_inference(worker: Worker, media: Media) -> None:
    outcome, seconds = worker.cancel_when(
        lambda message: message[1].get("step") == "STEP_PROCESSING", media.picture(), after=0.3, face_swapper_model=ODD["slow"]
    )
    assert is_canceled(outcome)
    assert seconds < soon()
    assert not worker.children()
    worker.done(media.picture())


@pytest.mark.parametrize(("strategy", "step"), [(strategy, step) for strategy, steps in STEPS.items() for step in steps])
def test_at_every_step_of_a_video(worker: Worker, media: Media, strategy: str, step: str) -> None:
    target = media.video("long.mp4", 4.0)
    outcome, seconds = worker.cancel_when(lambda message: message[1].get("step") == step, target, workflow_strategy=strategy)
    assert is_canceled(outcome)
    assert seconds < soon()
    assert not worker.children()


@pytest.mark.parametrize(
    "step", ["STEP_LOADING_MODELS", "STEP_ANALYSING", "STEP_EXTRACTING_FRAMES", "STEP_PROCESSING", "STEP_ENCODING_OUTPUT"]
)
def test_at_every_step_of_a_picture(worker: Worker, media: Media, step: str) -> None:
    outcome, seconds = worker.cancel_when(lambda message: message[1].get("step") == step, media.picture())
    # Its last step is short: the cancel may come too late.
    assert is_canceled(outcome) or (step == "STEP_ENCODING_OUTPUT" and outcome.kind == "done")
    assert seconds < soon()
    assert not worker.children()


def test_while_a_video_is_made_even(worker: Worker, media: Media) -> None:
    target = media.video("long.mp4", 4.0)
    outcome, seconds = worker.cancel_when(lambda message: message[0] == "progress", target, output_video_fps=10)
    assert is_canceled(outcome)
    assert seconds < soon()
    assert not worker.children()


ODD_FOOTAGE = {
    "a picture that stands for half a minute": lambda whole, sound, path: ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=30", "-vf", "select='not(between(n,1,748))'", "-fps_mode", "vfr", path
    ),
    "sound that begins late": lambda whole, sound, path: ffmpeg(
        "-i", whole, "-itsoffset", "900", "-i", sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", path
    ),
    "sound that goes on alone": lambda whole, sound, path: ffmpeg(
        "-i", whole, "-stream_loop", "400", "-i", sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le", path
    ),
    "one key frame for all": lambda whole, sound, path: ffmpeg(
        *(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=1280x720:rate=25:duration=20",
            "-preset",
            "ultrafast",
            "-g",
            "9999",
            "-pix_fmt",
            "yuv420p",
            path,
        )
    ),
}


@pytest.mark.parametrize("kind", ODD_FOOTAGE)
def test_at_any_time_of_odd_footage(worker: Worker, media: Media, tmp_path: Path, kind: str) -> None:
    """Its files are looked at before the first step is said, and its result after the last: no event tells where a cancel falls."""
    target = tmp_path / "odd.mkv"
    ODD_FOOTAGE[kind](media.video("short.mp4", 0.4), media.sound(), target)
    end = {"trim_frame_end": 60} if kind.startswith("one key") else {}
    began = time.monotonic()
    worker.done(target, "mp4", **end)
    whole = time.monotonic() - began
    slowest = 0.0
    for part in range(8):
        job_id, output, work_dir = worker.start(target, "mp4", **end)
        time.sleep(whole * part / 8)
        asked = time.monotonic()
        worker.send(cancel={"job_id": job_id})
        outcome = worker.finish(output, work_dir)
        slowest = max(slowest, time.monotonic() - asked)
        assert is_canceled(outcome) or outcome.kind == "done"
        assert not worker.children()
    print(f"{kind}: {whole:.1f} s, cancelled within {slowest * 1000:.0f} ms")
    assert slowest < soon()


def test_again_and_again_between_jobs(worker: Worker, media: Media) -> None:
    """Whatever a cancel hits, the next job is as it should be."""
    picture = media.picture()
    expected = worker.done(picture).output.read_bytes()
    for number in range(12):
        job_id, output, work_dir = worker.start(picture)
        time.sleep(number * 0.03)  # a place that no event tells
        worker.send(cancel={"job_id": job_id})
        outcome = worker.finish(output, work_dir)
        assert outcome.kind == "done" or is_canceled(outcome)
        assert worker.done(picture).output.read_bytes() == expected


@pytest.mark.quick
def test_the_end_of_the_process_group_leaves_nothing_running(worker: Worker, media: Media, tmp_path: Path) -> None:
    with Worker(worker.home, tmp_path) as other:
        other.start(media.video("long.mp4", 4.0), workflow_strategy="disk")
        while other.next()[1].get("step") != "STEP_PROCESSING":
            pass
        os.killpg(other.process.pid, signal.SIGKILL)
        assert other.process.wait(DEADLINE) == -signal.SIGKILL
        until = time.monotonic() + DEADLINE
        while of_group(other.process.pid):
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.quick
def test_the_end_of_the_service_ends_a_run_and_its_children(worker: Worker, media: Media, tmp_path: Path) -> None:
    # One that follows the worker above, which was killed in the middle of its job.
    with Worker(worker.home, tmp_path) as other:
        other.done(media.picture())
        other.start(media.video("long.mp4", 4.0))
        while other.next()[1].get("step") != "STEP_PROCESSING":
            pass
        group = other.process.pid
        other.hang_up()
        other.exit_code()
        until = time.monotonic() + DEADLINE
        while of_group(group):
            assert time.monotonic() < until
            time.sleep(0.01)


def of_group(group: int) -> list[int]:
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(entry.name))
    return members
