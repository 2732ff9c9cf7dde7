"""What percent is made of: how long steps take, and how their time goes with their work."""

from __future__ import annotations

import json
from typing import Any

import pytest

from facefusion_worker import worker
from facefusion_worker.engine import CancelToken, Job, Step
from facefusion_worker.weights import Weights

LOADING, PROCESSING = Step.STEP_LOADING_MODELS, Step.STEP_PROCESSING
SHAPE = [0.3, 0.4, 0.5, 0.8]


@pytest.fixture
def weights(tmp_path):
    return Weights(str(tmp_path / "steps.json"))


def test_steps_are_a_line_of_frames(weights):
    for frames in (100, 300, 100, 500):
        weights.learn("video", frames, {LOADING: 0.5, PROCESSING: 1 + frames / 100}, {})
    seconds, shapes = weights.predict("video", {LOADING: 1000, PROCESSING: 1000})
    assert seconds == {LOADING: pytest.approx(0.5, abs=0.05), PROCESSING: pytest.approx(11, rel=0.05)}
    assert shapes == {}


def test_a_shape_is_learned_with_its_step_alone(weights):
    weights.learn("video", 100, {LOADING: 0.5, PROCESSING: 2}, {PROCESSING: SHAPE})
    _, shapes = weights.predict("video", {LOADING: 100, PROCESSING: 100})
    assert shapes == {PROCESSING: SHAPE}
    assert weights.predict("picture", {PROCESSING: 1})[1] == {}


def test_a_shape_that_was_disturbed_is_forgotten(weights):
    weights.learn("video", 100, {PROCESSING: 9}, {PROCESSING: [0.9, 0.91, 0.92, 0.93]})
    for _ in range(8):
        weights.learn("video", 100, {PROCESSING: 2}, {PROCESSING: SHAPE})
    assert weights.predict("video", {PROCESSING: 100})[1][PROCESSING] == pytest.approx(SHAPE, abs=0.02)
    # A run that did not tell of all its work changes nothing of it.
    weights.learn("video", 100, {PROCESSING: 2}, {})
    assert weights.predict("video", {PROCESSING: 100})[1][PROCESSING] == pytest.approx(SHAPE, abs=0.02)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"video": 3}', '{"video": {"STEP_PROCESSING": [1, 2]}}', '{"video": {"STEP_PROCESSING": "x"}}']
)
def test_a_file_that_is_wrong_is_begun_anew(tmp_path, content):
    path = tmp_path / "steps.json"
    path.write_text(content)
    weights = Weights(str(path))
    assert weights.predict("video", {PROCESSING: 10})[1] == {}
    weights.learn("video", 10, {PROCESSING: 1}, {PROCESSING: SHAPE})
    assert json.loads(path.read_text())["video"]["STEP_PROCESSING"][-4:] == SHAPE


def test_percent_follows_the_shape(monkeypatch):
    monkeypatch.setattr(worker, "PROGRESS_INTERVAL", 0.0)
    said: list[float] = []

    class Events:
        def send_if_room(self, message: Any) -> bool:
            said.append(message["progress"].get("percent", 0.0))
            return True

    report = worker.RunReport(Job("a", 1), CancelToken(), Events())
    report.plan({LOADING: 1, PROCESSING: 8, Step.STEP_RESTORING_AUDIO: 1}, {PROCESSING: [0.5, 0.6, 0.7, 0.9]})
    report.enter(LOADING)
    report.enter(PROCESSING, 300)
    for done in (1, 100, 150, 300):
        report.advance(done)
    report.enter(Step.STEP_RESTORING_AUDIO)
    assert said == pytest.approx([0, 10, 10 + 80 * 0.501, 10 + 80 * 0.6, 10 + 80 * 0.65, 10 + 80 * 0.9, 90])
