"""Every processor, and every option at a value that is not its default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from program import Media, Worker, difference, frames_of, has_sound, pixels_of

# What shows that each has done something; those with models that stand in for none are left out.
PROCESSORS: dict[str, dict[str, Any]] = {
    "age_modifier": {"age_modifier_direction": 80},
    "background_remover": {},
    "deep_swapper": {},
    "expression_restorer": {},
    "face_debugger": {},
    "face_editor": {"face_editor_mouth_smile": 1.0, "face_editor_head_yaw": 0.5},
    "face_enhancer": {},
    "face_swapper": {},
    "frame_colorizer": {},
    "frame_enhancer": {"frame_enhancer_model": "real_esrgan_x2", "frame_enhancer_blend": 100},
    "lip_syncer": {},
}
# Whose tests stand elsewhere, or whose values must fit the files.
ELSEWHERE = {"processors", "trim_frame_start", "trim_frame_end", "workflow_mode", "workflow_strategy", "output_video_fps"}
MODELS = {
    "face_swapper_model": "inswapper_128",
    "age_modifier_model": "styleganex_age",
    "background_remover_model": "u2net_general",
    "lip_syncer_model": "wav2lip_96",
    "deep_swapper_model": "iperov/elon_musk_224",
    "face_enhancer_model": "codeformer",
}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


def sources(media: Media, processor: str, speaks: bool) -> Any:
    from program import SOURCE

    return [SOURCE, media.sound()] if processor == "lip_syncer" and speaks else SOURCE


@pytest.mark.parametrize("processor", PROCESSORS)
def test_on_a_picture(worker: Worker, media: Media, processor: str) -> None:
    if processor == "lip_syncer" and not worker.version.startswith("3.8"):
        silent = worker.submit(media.picture(), source=sources(media, processor, True), processors=[processor])
        assert silent.reason == "OUTPUT_FORMAT_INVALID"
        return
    outcome = worker.done(media.picture(), source=sources(media, processor, True), processors=[processor], **PROCESSORS[processor])
    after = pixels_of(outcome.output)
    assert after.shape[:2] == (360, 640)
    assert outcome.warnings == (["the source audio has no effect on a picture"] if processor == "lip_syncer" else [])
    # One gives a face back what it has; one has nothing to move lips by.
    if processor not in ("expression_restorer", "lip_syncer"):
        assert difference(media.pixels(), after[:, :, :3]) > 0.1 or after.shape[2] == 4


@pytest.mark.parametrize("strategy", ["memory", "disk"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_on_a_video(worker: Worker, media: Media, processor: str, strategy: str) -> None:
    target = media.video("short.mp4", 0.4)
    outcome = worker.done(
        target, source=sources(media, processor, True), processors=[processor], workflow_strategy=strategy, **PROCESSORS[processor]
    )
    assert outcome.body["frames"] == 10
    assert (outcome.body["width"], outcome.body["height"]) == (640, 360)
    for before, after in zip(frames_of(target), frames_of(outcome.output), strict=True):
        assert difference(before[:, :100], after[:, :100]) < (255 if processor in ("background_remover", "frame_colorizer") else 16)
    assert has_sound(outcome.output)


def test_several_in_a_row(worker: Worker, media: Media) -> None:
    outcome = worker.done(media.video("short.mp4", 0.4), processors=["face_swapper", "face_enhancer", "frame_enhancer", "face_debugger"])
    assert outcome.body["frames"] == 10


def another(option: dict[str, Any], options: dict[str, dict[str, Any]]) -> Any:
    """A value of the option that is not its default."""
    name, default = option["name"], option.get("default")
    if name in MODELS:
        return MODELS[name]
    single = default[0] if isinstance(default, list) and default else default
    if option.get("dependent_choices"):
        rule = next(rule for rule in option["dependent_choices"] if rule["value"] == options[rule["option"]]["default"])
        value: Any = rule["choices"][-1]
    elif option.get("choices"):
        value = next((choice for choice in option["choices"] if choice != str(single)), option["choices"][0])
    elif "maximum" in option:
        value = option["maximum"] if option["maximum"] != single and not name.endswith("_scale") else option["minimum"]
    else:
        value = (single or 0) + 1
    if option["type"] == "OPTION_TYPE_INTEGER":
        value = int(value)
    return [value] if option.get("list") else value


def test_each_option_is_followed(worker: Worker, media: Media) -> None:
    """Those of one processor with it; those of frames and sound with a video. Each in a job of its own."""
    options = worker.options()
    tried = 0
    failures = []
    for name, option in options.items():
        if name in ELSEWHERE:
            continue
        processor = option.get("processor") or ("lip_syncer" if name.startswith("voice_") else "face_swapper")
        moving = processor == "lip_syncer" or name.startswith(("output_video", "output_audio", "temp_", "target_frame"))
        value = another(option, options)
        choices = (
            [value] if name != "output_video_encoder" else [one for one in option["choices"] if one.startswith("lib") or one == "rawvideo"]
        )
        for choice in choices:
            outcome = worker.submit(
                media.video("short.mp4", 0.4) if moving else media.picture(),
                source=sources(media, processor, moving),
                processors=[processor],
                **{name: choice},
            )
            tried += 1
            # A person who is not there, and a face that is not sure enough, are answers too.
            if outcome.kind != "done" and outcome.reason not in ("NO_FACE_IN_TARGET", "NO_FACE_IN_SOURCE"):
                failures.append((name, choice, outcome.body))
    assert not failures
    assert tried > 70


def test_the_operators_caps_hold(worker: Worker, media: Media, tmp_path: Path) -> None:
    limits = {"output_image_scale": 2, "output_video_scale": 1.5, "output_video_fps": 30, "processors": 1, "enhanced_megapixels": 1}
    with Worker(worker.home, tmp_path, FFJOBS_OPTION_LIMITS=json.dumps(limits)) as one:
        options = one.options()
        assert {name: options[name]["maximum"] for name in list(limits)[:3]} == dict(list(limits.items())[:3])
        for target, parameters in (
            (media.picture(), {"output_image_scale": 2.5}),
            (media.video("short.mp4", 0.4), {"output_video_scale": 2}),
            (media.video("short.mp4", 0.4), {"output_video_fps": 31}),
            (media.picture(), {"processors": ["face_swapper", "face_enhancer"]}),
        ):
            assert one.submit(target, **parameters).reason == "OPTION_INVALID", parameters
        large = one.submit(media.picture(), processors=["frame_enhancer"], frame_enhancer_model="real_esrgan_x4")
        assert large.reason == "OUTPUT_TOO_LARGE"
        assert one.done(media.picture(), output_image_scale=2).body["width"] == 1280


def test_nothing_that_costs_without_end_is_without_a_cap(worker: Worker) -> None:
    """What a number is bound by, where no cap bounds it: the frames and faces of the target."""
    endless = {name for name, option in worker.options().items() if option["type"] != "OPTION_TYPE_STRING" and "maximum" not in option}
    numbers = {
        name for name in endless if worker.options()[name]["type"] != "OPTION_TYPE_BOOLEAN" and not worker.options()[name].get("choices")
    }
    assert numbers <= {"reference_face_position", "reference_frame_number", "trim_frame_start", "trim_frame_end"}


def test_each_sound_encoder_fits_or_is_told(worker: Worker, media: Media) -> None:
    for output_format in ("mp4", "mov"):
        for encoder in worker.options()["output_audio_encoder"]["choices"]:
            outcome = worker.done(media.video("short.mp4", 0.4), output_format, output_audio_encoder=encoder)
            assert has_sound(outcome.output), (output_format, encoder, outcome.warnings)


def test_a_value_between_two_steps_is_the_nearest(worker: Worker, media: Media) -> None:
    between = worker.done(media.picture(), face_swapper_weight=0.33).output.read_bytes()
    assert between == worker.done(media.picture(), face_swapper_weight=0.35).output.read_bytes()
    assert between != worker.done(media.picture(), face_swapper_weight=0.3).output.read_bytes()


def test_sound_of_a_video_moves_lips(worker: Worker, media: Media, tmp_path: Path) -> None:
    sound = tmp_path / "speech.m4a"
    sound.write_bytes(media.video().read_bytes())  # sound and picture, under a name of sound
    outcome = worker.done(media.video("short.mp4", 0.4), source=[sound], processors=["lip_syncer"])
    assert has_sound(outcome.output)


def test_a_picture_that_speaks(worker: Worker, media: Media) -> None:
    outcome = worker.submit(media.picture(), "mp4", source=[media.sound()], processors=["lip_syncer"])
    if worker.version.startswith("3.8"):
        assert outcome.reason == "OUTPUT_FORMAT_INVALID"
    else:
        assert outcome.kind == "done", outcome.body
        assert outcome.body["duration_seconds"] == pytest.approx(1.5, abs=0.2)
        assert has_sound(outcome.output)
        counted = [message for kind, message in outcome.messages if kind == "progress" and message.get("frames_done", 0) > 1]
        assert counted
        assert all(message["frames_total"] == pytest.approx(1.5 * 25, abs=1) for message in counted)
        past = worker.submit(media.picture(), "mp4", source=[media.sound()], processors=["lip_syncer"], trim_frame_start=500)
        assert (past.reason, past.body["message"]) == ("OPTION_INVALID", "The trim leaves nothing of the source audio.")
        short = worker.done(media.picture(), "mp4", source=[media.sound()], processors=["lip_syncer"], trim_frame_end=10)
        assert short.body["frames"] == pytest.approx(10, abs=1)
