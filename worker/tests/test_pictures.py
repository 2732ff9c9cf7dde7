"""Pictures through the classical engine: what a person would look at, measured."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
from media import Recorder, aligned, make_video, numbered, picture, skin_tone, structure_likeness

from facefusion_worker.engine import EngineError
from facefusion_worker.faces import ordered
from facefusion_worker.vision import cv2


def outside(face, shape, grow=0.35):
    left, top, right, bottom = face.box
    mask = np.ones(shape[:2], bool)
    x, y = (right - left) * grow / 2, (bottom - top) * grow / 2
    mask[max(0, int(top - y)) : int(bottom + y), max(0, int(left - x)) : int(right + x)] = False
    return mask


@pytest.fixture
def pair(collins, hopper, tmp_path):
    """Both portraits side by side: Collins (smaller) on the left."""
    left, right = picture(collins), picture(hopper)[:512]
    path = tmp_path / "pair.png"
    cv2.imwrite(str(path), np.hstack([left, right]))
    return path


@pytest.mark.parametrize("direction", ["collins_to_hopper", "hopper_to_collins"])
def test_a_swap_shows_the_source_s_face_in_the_target_s_light(run, finder, collins, hopper, direction):
    source, target = (collins, hopper) if direction == "collins_to_hopper" else (hopper, collins)
    result, output, _ = run(target, "png", sources=(source,))
    before, after, origin = picture(target), picture(output), picture(source)
    face, source_face = finder.find(before)[0], finder.find(origin)[0]
    assert (result.width, result.height, result.frames) == (before.shape[1], before.shape[0], 1)
    away = outside(face, before.shape)
    assert away.mean() > 0.5
    assert np.array_equal(before[away], after[away])
    was, now, wanted = aligned(before, face), aligned(after, face), aligned(origin, source_face)
    assert structure_likeness(now, wanted) > 0.8
    assert structure_likeness(now, was) < structure_likeness(now, wanted) - 0.2
    # The skin keeps the target's tone, though the two differ.
    assert np.abs(skin_tone(was) - skin_tone(wanted)).max() > 8
    assert np.abs(skin_tone(now) - skin_tone(was)).max() < 8
    # No pixel is much brighter than anything that was there before: nothing is burnt out by the blend.
    assert np.percentile(now, 99) <= max(np.percentile(was, 99.5), np.percentile(wanted, 99.5)) + 5
    # Where the face was found, one is found again.
    again = finder.find(after)[0]
    assert np.hypot(*(again.landmarks.mean(axis=0) - face.landmarks.mean(axis=0))) < 0.15 * face.eye_distance


def test_a_lower_weight_lets_the_target_through(run, finder, collins, hopper):
    likeness = []
    face = finder.find(picture(hopper))[0]
    for weight in (0.0, 0.5):
        _, output, _ = run(hopper, "png", face_swapper_weight=weight)
        likeness.append(structure_likeness(aligned(picture(output), face), aligned(picture(hopper), face)))
    assert likeness[0] > likeness[1] + 0.1


def test_of_several_source_pictures_the_clearest_face_is_taken(run, collins, hopper, tmp_path):
    blank, small = tmp_path / "blank.png", tmp_path / "small.png"
    cv2.imwrite(str(blank), np.full((200, 200, 3), 128, np.uint8))
    cv2.imwrite(str(small), cv2.resize(picture(hopper), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    _, one, _ = run(hopper, "png", sources=(collins,))
    expected = picture(one)
    _, three, report = run(hopper, "png", sources=(blank, small, collins))
    assert np.array_equal(picture(three), expected)
    assert report.logs == ["no face in source picture 1"]


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"face_selector_mode": "many"}, (True, True)),
        ({"face_selector_mode": "one"}, (False, True)),
        ({"face_selector_mode": "one", "face_selector_order": "left-right"}, (True, False)),
        ({"face_selector_mode": "one", "face_selector_order": "small-large"}, (True, False)),
        ({"face_selector_mode": "reference", "reference_face_position": 1}, (True, False)),
        ({"reference_face_position": 1, "face_selector_order": "left-right"}, (False, True)),
        ({"reference_face_position": 0, "face_selector_order": "right-left"}, (False, True)),
    ],
)
def test_the_selector_s_words_mean_what_faces_it_changes(run, pair, hopper, tmp_path, options, changed):
    before = picture(pair)
    third = tmp_path / "third.png"  # neither of the two: a face on its own place changes little
    cv2.imwrite(str(third), cv2.flip(picture(hopper), 1))
    _, output, _ = run(pair, "png", sources=(third,), **options)
    difference = np.abs(picture(output).astype(int) - before).max(axis=2) > 8
    assert (difference[:, :512].sum() > 500, difference[:, 512:].sum() > 500) == changed


def test_orders_are_those_of_facefusion(finder, pair):
    faces = finder.find(picture(pair))
    assert len(faces) == 2
    for order, reverse in (
        ("left-right", "right-left"),
        ("top-bottom", "bottom-top"),
        ("small-large", "large-small"),
        ("worst-best", "best-worst"),
    ):
        assert ordered(faces, order) == ordered(faces, reverse)[::-1]
    assert ordered(faces, "left-right")[0].box[0] < ordered(faces, "left-right")[1].box[0]


@pytest.mark.parametrize("extension", ["jpg", "png", "webp"])
def test_every_format_is_written_as_itself(run, collins, extension):
    result, output, report = run(collins, extension, processors=["face_enhancer"])
    head = output.read_bytes()[:12]
    assert {"jpg": head[:3] == b"\xff\xd8\xff", "png": head[:4] == b"\x89PNG", "webp": head[8:] == b"WEBP"}[extension]
    assert result.media_type == {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}[extension]
    assert picture(output).shape == (512, 512, 3)
    assert [step.name for step in report.steps] == ["STEP_ANALYSING", "STEP_PROCESSING", "STEP_ENCODING_OUTPUT"]


def test_quality_and_scale_are_followed(run, collins):
    sizes = []
    for quality in (20, 95):
        _, output, _ = run(collins, "jpg", processors=["face_enhancer"], output_image_quality=quality)
        sizes.append(os.path.getsize(output))
    assert sizes[0] * 2 < sizes[1]
    result, output, _ = run(collins, "png", processors=["face_enhancer"], output_image_scale=0.5)
    assert picture(output).shape[:2] == (256, 256) == (result.height, result.width)


def test_frame_enhancer_doubles_the_size_and_keeps_the_picture(run, collins):
    before = picture(collins)
    _, output, _ = run(collins, "png", processors=["frame_enhancer"], sources=())
    after = picture(output)
    assert after.shape == (1024, 1024, 3)
    back = cv2.resize(after, (512, 512), interpolation=cv2.INTER_AREA)
    assert np.abs(back.astype(int) - before).mean() < 4
    plain = cv2.resize(before, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    assert cv2.Laplacian(after, cv2.CV_32F).var() > 1.2 * cv2.Laplacian(plain, cv2.CV_32F).var()


def test_processors_work_together_in_the_order_given(run, finder, collins, hopper):
    face = finder.find(picture(collins))[0].scaled(2)
    results = []
    for order in (["face_swapper", "frame_enhancer"], ["frame_enhancer", "face_swapper"]):
        _, output, _ = run(collins, "png", sources=(hopper,), processors=order)
        results.append(picture(output))
        assert structure_likeness(aligned(results[-1], face), aligned(picture(hopper), finder.find(picture(hopper))[0])) > 0.6
    assert not np.array_equal(*results)


def test_face_enhancer_changes_the_face_only_and_by_its_blend(run, finder, collins):
    before = picture(collins)
    changes = []
    for blend in (0, 40, 100):
        _, output, _ = run(collins, "png", processors=["face_enhancer"], sources=(), face_enhancer_blend=blend)
        after = picture(output)
        away = outside(finder.find(before)[0], before.shape)
        assert np.array_equal(after[away], before[away])
        changes.append(np.abs(after.astype(int) - before).sum())
    assert changes[0] == 0 < changes[1] < changes[2]


def test_face_debugger_draws_where_the_eyes_are(run, finder, collins):
    before = picture(collins)
    face = finder.find(before)[0]
    _, output, _ = run(collins, "png", processors=["face_debugger"], sources=(), face_debugger_items=["face-landmark-5"])
    for x, y in face.landmarks.round().astype(int):
        assert picture(output)[y, x].tolist() == [0, 255, 0]


def test_a_turned_jpeg_is_taken_upright(run, collins, tmp_path):
    jpeg = cv2.imencode(".jpg", cv2.rotate(picture(collins)[:400], cv2.ROTATE_90_COUNTERCLOCKWISE))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6: turn clockwise to see it
    segment = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:])
    result, output, _ = run(path, "png", processors=["face_enhancer"], face_enhancer_blend=0)
    assert (result.width, result.height) == (512, 400)
    assert np.abs(picture(output).astype(int) - picture(collins)[:400]).mean() < 6


@pytest.mark.parametrize("kind", ["grey", "sixteen", "alpha"])
def test_pictures_of_other_depths_work(run, collins, tmp_path, kind):
    colour = picture(collins)
    path = tmp_path / "in.png"
    alpha = np.full(colour.shape[:2], 255, np.uint8)
    alpha[:40] = 0
    data = {
        "grey": cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY),
        "sixteen": colour.astype(np.uint16) * 257,
        "alpha": np.dstack([colour, alpha]),
    }[kind]
    cv2.imwrite(str(path), data)
    _, output, _ = run(path, "png", sources=(collins,))
    again = cv2.imread(str(output), cv2.IMREAD_UNCHANGED)
    assert again.shape[2] == (4 if kind == "alpha" else 3)
    if kind == "alpha":
        assert np.array_equal(again[..., 3], alpha)
        _, flat, _ = run(path, "jpg", sources=(collins,))
        assert picture(flat)[:30].min() > 240  # on white


def test_a_preview_is_small_and_only_made_when_wanted(run, hopper):
    report = Recorder(previews=True)
    run(hopper, "jpg", processors=["face_enhancer"], report=report)
    shown = cv2.imdecode(np.frombuffer(report.previews[0], np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape[1] == 320


def png_header(width: int, height: int) -> bytes:
    import zlib

    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_what_cannot_be_worked_on_has_a_name(run, collins, hopper, tmp_path):
    wall = np.full((300, 300, 3), 128, np.uint8)
    files = {
        "empty.png": b"",
        "text.jpg": b"hello, this is no picture at all\n" * 10,
        "cut.jpg": collins.read_bytes()[:200],
        "half.jpg": collins.read_bytes()[:40_000],
        "half.png": cv2.imencode(".png", picture(collins))[1].tobytes()[:100_000],
        "half.webp": cv2.imencode(".webp", picture(collins))[1].tobytes()[:9_000],
        "bomb.png": png_header(30_000, 30_000),
        "video.png": make_video(tmp_path / "v.mp4", numbered(3)).read_bytes(),
        "wall.png": cv2.imencode(".png", wall)[1].tobytes(),
        "playlist.png": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    cases = [
        ("empty.png", {}, "INPUT_NOT_READABLE"),
        ("text.jpg", {}, "INPUT_NOT_READABLE"),
        ("cut.jpg", {}, "INPUT_NOT_READABLE"),
        ("half.jpg", {}, "INPUT_NOT_READABLE"),
        ("half.png", {}, "INPUT_NOT_READABLE"),
        ("half.webp", {}, "INPUT_NOT_READABLE"),
        ("playlist.png", {}, "INPUT_NOT_READABLE"),
        ("missing.png", {}, "INPUT_NOT_READABLE"),
        ("bomb.png", {}, "INPUT_TOO_LARGE"),
        ("video.png", {}, "INPUT_WRONG_KIND"),
        ("wall.png", {}, "NO_FACE_IN_TARGET"),
        (hopper, {"sources": (tmp_path / "wall.png",)}, "NO_FACE_IN_SOURCE"),
        (hopper, {"sources": (tmp_path / "text.jpg",)}, "INPUT_NOT_READABLE"),
        (hopper, {"sources": ()}, "SOURCE_MISSING"),
        (hopper, {"reference_face_position": 3}, "REFERENCE_FACE_NOT_FOUND"),
        (hopper, {"output_format": "gif"}, "OUTPUT_FORMAT_UNSUPPORTED"),
        (hopper, {"output_image_scale": 8.0, "processors": ["frame_enhancer", "frame_enhancer"]}, "OUTPUT_TOO_LARGE"),
        (hopper, {"face_mask_blur": 7}, "OPTION_INVALID"),
        (hopper, {"processors": ["face_swopper"]}, "OPTION_INVALID"),
    ]
    for target, fields, reason in cases:
        output_format = fields.pop("output_format", "png")
        with pytest.raises(EngineError) as error:
            run(tmp_path / target, output_format, **fields)
        assert (error.value.reason, error.value.retryable) == (reason, False), error.value.message
        assert error.value.message.endswith(".")
        assert str(tmp_path) not in error.value.message
        assert not list(tmp_path.glob("result.*"))


def test_a_full_disk_is_no_fault_of_the_job(run, collins, tmp_path):
    (tmp_path / "result.png.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        run(collins, "png", processors=["face_enhancer"])
    assert not (tmp_path / "result.png").exists()


def test_a_picture_without_faces_is_only_warned_about_when_none_is_needed(run, tmp_path):
    path = tmp_path / "wall.png"
    cv2.imwrite(str(path), np.full((200, 200, 3), 128, np.uint8))
    result, _, _ = run(path, "png", processors=["face_enhancer"])
    assert result.warnings == ["no face was found in the target picture"]
