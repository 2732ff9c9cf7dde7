"""What a job becomes: done, refused, or failed with a reason, and never anything of the job before it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from program import OTHER_SOURCE, SOURCE, Home, Media, Worker, difference, ffmpeg, frames_of, has_sound, pixels_of
from synthetic_models import ODD

from facefusion_worker.vision import cv2

FACE = (slice(60, 300), slice(200, 440))
AROUND = (slice(None), slice(0, 120))


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


@pytest.mark.quick
def test_it_offers_what_the_program_offers(worker: Worker) -> None:
    options = worker.options()
    assert len(options) >= 82
    assert options["face_swapper_weight"] == {
        **options["face_swapper_weight"],
        "type": "OPTION_TYPE_NUMBER",
        "minimum": 0,
        "maximum": 1,
        "default": 0.5,
        "processor": "face_swapper",
    }
    sizes = {rule["value"]: rule["choices"] for rule in options["face_swapper_pixel_boost"]["dependent_choices"]}
    assert sizes["simswap_unofficial_512"] == ["512x512", "768x768", "1024x1024"]
    assert options["processors"]["list"]
    assert set(options["face_detector_angles"]["choices"]) == {"0", "90", "180", "270"}
    hidden = (
        "config_path",
        "temp_path",
        "jobs_path",
        "source_paths",
        "target_path",
        "output_path",
        "execution_providers",
        "download_providers",
        "log_level",
    )
    assert not set(hidden) & set(options)
    assert all(option.get("help") for option in options.values())
    assert "hyperswap_1a_256" in worker.ready["warm_models"]


@pytest.mark.quick
@pytest.mark.parametrize("output_format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("name", ["target.png", "target.jpg"])
def test_a_picture_is_swapped(worker: Worker, media: Media, name: str, output_format: str) -> None:
    outcome = worker.done(media.picture(name), output_format)
    assert outcome.body["media_type"] == "image/" + output_format.replace("jpg", "jpeg")
    before, after = media.pixels(), pixels_of(outcome.output)
    assert after.shape == before.shape
    assert difference(before[FACE], after[FACE]) > 15
    assert difference(before[AROUND], after[AROUND]) < 6
    assert outcome.output.read_bytes()[:3] == {"png": b"\x89PN", "jpg": b"\xff\xd8\xff", "webp": b"RIF"}[output_format]


@pytest.mark.quick
@pytest.mark.parametrize("strategy", ["memory", "disk"])
def test_a_video_is_swapped(worker: Worker, media: Media, strategy: str) -> None:
    target = media.video()
    outcome = worker.done(target, workflow_strategy=strategy, previews=True)
    assert (outcome.body["frames"], outcome.body["width"], outcome.body["height"]) == (30, 640, 360)
    assert has_sound(outcome.output)
    assert not outcome.warnings
    for before, after in zip(frames_of(target), frames_of(outcome.output), strict=True):
        assert difference(before[FACE], after[FACE]) > 12
        assert difference(before[AROUND], after[AROUND]) < 12
    percent = [message.get("percent", 0) for kind, message in outcome.messages if kind == "progress"]
    assert percent == sorted(percent)
    kinds = [message["step"] if kind == "progress" else kind for kind, message in outcome.messages]
    assert "STEP_ANALYSING" not in kinds[kinds.index("preview") :], "a preview before the analyser has had its say"
    assert any(
        message.get("frames_total") == 30 and message.get("frames_done", 0) > 0 for kind, message in outcome.messages if kind == "progress"
    )


@pytest.mark.quick
def test_refused_content_is_refused_and_nothing_is_shown(worker: Worker, media: Media) -> None:
    for target in (media.unfit(), media.colour_video("magenta", "magenta.mp4")):
        outcome = worker.submit(target, previews=True)
        assert outcome.body["outcome"] == "OUTCOME_REFUSED"
        assert outcome.reason == "CONTENT_REFUSED"
        assert not any(kind == "preview" for kind, _ in outcome.messages)
        assert "retryable" not in outcome.body
    worker.done(media.picture())


@pytest.mark.quick
def test_the_analyser_looks_again_where_a_path_has_new_content(worker: Worker, media: Media, tmp_path: Path) -> None:
    for extension, fit, unfit in (
        ("png", media.picture(), media.unfit()),
        ("mp4", media.video("short.mp4", 0.4), media.colour_video("magenta", "magenta.mp4")),
    ):
        target = tmp_path / f"same.{extension}"
        for content, kind in ((fit, "done"), (unfit, "failed"), (fit, "done")):
            shutil.copyfile(content, target)
            outcome = worker.submit(target)
            assert outcome.kind == kind
            assert outcome.reason == ("CONTENT_REFUSED" if kind == "failed" else "")


@pytest.mark.quick
def test_a_trim_that_no_sample_falls_into_is_looked_at(worker: Worker, media: Media, tmp_path: Path) -> None:
    # Fit but for the frames between two samples of the program's analyser.
    target = tmp_path / "hidden.mp4"
    ffmpeg(
        "-i",
        media.video("long.mp4", 2.0),
        "-vf",
        "drawbox=enable='between(n,5,15)':color=magenta:t=fill",
        "-c:v",
        "libx264",
        "-crf",
        "10",
        target,
    )
    assert worker.submit(target, trim_frame_start=6, trim_frame_end=14).reason == "CONTENT_REFUSED"
    assert worker.done(target, trim_frame_start=26, trim_frame_end=34).body["frames"] == 8


@pytest.mark.quick
def test_no_face_has_a_name(worker: Worker, media: Media) -> None:
    assert worker.submit(media.picture(), source=media.green()).reason == "NO_FACE_IN_SOURCE"
    assert worker.submit(media.green()).reason == "NO_FACE_IN_TARGET"
    assert worker.submit(media.colour_video("0x00ff00", "green.mp4", 0.4)).reason == "NO_FACE_IN_TARGET"
    assert worker.submit(media.picture(), source=None).reason == "SOURCE_MISSING"
    enhanced = worker.done(media.green(), processors=["face_enhancer"])
    assert enhanced.warnings == ["no face that was asked for was found in the target picture"]


@pytest.mark.quick
def test_a_model_that_is_not_right_is_named(worker: Worker, media: Media) -> None:
    folder = worker.home.path / ".assets" / "models"
    for kind, reason, retryable in (
        ("absent", "MODEL_MISSING", False),
        ("damaged", "MODEL_DAMAGED", False),
        ("broken", "MODEL_DAMAGED", False),
        ("greedy", "GPU_OUT_OF_MEMORY", True),
    ):
        outcome = worker.submit(media.picture(), face_swapper_model=ODD[kind])
        assert outcome.reason == reason
        assert outcome.body.get("retryable", False) == retryable
        if not retryable:
            assert ODD[kind] in outcome.body["message"]
            assert str(folder) not in outcome.body["message"]
    assert (folder / f"{ODD['damaged']}.onnx").exists(), "a job deleted a model"
    worker.done(media.picture())


@pytest.mark.quick
def test_with_little_memory_the_result_is_the_same_and_no_model_stays(worker: Worker, media: Media) -> None:
    for target in (media.picture(), media.video("short.mp4", 0.4)):
        plain, low = worker.done(target), worker.done(target, low_memory=True)
        assert low.output.read_bytes() == plain.output.read_bytes()
        assert any("ran out of memory" in message["message"] for kind, message in low.messages if kind == "log")
    job_id, *_ = worker.start(media.picture(), low_memory=True)
    idle = worker.wait_for("idle")
    assert idle["job_id"] == job_id
    assert not [name for name in idle.get("warm_models", []) if not name.startswith("nsfw")]
    assert "hyperswap_1a_256" in (worker.start(media.picture()), worker.wait_for("idle"))[1]["warm_models"]


@pytest.mark.quick
def test_options_that_cannot_be_are_refused(worker: Worker, media: Media) -> None:
    for parameters in (
        {"execution_providers": ["cpu"]},
        {"output_path": "/tmp/x.png"},
        {"face_swapper_weight": 7},
        {"face_swapper_model": "no_such"},
        {"face_swapper_pixel_boost": "256x256", "face_swapper_model": "simswap_unofficial_512"},
        {"processors": []},
        {"workflow_mode": "image-to-video"},
        {"no_such_option": 1},
    ):
        assert worker.submit(media.picture(), **parameters).reason == "OPTION_INVALID", parameters


@pytest.mark.quick
def test_a_job_is_the_same_after_any_other_and_in_a_fresh_process(worker: Worker, media: Media, tmp_path: Path) -> None:
    picture, video = media.picture(), media.video("short.mp4", 0.4)
    with Worker(worker.home, tmp_path) as fresh:
        first = fresh.done(picture).output.read_bytes()
        moving = fresh.done(video).output.read_bytes()
    others = [
        lambda: worker.submit(picture, source=OTHER_SOURCE, face_detector_model="scrfd", face_selector_mode="many", face_mask_blur=0.9),
        lambda: worker.submit(picture, face_detector_angles=[90], face_detector_score=0.9),
        lambda: worker.submit(video, processors=["face_swapper", "face_enhancer"], trim_frame_start=3, trim_frame_end=9),
        lambda: worker.submit(media.unfit()),
        lambda: worker.submit(picture, face_swapper_model=ODD["broken"]),
        lambda: (
            worker.submit(video, output_video_encoder="h264_nvenc")
            if "h264_nvenc" in worker.options()["output_video_encoder"]["choices"]
            else None
        ),
    ]
    for other in others:
        other()
        assert worker.done(picture).output.read_bytes() == first
    assert worker.done(video).output.read_bytes() == moving


@pytest.mark.quick
def test_a_worker_starts_only_on_real_models_and_a_whole_program(worker: Worker, checkout, models: Path, tmp_path: Path) -> None:
    def message_of(home: Path, **environment: str) -> str:
        with Worker(Home(home, worker.home.python), tmp_path, ready=False, **environment) as broken:
            assert broken.exit_code() == 70
            return broken.process.stderr.read().decode().strip().splitlines()[-1]

    assert "made for tests" in message_of(worker.home.path, FFJOBS_TEST_SYNTHETIC_MODELS="0")
    for module, line, expected in (
        ("process_manager.py", "del stop", "facefusion.process_manager.stop"),
        ("content_analyser.py", "# changed", "content analyser is not the released one"),
    ):
        home = tmp_path / module
        shutil.copytree(Path(checkout.home) / "facefusion", home / "facefusion")
        with (home / "facefusion" / module).open("a") as file:
            file.write("\n" + line + "\n")
        assert expected in message_of(home)
    assert "no FaceFusion checkout" in message_of(tmp_path)
    # On no machine of this kind.
    assert "The execution provider directml is not there; there are: " in message_of(
        worker.home.path, FACEFUSION_EXECUTION_PROVIDERS="directml"
    )


def test_two_sources_are_one_person_of_both(worker: Worker, media: Media) -> None:
    one, both = worker.done(media.picture()), worker.done(media.picture(), source=[SOURCE, OTHER_SOURCE])
    assert difference(pixels_of(one.output), pixels_of(both.output)) > 0


def test_transparency_is_kept(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "clear.png"
    alpha = np.full((360, 640, 1), 255, np.uint8)
    alpha[:, :100] = 0
    cv2.imwrite(str(target), np.dstack([media.pixels(), alpha]))
    after = pixels_of(worker.done(target).output)
    assert after.shape[2] == 4
    assert after[:, :90, 3].max() == 0
    assert after[:, 110:, 3].min() == 255
