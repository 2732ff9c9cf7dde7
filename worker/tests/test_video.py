"""Video through the classical engine: frames, time and sound."""

from __future__ import annotations

import struct
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from media import (
    Recorder,
    aligned,
    frames,
    make_video,
    number_of,
    numbered,
    picture,
    samples,
    stamps,
    structure_likeness,
)

from facefusion_worker.engine import Canceled, CancelToken, EngineError, Step
from facefusion_worker.faces import apply
from facefusion_worker.samples import camera
from facefusion_worker.tracking import Tracker
from facefusion_worker.video import Sound, Times, VideoInfo, VideoWriter, crf, decoded, examine, schedule, undecodable
from facefusion_worker.vision import av, cv2

PLAIN = {"processors": ["face_debugger"], "sources": ()}  # frames come out as they went in: no face is in the small test videos


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """50 numbered frames at 25 a second, with sound."""
    return make_video(tmp_path_factory.mktemp("bars") / "bars.mp4", numbered(50), tone=True)


def test_a_clip_is_swapped_frame_by_frame_and_keeps_its_sound(run, finder, clip, collins):
    began = time.monotonic()
    result, output, report = run(clip, "mp4")
    assert time.monotonic() - began < 60
    before, after = frames(clip), frames(output)
    assert (result.frames, len(after), result.width, result.height) == (40, 40, 640, 360)
    assert result.duration_seconds == pytest.approx(1.6)
    assert stamps(output) == [Fraction(n, 25) for n in range(40)]
    origin = picture(collins)
    wanted = aligned(origin, finder.find(origin)[0])
    for number in (0, 7, 31, 39):
        face = finder.find(before[number])[0]
        likeness = structure_likeness(aligned(after[number], face), wanted)
        assert likeness > 0.6
        assert likeness > structure_likeness(aligned(before[number], face), wanted) + 0.25
        assert np.abs(after[number][:, 480:].astype(int) - before[number][:, 480:]).mean() < 3  # far from the face: only the codec
    (sound, rate, first), (copy, copy_rate, copy_first) = samples(clip), samples(output)
    assert (rate, first) == (copy_rate, copy_first)
    length = min(len(sound), len(copy))
    assert abs(len(sound) - len(copy)) <= 1024
    assert np.array_equal(sound[:length], copy[:length])  # packets, not a new encoding
    assert report.steps == [Step.STEP_ANALYSING, Step.STEP_PROCESSING, Step.STEP_ENCODING_OUTPUT]
    assert (Step.STEP_PROCESSING, 40) in report.done


def test_faces_do_not_jitter(finder, clip):
    """The camera's path is known: what of a face's motion it does not explain is jitter."""
    tracker, residues = Tracker(finder), []
    for number, frame in enumerate(frames(clip)):
        (track,) = tracker.update(frame)
        path = camera(number, (262.0, 232.0), 0.98)  # about one pixel of the portrait is one of the frame
        residues.append(apply(cv2.invertAffineTransform(path), track.face.landmarks))
    steps = np.linalg.norm(np.diff(np.array(residues), axis=0), axis=2)
    assert steps.mean() < 0.25
    assert np.percentile(steps, 99) < 0.6


def test_a_cut_moves_the_swap_to_the_new_face(run, finder, collins, hopper, tmp_path):
    def shot(path, shift):
        scene = np.full((360, 640, 3), 90 + shift // 4, np.uint8)
        portrait = cv2.resize(picture(path)[:500], (360, 360), interpolation=cv2.INTER_AREA)
        scene[:, shift : shift + 360] = portrait
        return scene

    pictures = [shot(hopper, 0)] * 7 + [shot(collins, 220)] * 8
    target = make_video(tmp_path / "cut.mp4", pictures)
    _, output, _ = run(target, "mp4", sources=(collins,), face_selector_mode="many")
    after, before = frames(output), frames(target)
    for number in (6, 7, 8):
        changed = np.abs(after[number].astype(int) - before[number]).max(axis=2) > 40
        columns = np.nonzero(changed.any(axis=0))[0]
        face = finder.find(before[number])[0]
        assert columns.size == 0 or (columns.min() > face.box[0] - 20 and columns.max() < face.box[2] + 20)


def test_the_reference_face_is_one_person_throughout(run, finder, collins, hopper, tmp_path):
    left = cv2.resize(picture(hopper)[40:440, 60:460], (320, 320), interpolation=cv2.INTER_AREA)
    right = cv2.resize(picture(collins)[20:260, 100:340], (320, 320), interpolation=cv2.INTER_AREA)
    target = make_video(tmp_path / "two.mp4", [np.roll(np.hstack([left, right]), n // 2, axis=0) for n in range(12)], crf="12")
    before = frames(target)
    for position, source, side in ((0, collins, slice(0, 320)), (1, hopper, slice(320, 640))):
        other = slice(320, 640) if side.start == 0 else slice(0, 320)
        options = {"reference_face_position": position, "face_selector_order": "left-right", "output_video_quality": 95}
        _, output, _ = run(target, "mp4", sources=(source,), **options)
        after = frames(output)
        for number in (0, 6, 11):
            difference = np.abs(after[number].astype(int) - before[number]).max(axis=2) > 45
            assert difference[:, side].sum() > 200 > difference[:, other].sum()
    with pytest.raises(EngineError) as error:
        run(target, "mp4", reference_face_position=2)
    assert error.value.reason == "REFERENCE_FACE_NOT_FOUND"


@pytest.mark.parametrize(("extension", "codec", "audio"), [("mp4", "h264", "aac"), ("mov", "h264", "aac"), ("webm", "vp9", "opus")])
def test_every_format_is_written_with_its_codecs(run, bars, extension, codec, audio):
    result, output, _ = run(bars, extension, **PLAIN)
    with av.open(str(output)) as container:
        assert container.format.name == {"webm": "matroska,webm"}.get(extension, "mov,mp4,m4a,3gp,3g2,mj2")
        assert container.streams.video[0].codec_context.name == codec
        assert container.streams.audio[0].codec_context.name == audio
    assert [number_of(frame) for frame in frames(output)] == list(range(50))
    assert result.media_type == {"mp4": "video/mp4", "mov": "video/quicktime", "webm": "video/webm"}[extension]
    assert result.warnings == ["no face was found in any frame of the target video"]
    sound, rate, first = samples(output)
    assert abs(first + len(sound) / rate - 2.0) < 0.03


def test_h265_and_presets_are_followed(run, bars):
    _, output, _ = run(bars, "mp4", **PLAIN, output_video_encoder="libx265", output_video_preset="ultrafast")
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec_context.name == "hevc"
    assert number_of(frames(output)[49]) == 49


@pytest.mark.parametrize("extension", ["mp4", "webm"])
@pytest.mark.parametrize(("start", "end"), [(10, 30), (13, None), (None, 21), (49, None)])
def test_a_trim_is_exact_in_picture_and_sound(run, clip, bars, extension, start, end):
    result, output, _ = run(bars, extension, **PLAIN, trim_frame_start=start, trim_frame_end=end)
    begin, stop = start or 0, end or 50
    assert [number_of(frame) for frame in frames(output)] == list(range(begin, stop))
    assert result.frames == stop - begin
    if stop - begin < 5:
        return
    sound, rate, first = samples(output)
    whole, whole_rate, _ = samples(bars)
    if rate != whole_rate:
        whole = np.interp(np.arange(int(len(whole) * rate / whole_rate)) * whole_rate / rate, np.arange(len(whole)), whole)
    assert abs(first + len(sound) / rate - (stop - begin) / 25) < 0.03
    # The tone's phase tells to the sample where the cut was made.
    place = round((begin / 25 + 0.15) * rate)
    probe = sound[round((0.15 - first) * rate) :][: rate // 4]
    scores = {shift: np.corrcoef(probe, whole[place + shift :][: len(probe)])[0, 1] for shift in range(-25, 26)}
    assert scores[0] > 0.97
    assert abs(max(scores, key=scores.get)) <= 1


@pytest.mark.parametrize(("rate", "shown"), [(12.5, 25), (50, 100), (30, 60), (29.97, 60), (10, 20)])
def test_another_frame_rate_keeps_every_frame_at_its_time(run, bars, rate, shown):
    result, output, _ = run(bars, "mp4", **PLAIN, output_video_fps=rate)
    exact = Fraction(30000, 1001) if rate == 29.97 else Fraction(rate)
    assert result.frames == shown
    assert result.duration_seconds == pytest.approx(float(shown / exact), abs=1e-4)
    numbers = [number_of(frame) for frame in frames(output)]
    assert all(abs(float(number) / 25 - n / float(exact)) <= 1 / 25 for n, number in enumerate(numbers))
    assert [round(stamp * exact, 3) for stamp in stamps(output)] == list(range(shown))


def test_a_variable_rate_becomes_constant_and_lasts_as_long(run, tmp_path):
    places = [0, 40, 80, 300, 340, 380, 900, 940, 980, 1020]
    target = make_video(tmp_path / "v.mkv", numbered(10), places=places)
    info = examine(str(target), "target video", CancelToken())
    assert (info.frames, info.constant) == (10, False)
    result, output, _ = run(target, "mp4", **PLAIN, output_video_fps=25)
    numbers = [number_of(frame) for frame in frames(output)]
    assert numbers == sorted(numbers)
    for stamp, number in zip(stamps(output), numbers, strict=True):
        following = places[number + 1] if number < 9 else 10_000
        assert places[number] - 21 <= stamp * 1000 <= following
    assert 1.0 < result.duration_seconds < 1.3


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "container"),
    [("ffv1", "yuv444p", "mkv"), ("ffv1", "gray", "mkv"), ("libx264", "yuv420p10le", "mp4"), ("mpeg4", "yuv420p", "avi")],
)
def test_odd_sizes_and_other_pixels_work(run, tmp_path, codec, pix_fmt, container):
    size = (161, 121) if codec == "ffv1" else (160, 120)
    target = make_video(tmp_path / f"odd.{container}", numbered(6, size), codec=codec, pix_fmt=pix_fmt)
    result, output, _ = run(target, "mp4", **PLAIN)
    assert (result.width, result.height) == (160, 120)
    assert [number_of(frame) for frame in frames(output)] == list(range(6))


def test_scale_and_upscale_set_the_size(run, tmp_path):
    target = make_video(tmp_path / "s.mp4", numbered(3))
    assert run(target, "mp4", **PLAIN, output_video_scale=0.75)[0].width == 120
    result, output, _ = run(target, "mp4", processors=["frame_enhancer"], sources=())
    assert (result.width, result.height) == (320, 240) == frames(output)[0].shape[1::-1]
    assert [number_of(frame) for frame in frames(output)] == [0, 1, 2]


def turned(path, target):
    """The file with a display matrix that asks for a quarter turn clockwise, as a telephone held upright writes it."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + 40
    assert struct.unpack(">9i", data[matrix : matrix + 36])[0] == 0x10000
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 120 << 16, 0, 0x40000000)
    target.write_bytes(data)
    return target


def test_a_turned_video_is_taken_upright(run, tmp_path):
    target = turned(make_video(tmp_path / "v.mp4", numbered(4)), tmp_path / "turned.mp4")
    result, output, _ = run(target, "mp4", **PLAIN)
    assert (result.width, result.height) == (120, 160)
    back = [cv2.rotate(frame, cv2.ROTATE_90_COUNTERCLOCKWISE) for frame in frames(output)]
    assert [number_of(frame) for frame in back] == list(range(4))


@pytest.mark.parametrize("matrix", [1, 5])
def test_colours_come_out_as_they_went_in(run, tmp_path, matrix):
    """Tagged BT.709 or BT.601: the same tag, and the same samples."""
    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = matrix
        for number in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane, value in zip(frame.planes, (110, 90, 190), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    _, result, _ = run(path, "mp4", **PLAIN, output_video_quality=98)
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
        assert int(frame.colorspace) == matrix
        means = [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].mean() for plane in frame.planes]
    assert np.abs(np.array(means) - (110, 90, 190)).max() < 3


def test_quality_becomes_crf_as_in_facefusion():
    assert [crf("libx264", quality) for quality in (0, 50, 80, 100)] == [51, 26, 10, 0]
    assert [crf("libvpx-vp9", quality) for quality in (0, 80, 100)] == [63, 13, 0]


def test_a_picture_that_stands_for_minutes_shows_that_it_gets_on(run, tmp_path):
    still = make_video(tmp_path / "still.mp4", numbered(3), places=[0, 40, 200_000])
    report = Recorder()
    result, _, _ = run(still, "mp4", report=report, **PLAIN, output_video_fps=5)
    assert result.frames == pytest.approx(1000, abs=10)
    assert sum(step == Step.STEP_PROCESSING for step, _ in report.done) > 35


def test_a_run_is_cancelled_while_a_picture_stands(run, tmp_path, monkeypatch):
    still = make_video(tmp_path / "still.mp4", numbered(3), places=[0, 40, 3_600_000])
    encoded = told = 0
    write = VideoWriter.write

    def counting(self: VideoWriter, frame: np.ndarray, times: int = 1) -> None:
        nonlocal encoded
        write(self, frame, times)
        encoded += times

    monkeypatch.setattr(VideoWriter, "write", counting)

    def when(step: Step, done: int) -> bool:
        """The second frame, which is not done before its hour is over, has been told of a few times."""
        nonlocal told
        told += step == Step.STEP_PROCESSING and done == 1
        return told > 4

    with pytest.raises(Canceled):
        run(still, "mp4", report=Recorder(cancel_when=when), **PLAIN, output_video_fps=5)
    assert 0 < encoded < 300


def test_the_silence_before_a_late_sound_is_made_as_it_is_needed(tmp_path):
    late = tmp_path / "late.mp4"
    with av.open(str(late), "w") as output:
        stream = output.add_stream("aac", rate=48_000, layout="stereo")
        block = av.AudioFrame.from_ndarray(np.zeros((2, 48_000), np.float32), format="fltp", layout="stereo")
        block.sample_rate, block.pts, block.time_base = 48_000, 120 * 48_000, Fraction(1, 48_000)
        output.mux(stream.encode(block))
        output.mux(stream.encode(None))
    options = {"output_audio_encoder": "aac", "output_audio_volume": 100, "output_audio_quality": 80}
    with av.open(str(tmp_path / "out.mp4"), "w") as output:
        sound = Sound(str(late), "target video", Fraction(0), Fraction(200), False, options, CancelToken())
        sound.attach(output, "mp4")
        tracemalloc.start()
        try:
            sound.pump(Fraction(2))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        sound.finish()
        sound.close()
    assert peak < 10 << 20  # all of it would be 46
    assert not sound.copies
    heard, rate, first = samples(tmp_path / "out.mp4")
    assert abs(first + len(heard) / rate - 121) < 0.1


class CountsChecks(CancelToken):
    """Cancelled at the question after the first so many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = most

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.set()
        super().check()


def test_a_cancel_does_not_wait_for_the_end_of_a_long_sound(tmp_path):
    """Nor for its beginning: between two packets of one kind a file may hold hours of the other."""
    path = make_video(tmp_path / "sung.mp4", numbered(3), tone=True)
    long = tmp_path / "long.mkv"
    with av.open(str(path)) as source, av.open(str(long), "w") as output:
        video = output.add_stream_from_template(source.streams.video[0])
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = video
                output.mux(packet)
        silence = np.zeros((1, 800), np.int16)
        for number in range(3000):  # five minutes
            block = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = 8000, 8000 + 800 * number, Fraction(1, 8000)
            output.mux(sound.encode(block))
    assert examine(str(long), "video", CountsChecks(10_000)).frames == 3
    for most in (5, 20, 40):
        with pytest.raises(Canceled):
            examine(str(long), "video", CountsChecks(most))
    with av.open(str(long)) as container:
        heard: list[object] = []
        with pytest.raises(Canceled):
            heard.extend(decoded(container, container.streams.audio[0], CountsChecks(100)))
    assert 20 < len(heard) < 100


def test_hours_of_frames_are_judged_in_a_moment(tmp_path):
    """Their times are whole numbers until somebody asks for one."""
    many = 200_000  # two hours
    path = tmp_path / "hours.mkv"
    source = make_video(tmp_path / "one.mp4", numbered(1))
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        data = next(bytes(packet) for packet in container.demux(video=0) if packet.size)
        for number in range(many):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 30_000)
            packet.pts = packet.dts = number * 1001
            packet.is_keyframe = True
            output.mux(packet)
    began = time.process_time()
    info = examine(str(path), "video", CancelToken())
    took = time.process_time() - began
    assert (info.frames, info.rate, info.constant) == (many, Fraction(30_000, 1001), True)
    assert float(info.times[-1]) == pytest.approx((many - 1) * 1001 / 30_000, abs=0.01)
    assert len(info.times[10:20]) == 10
    # In step with the container alone, which has to be read in any case.
    began = time.process_time()
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == many
    assert took < 4 * (time.process_time() - began) + 0.5


def test_a_cancel_does_not_wait_until_hours_are_fitted_to_another_rate():
    stamps = tuple(1500 * number + number % 7 for number in range(100_000))
    hours = VideoInfo(320, 240, Times(stamps, Fraction(1, 90_000)), Fraction(60), False, False, stamps)
    with pytest.raises(Canceled):
        schedule(hours, 0, hours.frames, Fraction(50), CountsChecks(2))
    assert sum(schedule(hours, 0, 120, Fraction(50), CancelToken())) == 100


def test_volume_and_no_sound(run, bars):
    loud = np.sqrt((samples(bars)[0] ** 2).mean())
    _, output, _ = run(bars, "mp4", **PLAIN, output_audio_volume=50)
    assert np.sqrt((samples(output)[0] ** 2).mean()) == pytest.approx(loud / 2, rel=0.06)
    _, output, _ = run(bars, "mp4", **PLAIN, output_audio_volume=0)
    with av.open(str(output)) as container:
        assert not container.streams.audio


@pytest.mark.parametrize(
    ("step", "done"), [(Step.STEP_ANALYSING, 0), (Step.STEP_PROCESSING, 0), (Step.STEP_PROCESSING, 12), (Step.STEP_ENCODING_OUTPUT, 0)]
)
def test_cancel_is_obeyed_in_every_phase_and_leaves_nothing(run, clip, tmp_path, step, done):
    asked: list[float] = []

    def when(now: Step, count: int) -> bool:
        if now == step and count >= done and not asked:
            asked.append(time.monotonic())
        return bool(asked)

    with pytest.raises(Canceled):
        run(clip, "mp4", report=Recorder(cancel_when=when))
    assert time.monotonic() - asked[0] < 3  # 0.02 s, but for a machine that is busy with something else
    assert not list(tmp_path.glob("result*"))


def test_previews_are_small_jpegs_of_the_result(run, clip):
    report = Recorder(previews=True)
    run(clip, "mp4", report=report, trim_frame_end=5)
    shown = cv2.imdecode(np.frombuffer(report.previews[0], np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (180, 320, 3)


def test_what_cannot_be_worked_on_has_a_name(run, bars, clip, collins, tmp_path):
    whole = bars.read_bytes()
    faststart = make_video(tmp_path / "f.mkv", numbered(2)).read_bytes()
    with av.open(str(tmp_path / "audio.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=44_100, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 44_100), np.float32), format="fltp", layout="mono")
        block.sample_rate = 44_100
        output.mux(stream.encode(block))
        output.mux(stream.encode(None))
    files = {
        "empty.mp4": b"",
        "text.mp4": b"this is text\n" * 100,
        "cut.mp4": whole[: len(whole) // 2],
        "cut_fast.mp4": clip.read_bytes()[: len(clip.read_bytes()) // 2],
        "cut.mkv": faststart[:200],
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + str(bars).encode() + b"\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile '" + str(bars).encode() + b"'\n",
        "picture.mp4": collins.read_bytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    cases = [
        ("empty.mp4", {}, "INPUT_NOT_READABLE"),
        ("text.mp4", {}, "INPUT_NOT_READABLE"),
        ("cut.mp4", {}, "INPUT_NOT_READABLE"),
        ("cut_fast.mp4", {}, "INPUT_NOT_READABLE"),
        ("cut.mkv", {}, "INPUT_NOT_READABLE"),
        ("playlist.mp4", {}, "INPUT_NOT_READABLE"),
        ("concat.mp4", {}, "INPUT_NOT_READABLE"),
        ("missing.mp4", {}, "INPUT_NOT_READABLE"),
        ("picture.mp4", {}, "INPUT_WRONG_KIND"),
        ("audio.mp4", {}, "INPUT_WRONG_KIND"),
        (bars, {}, "NO_FACE_IN_TARGET"),
        (bars, {"trim_frame_start": 50}, "TRIM_OUT_OF_RANGE"),
        (bars, {"trim_frame_start": 20, "trim_frame_end": 20}, "TRIM_OUT_OF_RANGE"),
        (bars, {"reference_frame_number": 50}, "REFERENCE_FRAME_OUT_OF_RANGE"),
        (bars, {"output_video_scale": 8.0, "processors": ["frame_enhancer"] * 3}, "OUTPUT_TOO_LARGE"),
    ]
    for target, fields, reason in cases:
        with pytest.raises(EngineError) as error:
            run(tmp_path / target, "mp4", **fields)
        assert (error.value.reason, error.value.retryable) == (reason, False), (target, error.value.message)
        assert str(tmp_path) not in error.value.message


def test_a_video_of_huge_frames_is_refused_before_a_frame_is_decoded(tmp_path):
    target = make_video(tmp_path / "huge.mkv", [np.zeros((4100, 4200, 3), np.uint8)], codec="mjpeg", pix_fmt="yuvj420p")
    with pytest.raises(EngineError) as error:
        examine(str(target), "target video", CancelToken())
    assert error.value.reason == "INPUT_TOO_LARGE"
    assert "4200x4100" in error.value.message


def test_a_damaged_frame_costs_itself_only(run, tmp_path):
    target = make_video(tmp_path / "d.mkv", numbered(40), codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(target.read_bytes())
    at = -1
    for _ in range(20):
        at = data.index(b"\xff\xd8\xff", at + 1)
    size = data.index(b"\xff\xd9", at) - at
    data[at : at + size] = b"\0" * size
    target.write_bytes(data)
    info = examine(str(target), "target video", CancelToken())
    assert undecodable(str(target), "target video", info, [0, 18, 19, 20, 39], CancelToken()) == [19]
    result, output, _ = run(target, "mp4", **PLAIN)
    numbers = [number_of(frame) for frame in frames(output)]
    assert result.frames == len(numbers) == 40
    assert numbers[:19] == list(range(19))
    assert numbers[20:] == list(range(20, 40))
    assert any("damaged" in warning for warning in result.warnings)


def test_frames_are_looked_for_in_and_behind_a_group_of_pictures(bars, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(bars.read_bytes())
    info = examine(str(path), "result", CancelToken())
    assert info.keys[0] == info.stamps[0]
    assert len(info.keys) < info.frames
    every = list(range(info.frames))
    assert undecodable(str(path), "result", info, every, CancelToken()) == []
    # From a group's middle on, nothing but zeros.
    with av.open(str(path)) as container:
        packets = [(packet.pts, packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for stamp, place, size in packets:
        if stamp > info.stamps[30]:
            data[place : place + size] = b"\0" * size
    path.write_bytes(data)
    lost = undecodable(str(path), "result", info, [0, 10, 49], CancelToken())
    assert lost == [49]


def test_more_frames_asked_for_than_there_are_is_a_warning(run, bars):
    result, _, _ = run(bars, "mp4", **PLAIN, trim_frame_start=40, trim_frame_end=900)
    assert result.frames == 10
    assert any("trim_frame_end" in warning for warning in result.warnings)
