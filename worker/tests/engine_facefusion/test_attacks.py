"""What is done to a worker in the middle of its work: killed, cancelled again and again, left without disk, its models and its program
changed under it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import DEADLINE
from program import Home, Media, Worker
from test_stops import STEPS, is_canceled, of_group


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def own_home(worker: Worker, checkout, models: Path, tmp_path: Path) -> Home:
    """A checkout and models that a test may change."""
    home = tmp_path / "home"
    shutil.copytree(Path(checkout.home) / "facefusion", home / "facefusion")
    for name in ("facefusion.py", "facefusion.ini"):
        shutil.copyfile(Path(checkout.home) / name, home / name)
    shutil.copytree(models, home / ".assets" / "models")
    return Home(home, checkout.python)


@contextmanager
def small_disk(folder: Path, kibibytes: int) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder], capture_output=True, check=False).returncode:
        pytest.skip("machine: a file system of its own cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(("strategy", "step"), [(strategy, step) for strategy, steps in STEPS.items() for step in steps])
def test_killed_in_each_step_it_leaves_nothing_running(worker: Worker, media: Media, tmp_path: Path, strategy: str, step: str) -> None:
    """Itself alone, as a machine that is short of memory does: its children are the guard's then."""
    with Worker(worker.home, tmp_path) as other:
        other.start(media.video("long.mp4", 4.0), workflow_strategy=strategy)
        while other.next()[1].get("step") != step:
            pass
        os.kill(other.process.pid, signal.SIGKILL)
        assert other.process.wait(DEADLINE) == -signal.SIGKILL
        until = time.monotonic() + DEADLINE
        while of_group(other.process.pid):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_storm_of_cancels(worker: Worker, media: Media) -> None:
    """Each several times, of jobs that wait as of the one that runs, and of jobs that nobody knows."""
    picture = media.picture()
    expected = worker.done(picture).output.read_bytes()
    jobs = [worker.start(picture if number % 2 else media.video(), workflow_strategy="disk") for number in range(8)]
    for _ in range(3):
        for job_id, *_ in reversed(jobs):
            worker.send(cancel={"job_id": job_id})
            worker.send(cancel={"job_id": job_id + "_of_nobody"})
    outcomes = [worker.finish(output, work_dir) for _, output, work_dir in jobs]
    assert all(is_canceled(outcome) for outcome in outcomes[1:])
    assert is_canceled(outcomes[0]) or outcomes[0].kind == "done"
    assert not worker.children()
    assert worker.done(picture).output.read_bytes() == expected


def test_a_cancel_that_comes_with_the_end_reaches_no_other_job(worker: Worker, media: Media) -> None:
    picture = media.picture()
    expected = worker.done(picture).output.read_bytes()
    for _ in range(5):
        first, output, _ = worker.start(picture)
        _, next_output, next_dir = worker.start(picture)
        messages = worker.until("done", "failed")
        worker.send(cancel={"job_id": first})
        worker.send(cancel={"job_id": first})
        assert messages[-1][0] == "done"
        assert worker.wait_for("idle")["job_id"] == first
        assert output.read_bytes() == expected
        assert worker.finish(next_output, next_dir).output.read_bytes() == expected


def test_a_model_that_is_damaged_meanwhile(own_home: Home, media: Media, tmp_path: Path) -> None:
    model = own_home.path / ".assets" / "models" / "hyperswap_1a_256.onnx"
    whole = model.read_bytes()
    with Worker(own_home, tmp_path / "jobs") as one:
        expected = one.done(media.picture()).output.read_bytes()
        _, output, work_dir = one.start(media.video("long.mp4", 4.0))
        while one.next()[1].get("step") != "STEP_PROCESSING":
            pass
        model.write_bytes(whole[: len(whole) // 2])
        # What is loaded is loaded.
        assert one.finish(output, work_dir).kind == "done"
        outcome = one.submit(media.picture())
        assert (outcome.reason, "hyperswap_1a_256" in outcome.body["message"]) == ("MODEL_DAMAGED", True)
        assert model.stat().st_size == len(whole) // 2, "a job deleted a model"
        model.unlink()
        assert one.submit(media.picture()).reason == "MODEL_MISSING"
        model.write_bytes(whole)
        assert one.done(media.picture()).output.read_bytes() == expected


def test_a_model_that_nobody_can_write_is_read_once(own_home: Home, media: Media, tmp_path: Path) -> None:
    """As long as it is the same file; one that has been changed is read again."""
    model = own_home.path / ".assets" / "models" / "hyperswap_1a_256.onnx"
    whole = model.read_bytes()
    with Worker(own_home, tmp_path / "jobs") as one:
        for writable in (True, False):
            for path in (model, model.with_suffix(".hash")):
                path.chmod(0o644 if writable else 0o444)
            one.done(media.picture())
            before = model.stat()
            with open(os.open(model, os.O_WRONLY), "wb") as file:  # what a superuser can, and nobody else
                file.write(bytes(len(whole)))
            os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert one.submit(media.picture()).reason == ("MODEL_DAMAGED" if writable else "")
            os.utime(model)
            assert one.submit(media.picture()).reason == "MODEL_DAMAGED"
            model.chmod(0o644)
            model.write_bytes(whole)
            one.done(media.picture())


def test_a_checkout_that_is_edited_meanwhile(own_home: Home, media: Media, tmp_path: Path) -> None:
    def changed(name: str, line: str) -> str:
        path = own_home.path / "facefusion" / name
        before = path.read_text()
        path.write_text(f"{before}\n{line}\n")
        return before

    with Worker(own_home, tmp_path / "jobs") as one:
        expected = one.done(media.picture()).output.read_bytes()
        # Of the content analyser not even a comment: no job runs until it is as it was released.
        before = changed("content_analyser.py", "# another")
        for target in (media.picture(), media.video("short.mp4", 0.4)):
            outcome = one.submit(target)
            assert (outcome.reason, "content analyser" in outcome.body["message"]) == ("ENGINE_BROKEN", True)
        (own_home.path / "facefusion" / "content_analyser.py").write_text(before)
        assert one.done(media.picture()).output.read_bytes() == expected
        # The rest of what is loaded is loaded; the next process looks anew, and says what it misses.
        changed("process_manager.py", "del stop")
        assert one.done(media.picture()).output.read_bytes() == expected
    with Worker(own_home, tmp_path / "jobs", ready=False) as other:
        assert other.exit_code() == 70
        assert "facefusion.process_manager.stop" in other.process.stderr.read().decode()


@pytest.mark.parametrize("kibibytes", [1100, 1500, 3000, 6000, 12_000, 24_000])
def test_a_disk_that_is_full_has_that_name(worker: Worker, media: Media, tmp_path: Path, kibibytes: int) -> None:
    """Wherever it gets full: while a video is made even, taken apart, processed, encoded, packed, or checked."""
    ended: list[str] = []
    with small_disk(tmp_path / "disk", kibibytes) as disk, Worker(worker.home, disk) as one:
        video = media.video("long.mp4", 4.0)
        jobs = [
            (media.picture(), "", {}),
            (media.picture(), "webp", {}),
            (video, "", {"workflow_strategy": "memory", "output_video_quality": 100}),
            (video, "", {"workflow_strategy": "disk"}),
            (video, "", {"workflow_strategy": "disk", "temp_frame_format": "bmp", "trim_frame_end": 20}),
            (video, "", {"output_video_fps": 20}),
            *([(video, "zip", {})] if "zip" in one.ready["capabilities"]["video_formats"] else []),
        ]
        for target, output_format, parameters in jobs:
            outcome = one.submit(target, output_format, **parameters)
            ended.append(outcome.reason or outcome.kind)
            assert outcome.kind == "done" or (outcome.reason, outcome.body["retryable"]) == ("DISK_FULL", True), (parameters, outcome.body)
            outcome.output.unlink(missing_ok=True)
    print(kibibytes, ended)
    if kibibytes <= 12_000:
        assert "DISK_FULL" in ended


def test_a_file_that_may_grow_no_further(worker: Worker, media: Media, tmp_path: Path) -> None:
    """What the operator's limit on a file's size does: a failure with a name, and a worker that goes on."""
    with Worker(worker.home, tmp_path, limits={"file": 100_000}) as one:
        outcome = one.submit(media.video("long.mp4", 4.0))
        assert outcome.kind == "failed"
        assert one.submit(media.picture(), "jpg").kind in ("done", "failed")
        assert not one.children()
