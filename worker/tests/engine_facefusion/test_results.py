"""A finished file that is not what was asked for never leaves as a result, whatever has made it so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from program import Media, Worker, has_sound

REAL = shutil.which("ffmpeg") or "ffmpeg"
# What becomes of the file that the program has made last, in words of the shell; `$last` is its path.
AGAIN = f'{REAL} -nostdin -y -loglevel error -i "$last" %s "$last.2$kind" && mv "$last.2$kind" "$last"'
WRONG = {
    "cut short": ('truncate -s $(($(stat -c %s "$last") * 6 / 10)) "$last"', "does not read back"),
    "empty": (': > "$last"', "does not read back"),
    "fewer frames": (AGAIN % "-frames:v 20 -c copy", "frames instead of 30"),
    "another size": (AGAIN % "-vf scale=320:180", "is 320x180 instead of 640x360"),
    "twice as slow": (AGAIN.replace("-i ", "-itsscale 2 -i ") % "-an -c copy", "instead of 1.20"),
}


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Media:
    return Media(tmp_path_factory.mktemp("media"))


def spoilt(worker: Worker, folder: Path, what: str) -> Worker:
    """A worker whose ffmpeg does as it is told, and then that to what becomes the result."""
    folder.mkdir()
    script = folder / "ffmpeg"
    script.write_text(
        f'#!/bin/sh\n{REAL} "$@"\ncode=$?\nfor last; do :; done\n'
        f'case "$last" in */result.mp4) kind=.mp4; {what};; */result.png) kind=.png; {what};; esac\nexit $code\n'
    )
    script.chmod(0o755)
    return Worker(worker.home, folder / "jobs", PATH=f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("kind", WRONG)
def test_a_video_that_is_not_right(worker: Worker, media: Media, tmp_path: Path, kind: str) -> None:
    what, words = WRONG[kind]
    with spoilt(worker, tmp_path / "spoilt", what) as one:
        for strategy in ("memory", "disk"):
            outcome = one.submit(media.video(), workflow_strategy=strategy)
            assert (outcome.reason, outcome.body["retryable"]) == ("RESULT_INVALID", True), outcome.body
            assert words in outcome.body["message"]


def test_a_picture_that_is_not_right(worker: Worker, media: Media, tmp_path: Path) -> None:
    with spoilt(worker, tmp_path / "spoilt", AGAIN % "-vf scale=320:180") as one:
        outcome = one.submit(media.picture())
        assert (outcome.reason, outcome.body["message"]) == ("RESULT_INVALID", "The result is 320x180 instead of 640x360.")


def test_sound_that_got_lost_is_a_warning_on_the_job(worker: Worker, media: Media, tmp_path: Path) -> None:
    with spoilt(worker, tmp_path / "spoilt", AGAIN % "-an -c copy") as one:
        outcome = one.done(media.video())
        assert outcome.warnings == ["the sound could not be kept: the result is silent"]
        assert not has_sound(outcome.output)
