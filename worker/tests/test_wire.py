"""The golden frames that both languages read: what this side parses and what it emits."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from facefusion_worker import protocol
from facefusion_worker.engine import Capabilities, DependentChoices, Job, MediaKind, Option, OptionType, Processor, Result, Step

ROOT = Path(__file__).resolve().parents[2]
WIRE = ROOT / "test" / "fixtures" / "wire"
JOB = Job("job_20250405_abcdefghjkmn", 2)


def frames(name: str) -> list[dict]:
    return [json.loads(line) for line in (WIRE / name).read_text(encoding="utf-8").splitlines()]


def test_reads_the_golden_control_frames():
    lines = (WIRE / "to_worker.jsonl").read_bytes().splitlines()
    assert [protocol.parse(line) for line in lines] == [
        protocol.Run(
            Job(
                job_id="job_20250405_abcdefghjkmn",
                attempt=2,
                source_paths=("/data/in/a.jpg", "/data/in/b.png"),
                source_audio_path="/data/in/voice.wav",
                target_path="/data/in/t.mp4",
                target_kind=MediaKind.MEDIA_KIND_VIDEO,
                output_path="/data/out/r.mp4",
                output_format="mp4",
                parameters={
                    "processors": ["face_swapper", "face_enhancer"],
                    "output_video_quality": 95,
                    "output_video_fps": 29.97,
                    "reference_face_position": 0,
                    "face_mask_padding": [0, 10, 0, 10],
                },
                work_dir="/data/work/1",
                previews=True,
                low_memory=True,
            )
        ),
        protocol.Cancel("job_20250405_abcdefghjkmn"),
        protocol.Shutdown(),
    ]


def test_emits_the_golden_event_frames():
    integer, number, string, boolean = (
        OptionType.OPTION_TYPE_INTEGER,
        OptionType.OPTION_TYPE_NUMBER,
        OptionType.OPTION_TYPE_STRING,
        OptionType.OPTION_TYPE_BOOLEAN,
    )
    capabilities = Capabilities(
        processors=[
            Processor("face_swapper", "swaps faces", needs_source_image=True),
            Processor("lip_syncer", "moves lips", needs_source_audio=True),
        ],
        options=[
            Option("reference_face_position", integer, "which face", minimum=0, default=0),
            Option(
                "face_detector_size",
                string,
                "frame size",
                choices=["320x320", "640x640"],
                default="640x640",
                dependent_choices=[DependentChoices("face_detector_model", "yolo_face", ["640x640"])],
            ),
            Option("face_swapper_weight", number, "how much", minimum=0, maximum=1, default=0.5, processor="face_swapper"),
            Option("processors", string, "what to run", list=True, choices=["face_swapper"], default=["face_swapper"]),
            Option("keep", boolean, "keep it", default=False),
        ],
        image_formats=["jpg", "png"],
        video_formats=["mp4"],
        ignored_options=["face_detector_model"],
    )
    first = JOB._replace(attempt=1)
    emitted = [
        protocol.ready("classical", "0.1.0", capabilities, 4711, 0.375, ["haarcascade"]),
        protocol.progress(JOB, Step.STEP_PROCESSING, 41.5, 50, 120, 38.25, 1.75),
        protocol.progress(JOB, Step.STEP_ANALYSING, 0.0),
        protocol.progress(JOB, Step.STEP_ENCODING_OUTPUT, 100.0, 1, 1, 0.0, 0.0),
        protocol.preview(JOB, "/9j/2Q==", 50),
        protocol.log("INFO", "two faces found", JOB),
        protocol.log("ERROR", "a line of the worker's own: é, 面"),
        protocol.done(
            JOB,
            Result("video/mp4", 640, 360, 120, 4.8, ["a warning"]),
            {"STEP_ANALYSING": 0.5, "STEP_PROCESSING": 3.25},
        ),
        protocol.done(first, Result("image/jpeg", 512, 512, 1), {}),
        protocol.failed(JOB, "ERROR", "DISK_FULL", "There is no space left for the result.", True),
        protocol.failed(JOB, "CANCELED", "CANCELED", "The run was cancelled.", False),
        protocol.failed(JOB, "REFUSED", "CONTENT_REFUSED", "refused", False),
        protocol.idle(JOB, 111239168, ["haarcascade"]),
        protocol.heartbeat(111239168),
    ]
    golden = frames("from_worker.jsonl")
    assert emitted == golden
    # The same fields in the same order too, so that a line can be compared as text.
    assert [json.dumps(message) for message in emitted] == [json.dumps(_like(message, golden[n])) for n, message in enumerate(emitted)]


def _like(message: dict, golden: dict) -> dict:
    """`message`'s values in `golden`'s order (JSON's 0 and Python's 0.0 are one number)."""
    return {key: _like(message[key], value) if isinstance(value, dict) else message[key] for key, value in golden.items()}


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs requirements-dev.txt: grpcio-tools")
def test_the_golden_frames_are_the_schema_s_own_json(tmp_path, monkeypatch):
    from google.protobuf import json_format
    from grpc_tools import protoc

    include = str(Path(importlib.util.find_spec("grpc_tools").origin).parent / "_proto")
    proto = "facefusion/worker/v1/worker.proto"
    assert protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={tmp_path}", proto]) == 0
    monkeypatch.syspath_prepend(str(tmp_path))
    from facefusion.worker.v1 import worker_pb2

    for name, message in (("to_worker.jsonl", worker_pb2.ToWorker), ("from_worker.jsonl", worker_pb2.FromWorker)):
        for frame in frames(name):
            parsed = json_format.ParseDict(frame, message())
            assert json_format.MessageToDict(parsed, preserving_proto_field_name=True) == frame


def test_reads_camel_case_and_ignores_what_it_does_not_know():
    line = b'{"run":{"jobId":"j","attempt":1,"targetKind":1,"outputFormat":"jpg","sourcePaths":["/a"],"new":{"x":1},"workDir":null}}'
    message = protocol.parse(line)
    assert message == protocol.Run(
        Job("j", 1, ("/a",), target_kind=MediaKind.MEDIA_KIND_IMAGE, output_format="jpg", parameters={}),
    )
    assert protocol.parse(b'{"newKind":{}}') == protocol.Unknown(("new_kind",))


@pytest.mark.parametrize(
    "line",
    [
        b"\xff",
        b"{",
        b"[]",
        b"1",
        b"null",
        b'{"run":[]}',
        b'{"run":{}}',
        b'{"run":{"job_id":1}}',
        b'{"run":{"job_id":"j","source_paths":"x"}}',
        b'{"run":{"job_id":"j","parameters":[]}}',
        b'{"run":{"job_id":"j","attempt":{}}}',
        b'{"run":{"job_id":"j","attempt":1e999}}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_message_is_a_wire_error(line):
    with pytest.raises(protocol.WireError):
        protocol.parse(line)


def test_text_of_any_kind_becomes_valid_utf8_of_bounded_length():
    text = protocol.clean_text("\udcff" + "x" * 100_000)
    assert len(text) <= protocol.MAX_TEXT
    text.encode("utf-8")
