"""The pictures of a video as one archive: release 4 writes them, 3.8 says that it does not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from program import SOURCE, Media, Outcome, Worker, difference, frames_of
from test_jobs import FACE

from facefusion_worker.vision import cv2


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def writer(worker: Worker) -> Worker:
    if "zip" not in worker.ready["capabilities"]["video_formats"]:
        pytest.skip("machine: this release of FaceFusion writes no frames")
    return worker


def pictures_of(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        read = {name: np.frombuffer(archive.read(name), np.uint8) for name in archive.namelist()}
    return {name: cv2.imdecode(data, cv2.IMREAD_UNCHANGED) for name, data in read.items()}


@pytest.mark.quick
def test_a_release_without_that_mode_says_so(worker: Worker, media: Media) -> None:
    offered = "zip" in worker.ready["capabilities"]["video_formats"]
    assert offered == (not worker.version.startswith("3.8"))
    assert ("image-to-video:frames" in worker.options()["workflow_mode"]["choices"]) == offered
    if not offered:
        outcome = worker.submit(media.video("short.mp4", 0.4), "zip")
        assert (outcome.reason, outcome.body["message"]) == (
            "OUTPUT_FORMAT_INVALID",
            f"FaceFusion {worker.version} writes no frames; the result can be: mp4, webm, mov.",
        )


@pytest.mark.quick
def test_the_frames_of_a_video(writer: Worker, media: Media) -> None:
    target = media.video("short.mp4", 0.4)
    outcome = writer.done(target, "zip", previews=True)
    assert outcome.body["media_type"] == "application/zip"
    assert (outcome.body["frames"], outcome.body["width"], outcome.body["height"]) == (10, 640, 360)
    assert outcome.body["duration_seconds"] == pytest.approx(0.4)
    assert not outcome.warnings
    pictures = pictures_of(outcome.output)
    assert list(pictures) == [f"{number:08}.png" for number in range(10)]
    for before, after in zip(frames_of(target), pictures.values(), strict=True):
        assert difference(before[FACE], after[FACE]) > 12
        assert difference(before[:, :100], after[:, :100]) < 6
    steps = ["LOADING_MODELS", "ANALYSING", "EXTRACTING_FRAMES", "PROCESSING", "ENCODING_OUTPUT"]
    assert outcome.steps == [f"STEP_{step}" for step in steps]
    assert writer.done(target, "zip", workflow_mode="image-to-video:frames").output.read_bytes() == outcome.output.read_bytes()


@pytest.mark.parametrize(("temp_frame_format", "extension"), [("jpeg", "jpeg"), ("bmp", "bmp"), ("tiff", "tiff")])
def test_in_the_format_that_the_job_names(writer: Worker, media: Media, temp_frame_format: str, extension: str) -> None:
    outcome = writer.done(media.video("short.mp4", 0.4), "zip", temp_frame_format=temp_frame_format)
    assert {name.partition(".")[2] for name in pictures_of(outcome.output)} == {extension}


def test_those_of_a_trim_keep_their_numbers(writer: Worker, media: Media) -> None:
    outcome = writer.done(media.video(), "zip", trim_frame_start=12, trim_frame_end=27)
    pictures = pictures_of(outcome.output)
    assert list(pictures) == [f"{number:08}.png" for number in range(12, 27)]
    source = frames_of(media.video())
    for number in (12, 26):
        assert difference(source[number][:, :100], pictures[f"{number:08}.png"][:, :100]) < 6


def test_scales_and_rates_of_frames(writer: Worker, media: Media) -> None:
    video = media.video("short.mp4", 0.4)
    smaller = writer.done(video, "zip", output_video_scale=0.5)
    assert next(iter(pictures_of(smaller.output).values())).shape[:2] == (180, 320)
    fewer = writer.done(video, "zip", output_video_fps=10)
    assert fewer.body["frames"] == len(pictures_of(fewer.output)) == 4
    larger = writer.done(video, "zip", output_video_scale=2.0, output_video_fps=50)
    assert (larger.body["frames"], larger.body["width"]) == (10, 640)
    assert sorted(larger.warnings) == [
        "an output scale above 1 has no effect on frames: frame_enhancer makes them larger",
        "output_video_fps has no effect on frames above the rate of the target video",
    ]
    enhanced = writer.done(video, "zip", processors=["frame_enhancer"], frame_enhancer_model="real_esrgan_x2")
    assert (enhanced.body["width"], enhanced.body["height"]) == (1280, 720)
    cut = writer.done(video, "zip", processors=["background_remover"])
    assert next(iter(pictures_of(cut.output).values())).shape == (360, 640, 4)


def test_the_frames_of_a_picture_that_speaks(writer: Worker, media: Media) -> None:
    outcome = writer.done(media.picture(), "zip", source=[media.sound()], processors=["lip_syncer"])
    assert outcome.body["frames"] == len(pictures_of(outcome.output)) == pytest.approx(1.5 * 25, abs=1)
    slower = writer.done(media.picture(), "zip", source=[media.sound()], processors=["lip_syncer"], output_audio_fps=10)
    assert slower.body["frames"] == pytest.approx(15, abs=1)
    assert slower.body["duration_seconds"] == pytest.approx(1.5, abs=0.1)


def test_what_cannot_be_is_refused(writer: Worker, media: Media) -> None:
    video = media.video("short.mp4", 0.4)
    mode = writer.submit(video, "mp4", workflow_mode="image-to-video:frames")
    assert mode.reason == "OPTION_INVALID"
    assert "with output_format zip image-to-video:frames does" in mode.body["message"]
    assert writer.submit(video, "zip", workflow_mode="image-to-video").reason == "OPTION_INVALID"
    assert writer.submit(media.picture(), "zip").reason == "SOURCE_MISSING"
    silent = writer.submit(video, "zip", source=[SOURCE, media.sound()], processors=["lip_syncer"])
    assert (silent.reason, "moves no lips in frames" in silent.body["message"]) == ("OPTION_INVALID", True)
    packed = writer.done(video, "zip").output
    for name in ("frames.png", "frames.mp4"):
        target = packed.with_name(name)
        packed.rename(target)
        packed = target
        assert writer.submit(target, "png" if name.endswith("png") else "mp4").reason == "INPUT_NOT_READABLE"


@pytest.mark.quick
def test_the_analyser_looks_at_them_too(writer: Worker, media: Media) -> None:
    outcome = writer.submit(media.colour_video("magenta", "magenta.mp4"), "zip", previews=True)
    assert outcome.body["outcome"] == "OUTCOME_REFUSED"
    assert not any(kind == "preview" for kind, _ in outcome.messages)
    assert writer.submit(media.unfit(), "zip", source=[media.sound()], processors=["lip_syncer"]).reason == "CONTENT_REFUSED"
    assert writer.submit(media.colour_video("0x00ff00", "green.mp4", 0.4), "zip").reason == "NO_FACE_IN_TARGET"


@pytest.mark.parametrize("step", ["STEP_ANALYSING", "STEP_EXTRACTING_FRAMES", "STEP_PROCESSING", "STEP_ENCODING_OUTPUT"])
def test_a_cancel_leaves_none_of_them(writer: Worker, media: Media, step: str) -> None:
    outcome: Outcome
    outcome, _ = writer.cancel_when(lambda message: message[1].get("step") == step, media.video("long.mp4", 4.0), "zip")
    assert outcome.body["outcome"] == "OUTCOME_CANCELED"
    assert not writer.children()


def test_by_the_command_line(writer: Worker, commands: Worker, media: Media) -> None:
    video = media.video()
    outcome = commands.done(video, "zip", trim_frame_start=2)
    assert outcome.output.read_bytes() == writer.done(video, "zip", trim_frame_start=2).output.read_bytes()
    assert commands.submit(media.colour_video("magenta", "magenta.mp4"), "zip").body["outcome"] == "OUTCOME_REFUSED"
    with zipfile.ZipFile(io.BytesIO(outcome.output.read_bytes())) as archive:
        assert archive.namelist()[0] == "00000002.png"
