"""Video as the world makes it: each kind ends in a right result, or in a word that says what is wrong with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from program import Media, Outcome, Worker, difference, ffmpeg, frames_of, has_sound

from facefusion_worker.vision import av


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


def seconds_of(path: Path) -> float:
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return times[-1] - times[0] + (times[-1] - times[0]) / (len(times) - 1)


def alike(outcome: Outcome, pairs: list[tuple[int, object]]) -> None:
    """Each of these frames of the result shows, beside the face, what it should."""
    found = frames_of(outcome.output)
    for number, expected in pairs:
        assert difference(found[number][:, :100], expected[:, :100]) < 14, number  # type: ignore[index]


def test_variable_rate(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "variable.mp4"
    ffmpeg("-i", media.video(), "-vf", "select='not(between(n,8,14))+eq(n,11)',setpts=PTS", "-fps_mode", "vfr", "-c:a", "copy", target)
    outcome = worker.done(target)
    assert seconds_of(outcome.output) == pytest.approx(1.2, abs=0.09)
    assert has_sound(outcome.output)
    assert any("made even" in message.get("message", "") for kind, message in outcome.messages if kind == "log")


def test_a_picture_that_starts_late(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "late.mkv"
    ffmpeg("-itsoffset", "0.5", "-i", media.video(), "-i", media.video(), "-map", "0:v", "-map", "1:a", "-c", "copy", target)
    outcome = worker.done(target, "mp4")
    assert outcome.body["duration_seconds"] == pytest.approx(1.7, abs=0.09)
    source = frames_of(media.video())
    alike(outcome, [(2, source[0]), (20, source[7])])


def test_sound_longer_than_the_picture(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "longer.mp4"
    ffmpeg("-i", media.video(), "-i", media.sound("long.wav", 4.0), "-map", "0:v", "-map", "1:a", "-c:v", "copy", target)
    outcome = worker.done(target)
    assert outcome.body["frames"] == 30
    assert has_sound(outcome.output)


@pytest.mark.parametrize("strategy", ["memory", "disk"])
@pytest.mark.parametrize(("rate", "frames"), [(10, 12), (50, 60)])
def test_another_rate(worker: Worker, media: Media, strategy: str, rate: int, frames: int) -> None:
    outcome = worker.done(media.video(), output_video_fps=rate, workflow_strategy=strategy)
    assert outcome.body["frames"] == pytest.approx(frames, abs=1)
    assert seconds_of(outcome.output) == pytest.approx(1.2, abs=0.11)
    source = frames_of(media.video())
    alike(outcome, [(0, source[0]), (frames // 2, source[15])])


@pytest.mark.parametrize("strategy", ["memory", "disk"])
def test_a_trim_shows_those_frames(worker: Worker, media: Media, strategy: str) -> None:
    outcome = worker.done(media.video(), trim_frame_start=12, trim_frame_end=27, workflow_strategy=strategy)
    assert outcome.body["frames"] == 15
    assert has_sound(outcome.output)
    source = frames_of(media.video())
    alike(outcome, [(0, source[12]), (14, source[26])])


def test_a_trim_of_a_variable_rate_shows_those_frames(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "variable.mp4"
    ffmpeg("-i", media.video(), "-vf", "select='not(between(n,8,14))+eq(n,11)',setpts=PTS", "-fps_mode", "vfr", "-c:a", "copy", target)
    outcome = worker.done(target, trim_frame_start=8, trim_frame_end=14)
    # Its frames 8 to 13 are 11 and 15 to 19 of what it was made of, each shown until the next.
    assert seconds_of(outcome.output) == pytest.approx(9 / 25, abs=0.09)
    source = frames_of(media.video())
    alike(outcome, [(0, source[11]), (-1, source[19])])


def test_a_trim_of_a_picture_that_starts_late_shows_those_frames(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "late.mkv"
    ffmpeg("-itsoffset", "0.5", "-i", media.video(), "-i", media.video(), "-map", "0:v", "-map", "1:a", "-c", "copy", target)
    outcome = worker.done(target, "mp4", trim_frame_start=10, trim_frame_end=20)
    assert outcome.body["frames"] == pytest.approx(10, abs=1)
    source = frames_of(media.video())
    alike(outcome, [(1, source[11]), (8, source[18])])


def test_lips_on_a_trim(worker: Worker, media: Media) -> None:
    outcome = worker.done(media.video(), source=[media.sound()], processors=["lip_syncer"], trim_frame_start=5, trim_frame_end=20)
    assert outcome.body["frames"] == 15
    assert has_sound(outcome.output)
    source = frames_of(media.video())
    alike(outcome, [(0, source[5]), (14, source[19])])


def test_a_trim_outside_is_said(worker: Worker, media: Media) -> None:
    assert worker.submit(media.video(), trim_frame_start=500).reason == "OPTION_INVALID"
    outcome = worker.done(media.video(), trim_frame_end=500)
    assert outcome.body["frames"] == 30
    assert outcome.warnings == ["trim_frame_end is 500, but the target video has 30 frames"]


def test_a_telephone_held_upright(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "turned.mp4"
    ffmpeg("-i", media.video("small.mp4", 0.6), "-c", "copy", "-metadata:s:v:0", "rotate=90", target)
    outcome = worker.done(target)
    assert (outcome.body["width"], outcome.body["height"]) == (360, 640)
    assert frames_of(outcome.output)[0].shape == (640, 360, 3)


@pytest.mark.parametrize("output_format", ["mp4", "mov", "webm"])
@pytest.mark.parametrize("container", ["mp4", "mkv", "webm", "avi"])
def test_from_any_container_to_any(worker: Worker, media: Media, container: str, output_format: str) -> None:
    outcome = worker.done(media.video(f"short.{container}", 0.4), output_format)
    assert outcome.body["frames"] == 10
    assert has_sound(outcome.output)
    assert not outcome.warnings


@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001", "0.5", "60", "12.5"])
def test_rates_that_are_no_whole_number(worker: Worker, media: Media, rate: str) -> None:
    top, _, bottom = rate.partition("/")
    number = float(top) / float(bottom or 1)
    target = media.video(f"rate_{top}.mp4", max(0.5, 3 / number), rate, False)
    outcome = worker.done(target)
    assert seconds_of(outcome.output) == pytest.approx(len(frames_of(target)) / number, rel=0.05)


def test_an_odd_size(worker: Worker, media: Media, tmp_path: Path) -> None:
    target = tmp_path / "odd.mp4"
    ffmpeg("-i", media.video("small.mp4", 0.6), "-vf", "crop=455:257", "-pix_fmt", "yuv444p", target)
    outcome = worker.done(target)
    assert abs(outcome.body["width"] - 455) <= 1
    assert abs(outcome.body["height"] - 257) <= 1


@pytest.mark.quick
def test_no_sound_is_no_warning(worker: Worker, media: Media) -> None:
    outcome = worker.done(media.video("silent.mp4", 0.4, "25", False))
    assert not outcome.warnings
    assert not has_sound(outcome.output)
    assert not has_sound(worker.done(media.video("short.mp4", 0.4), output_audio_volume=0).output)


def test_sound_that_does_not_fit_is_told(worker: Worker, media: Media) -> None:
    outcome = worker.done(media.video("short.mp4", 0.4), output_audio_encoder="flac")
    assert outcome.warnings == ["output_audio_encoder flac does not fit mp4: aac is used"]
    assert has_sound(outcome.output)


@pytest.mark.quick
def test_a_file_that_is_not_whole(worker: Worker, media: Media, tmp_path: Path) -> None:
    whole = media.video("long.mp4", 2.0)
    fast = tmp_path / "fast.mp4"
    ffmpeg("-i", whole, "-c", "copy", "-movflags", "+faststart", fast)
    data = fast.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    assert worker.submit(cut).reason == "INPUT_NOT_READABLE"
    headless = tmp_path / "headless.mp4"
    headless.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert worker.submit(headless).reason == "INPUT_NOT_READABLE"


@pytest.mark.parametrize("strategy", [pytest.param("memory", marks=pytest.mark.quick), "disk"])
def test_a_damaged_video_is_right_or_refused(worker: Worker, media: Media, tmp_path: Path, strategy: str) -> None:
    data = bytearray(media.video("long.mp4", 2.0).read_bytes())
    for place in range(len(data) // 3, len(data) // 2, 97):
        data[place] ^= 0xFF
    target = tmp_path / "damaged.mp4"
    target.write_bytes(bytes(data))
    outcome = worker.submit(target, workflow_strategy=strategy)
    if outcome.kind == "done":
        assert outcome.body["frames"] == 50
        assert len(frames_of(outcome.output)) == 50
    else:
        assert outcome.reason == "INPUT_NOT_READABLE", outcome.body
    worker.done(media.picture())


@pytest.mark.quick
def test_a_list_of_files_under_a_videos_name_is_not_followed(worker: Worker, media: Media, tmp_path: Path) -> None:
    secret = media.video()
    playlist = tmp_path / "innocent.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1.2,\n{secret}\n#EXT-X-ENDLIST\n")
    assert worker.submit(playlist).reason == "INPUT_NOT_READABLE"
    sound = tmp_path / "voice.wav"
    sound.write_text(playlist.read_text())
    assert worker.submit(secret, source=[sound], processors=["lip_syncer"]).reason == "INPUT_NOT_READABLE"


@pytest.mark.quick
def test_kinds_that_are_mixed_up(worker: Worker, media: Media, tmp_path: Path) -> None:
    named = tmp_path / "picture.mp4"
    named.write_bytes(media.picture().read_bytes())
    assert worker.submit(named).reason == "INPUT_WRONG_KIND"
    moving = tmp_path / "video.png"
    moving.write_bytes(media.video().read_bytes())
    assert worker.submit(moving).reason == "INPUT_WRONG_KIND"
    assert worker.submit(media.picture(), source=media.video()).reason == "INPUT_WRONG_KIND"
    broken = tmp_path / "broken.png"
    broken.write_bytes(media.picture().read_bytes()[:2000])
    assert worker.submit(broken).reason in ("INPUT_NOT_READABLE", "NO_FACE_IN_TARGET")


def test_pictures_as_cameras_and_scanners_make_them(worker: Worker, media: Media, tmp_path: Path) -> None:
    plain = media.picture("target.jpg")
    for name, options in {
        "grey.png": ("-pix_fmt", "gray"),
        "grey.jpg": ("-pix_fmt", "gray"),
        "deep.png": ("-pix_fmt", "rgb48be"),
        "palette.png": ("-pix_fmt", "pal8"),
        "other.bmp": (),
        "other.webp": (),
    }.items():
        target = tmp_path / name
        ffmpeg("-i", plain, *options, target)
        outcome = worker.done(target, "jpg")
        assert (outcome.body["width"], outcome.body["height"]) == (640, 360), name
    # Turned by EXIF: a quarter, as a telephone says it.
    data = plain.read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    outcome = worker.done(turned)
    assert (outcome.body["width"], outcome.body["height"]) == (360, 640)


def test_ffmpeg_that_complains_at_length_holds_nobody_up(worker: Worker, media: Media, tmp_path: Path) -> None:
    """Its complaints go into a pipe that the program does not empty."""
    target = tmp_path / "noisy.avi"
    ffmpeg("-i", media.video("long.mp4", 2.0), "-c:v", "mpeg4", "-an", target)
    data = bytearray(target.read_bytes())
    for place in range(8000, len(data) - 8000, 61):
        data[place] ^= 0x55
    target.write_bytes(bytes(data))
    noise = subprocess.run(["ffmpeg", "-loglevel", "error", "-i", target, "-f", "null", "-"], capture_output=True, check=False).stderr
    assert len(noise) > 10_000
    assert worker.submit(target, "mp4", workflow_strategy="disk").kind in ("done", "failed")
