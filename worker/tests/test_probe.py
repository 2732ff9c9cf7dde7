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

from facefusion_worker.probe import Limits, Refused, examine
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
