"""The examiner on its own: its words on a pipe, and that its children are cheap to lose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facefusion_worker.probe.__main__ import examine
from facefusion_worker.probe.verdict import Limits, Refused
from facefusion_worker.samples import PORTRAITS

LIMITS = {"image_pixels": 2**26, "video_pixels": 2**24, "side": 16_384, "frames": 1000, "seconds": 60, "streams": 8}


class Examiner:
    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "facefusion_worker.probe", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        assert self.hear() == {"ready": True}

    def ask(self, number: int, path: Path | str, kind: str, media_type: str) -> None:
        self.say({"id": number, "path": str(path), "kind": kind, "type": media_type, "limits": LIMITS})

    def say(self, message: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        return json.loads(self.process.stdout.readline())

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def close(self) -> int:
        self.process.stdin.close()
        code = self.process.wait()
        self.process.stdout.close()
        return code


@pytest.fixture
def examiner() -> Iterator[Examiner]:
    one = Examiner("--children", "2")
    yield one
    assert one.close() == 0


def test_each_question_has_its_answer(examiner, collins, clip):
    examiner.ask(1, collins, "image", "image/jpeg")
    examiner.ask(2, clip, "video", "video/mp4")
    examiner.ask(3, clip, "audio", "video/mp4")
    examiner.ask(4, "/nowhere", "video", "video/mp4")
    answers = {answer.pop("id"): answer for answer in (examiner.hear() for _ in range(4))}
    assert (answers[1]["facts"]["width"], answers[1]["facts"]["height"]) == (512, 512)
    assert (answers[2]["facts"]["frames"], answers[2]["facts"]["audio"], answers[2]["facts"]["codec"]) == (40, True, "h264")
    assert answers[3]["facts"]["codec"] == "aac"
    assert answers[4] == {"gone": True}


@pytest.mark.skipif(sys.platform != "linux", reason="machine: needs /proc")
def test_a_child_that_is_killed_is_an_answer_and_is_replaced(examiner, collins, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = set(examiner.children())
    examiner.ask(1, pipe, "image", "image/jpeg")  # opens, and waits for a writer for ever
    examiner.ask(2, collins, "image", "image/jpeg")
    assert examiner.hear()["id"] == 2
    for pid in before & set(examiner.children()):
        os.kill(pid, 9)
    assert examiner.hear() == {"id": 1, "died": "signal 9"}
    for number in (3, 4):
        examiner.ask(number, collins, "image", "image/jpeg")
    assert all("facts" in examiner.hear() for _ in (3, 4))


def test_nobody_waits_for_one_that_was_left(examiner, collins, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for number in (1, 2, 3):
        examiner.ask(number, pipe, "image", "image/jpeg")
    for number in (1, 2, 3):
        examiner.say({"leave": number})
    examiner.ask(4, collins, "image", "image/jpeg")
    # Whether the first two had begun is a matter of chance; the third had to wait for them.
    heard = set()
    while 4 not in heard:
        heard.add(examiner.hear()["id"])
    assert heard <= {1, 2, 4}


def test_the_clock_ends_what_hangs(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    one = Examiner("--wall-seconds", "0.05")
    one.ask(1, pipe, "image", "image/jpeg")
    assert one.hear() == {"id": 1, "died": "late"}
    assert one.close() == 0


CHILD_THAT_A_FILE_HAS_TAKEN_OVER = """
import json
from facefusion_worker.probe.nursery import Bounds, Nursery

class TakenOver(Nursery):
    def _be_child(self, channel):
        line = channel.makefile("rb").readline()
        if line:
            channel.sendall(json.loads(line)["say"].encode())

TakenOver(0, 1, 2, Bounds(2**31, 10, 10), dict).serve()
"""


@pytest.mark.parametrize(
    "said",
    [
        pytest.param('{"id": 2, "facts": {}}\n', id="for another file"),
        pytest.param('{"facts": {"width": NaN}}\n', id="a number that is none"),
        pytest.param("facts\n", id="no JSON"),
        pytest.param("[1]\n", id="no answer"),
        pytest.param("[" * 50_000 + "\n", id="deeper than it can be read"),
        pytest.param("x" * 200_000, id="without an end"),
    ],
)
def test_what_a_child_says_goes_for_its_own_file_and_harms_no_other(said):
    command = [sys.executable, "-c", CHILD_THAT_A_FILE_HAS_TAKEN_OVER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    with process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        for request in ({"id": 1, "say": said}, {"id": 2, "say": '{"gone": true}\n'}):
            process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
    assert sorted(answers, key=lambda one: one["id"]) == [{"id": 1, "died": "nonsense"}, {"id": 2, "gone": True}]
    assert process.returncode == 0


def test_a_picture_that_ends_between_two_parts_is_cut_short(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0\x00\x04JF" + b"no marker")
    with pytest.raises(Refused) as refused:
        examine(str(path), "image", "image/jpeg", Limits(**LIMITS))
    assert refused.value.reason == "INPUT_TRUNCATED"


def test_sizes_are_judged_before_anything_is_decoded():
    small = Limits(**{**LIMITS, "image_pixels": 1000})
    with pytest.raises(Refused) as refused:
        examine(str(PORTRAITS / "eileen_collins.jpg"), "image", "image/jpeg", small)
    assert refused.value.reason == "INPUT_TOO_LARGE"
    assert "512x512" in refused.value.message


def test_lengths_are_counted(clip):
    for limit in ({"frames": 39}, {"seconds": 1.0}, {"streams": 1}, {"side": 639}, {"video_pixels": 640 * 360 - 1}):
        with pytest.raises(Refused) as refused:
            examine(str(clip), "video", "video/mp4", Limits(**{**LIMITS, **limit}))
        assert refused.value.reason == "INPUT_TOO_LARGE", limit
