"""One process for each job, and what an operator asks before the first one."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from program import SOURCE, Media, Worker, difference, has_sound, pixels_of
from synthetic_models import ODD


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


@pytest.mark.quick
def test_a_picture_by_the_command_line_is_the_same(commands: Worker, worker: Worker, media: Media) -> None:
    one = commands.done(media.picture(), face_mask_blur=0.5)
    assert one.output.read_bytes() == worker.done(media.picture(), face_mask_blur=0.5).output.read_bytes()


def test_a_video_by_the_command_line(commands: Worker, media: Media) -> None:
    outcome = commands.done(media.video())
    assert outcome.body["frames"] == 30
    assert has_sound(outcome.output)
    assert outcome.steps[-1] == "STEP_RESTORING_AUDIO"
    assert {"STEP_ANALYSING", "STEP_PROCESSING"} <= set(outcome.steps)


@pytest.mark.quick
def test_its_refusals_are_told_from_its_failures(commands: Worker, media: Media) -> None:
    assert commands.submit(media.unfit()).body["outcome"] == "OUTCOME_REFUSED"
    assert commands.submit(media.picture(), source=media.green()).reason == "NO_FACE_IN_SOURCE"


def test_its_other_outcomes(commands: Worker, media: Media) -> None:
    assert commands.submit(media.colour_video("magenta", "magenta.mp4")).body["outcome"] == "OUTCOME_REFUSED"
    for kind, reason in (
        ("absent", "MODEL_MISSING"),
        ("damaged", "MODEL_DAMAGED"),
        ("broken", "MODEL_DAMAGED"),
        ("greedy", "GPU_OUT_OF_MEMORY"),
    ):
        assert commands.submit(media.picture(), face_swapper_model=ODD[kind]).reason == reason
    assert (commands.home.path / ".assets" / "models" / f"{ODD['damaged']}.onnx").exists()


@pytest.mark.quick
def test_its_cancel_ends_the_process_and_its_children(commands: Worker, media: Media) -> None:
    outcome, seconds = commands.cancel_when(
        lambda message: message[1].get("step") == "STEP_PROCESSING", media.picture(), after=0.3, face_swapper_model=ODD["slow"]
    )
    assert outcome.body["outcome"] == "OUTCOME_CANCELED"
    assert seconds < 0.5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert not commands.children()
    outcome, _ = commands.cancel_when(
        lambda message: message[1].get("step") == "STEP_PROCESSING", media.video("long.mp4", 4.0), workflow_strategy="disk"
    )
    assert outcome.body["outcome"] == "OUTCOME_CANCELED"
    assert not commands.children()


def test_a_program_that_is_killed_is_a_failure_that_may_be_tried_again(commands: Worker, media: Media) -> None:
    _, output, work_dir = commands.start(media.picture(), face_swapper_model=ODD["slow"])
    while commands.next()[1].get("step") != "STEP_PROCESSING":
        pass
    for child in commands.children():
        os.kill(child, signal.SIGKILL)
    outcome = commands.finish(output, work_dir)
    assert (outcome.reason, outcome.body["retryable"]) == ("ENGINE_FAILED", True), outcome.body
    assert not commands.children()
    commands.done(media.picture())


def ask(worker: Worker, *arguments: str, **environment: str) -> tuple[int, list[dict]]:
    run = subprocess.run(
        [worker.home.python, "-m", "facefusion_worker.engines.facefusion", *arguments, "--json"],
        env={**os.environ, **worker.home.environment(), "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.quick
def test_check_says_what_there_is(worker: Worker) -> None:
    code, lines = ask(worker, "check")
    assert code == 0
    assert [line["name"] for line in lines if line["kind"] == "tool"] == ["ffmpeg", "ffprobe", "curl"]
    engine = next(line for line in lines if line["kind"] == "engine")
    assert engine["version"] == worker.version
    assert engine["hooks"] > 50
    code, lines = ask(worker, "check", FACEFUSION_HOME=str(SOURCE.parent))
    assert code == 1
    assert lines[-1]["kind"] == "error"


def test_models_are_listed_and_nothing_is_fetched_where_no_host_answers(worker: Worker, tmp_path: Path) -> None:
    code, lines = ask(worker, "models", "--processors", "face_swapper", "face_enhancer")
    assert code == 0
    assert {"nsfw_1", "hyperswap_1a_256", "gfpgan_1.4"} <= {line["name"] for line in lines}
    assert all(line["state"] == "present" and line["bytes"] > 0 for line in lines)
    # Never the real hosts: a curl that finds none.
    curl = tmp_path / "curl"
    curl.write_text("#!/bin/sh\nexit 6\n")
    curl.chmod(curl.stat().st_mode | stat.S_IXUSR)
    model = worker.home.path / ".assets" / "models" / "gfpgan_1.4.onnx"
    aside = model.with_suffix(".aside")
    model.rename(aside)
    try:
        code, lines = ask(worker, "models", "--processors", "face_enhancer")
        assert code == 1
        assert next(line for line in lines if line["name"] == "gfpgan_1.4")["state"] == "missing"
        code, lines = ask(worker, "warm", "--processors", "face_enhancer", PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert code == 1
        assert [line["name"] for line in lines if line["kind"] == "failed"] == ["gfpgan_1.4"]
    finally:
        aside.rename(model)
    assert ask(worker, "warm", "--processors", "face_enhancer")[0] == 0


def test_what_is_missing_is_fetched_and_checked(worker: Worker, tmp_path: Path) -> None:
    """By the program's own download, from a host that is a folder."""
    models = worker.home.path / ".assets" / "models"
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    curl = tmp_path / "curl"
    # What the program asks of curl: the length of a file, or the file.
    curl.write_text(
        f"""#!/bin/sh
for last in "$@"; do :; done
for word in "$@"; do case "$word" in http*) url="$word";; esac; done
file="{shelf}/$(basename "$url")"
case " $* " in *" -I "*|*" --head "*) [ -f "$file" ] && echo "content-length: $(wc -c < "$file")"; exit 0;; esac
while [ $# -gt 0 ]; do case "$1" in -o|--output) out="$2"; shift;; esac; shift; done
cp "$file" "$out"
"""
    )
    curl.chmod(0o755)
    for suffix in (".onnx", ".hash"):
        (models / f"gfpgan_1.4{suffix}").rename(shelf / f"gfpgan_1.4{suffix}")
    code, lines = ask(worker, "warm", "--processors", "face_enhancer", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert code == 0, lines
    assert lines[-1] == {"kind": "done", "fetched": 1}
    assert any(line["kind"] == "progress" for line in lines)
    assert (models / "gfpgan_1.4.onnx").read_bytes() == (shelf / "gfpgan_1.4.onnx").read_bytes()


def test_a_short_trim_is_refused_by_the_command_line(commands: Worker, media: Media) -> None:
    assert commands.submit(media.video("long.mp4", 2.0), trim_frame_start=6, trim_frame_end=14).reason == "OPTION_INVALID"


def test_options_reach_the_command_line(commands: Worker, media: Media) -> None:
    plain, other = (
        commands.done(media.picture()),
        commands.done(media.picture(), face_swapper_model="inswapper_128", face_mask_types=["box", "region"]),
    )
    assert difference(pixels_of(plain.output), pixels_of(other.output)) > 0
