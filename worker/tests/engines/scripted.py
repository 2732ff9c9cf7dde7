"""An engine that does what the job's parameters say, for tests of what stands around a worker. Standard library only.

| parameter | what happens |
|---|---|
| `steps` | pieces of work, reported one by one (default 1) |
| `seconds_per_step` | how long each takes |
| `hold_file`, `hold_at` | before piece `hold_at` (default 0): makes the file `hold_file` + ".held", then waits until `hold_file` exists |
| `release_file` | made when the run has ended in any way |
| `log_lines` | so many lines to the job's log |
| `log_steps` | a line to the job's log before each piece |
| `face_swapper_model`, `face_swapper_boost` | nothing: the choices of the second follow the first |
| `stdout_noise` | so many lines printed to stdout, and as many to file descriptor 1 |
| `rss_mb` | so much memory held from then on, over the runs |
| `preview` | a preview with every piece (if the job wants any) |
| `warnings` | warnings of the result |
| `crash_at`, `exit_code` | at that piece the process ends: by SIGKILL, or with the exit code |
| `hang_at` | at that piece it stops for ever and hears no cancel |
| `fail`, `message`, `retryable` | ends with an error of that reason |
| `raise` | ends with a plain exception: that text |
| `refuse` | ends refused, with that text |
| `fail_attempts` | `fail`, `raise`, `refuse` and `crash_at` count up to this attempt only |
| `output` | text of the result file (default "scripted") |
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from facefusion_worker.engine import (
    Capabilities,
    ContentRefused,
    DependentChoices,
    EngineError,
    Job,
    MediaKind,
    Option,
    OptionType,
    Processor,
    Report,
    Result,
    Step,
)

_BOOLEAN, _INTEGER = OptionType.OPTION_TYPE_BOOLEAN, OptionType.OPTION_TYPE_INTEGER
_NUMBER, _STRING = OptionType.OPTION_TYPE_NUMBER, OptionType.OPTION_TYPE_STRING
_BOOSTS = ("128x128", "256x256", "512x512")
_BY_MODEL = (
    DependentChoices("face_swapper_model", "plain", ("128x128", "256x256")),
    DependentChoices("face_swapper_model", "fine", ("256x256", "512x512")),
)
_MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "mov": "video/quicktime",
}


class Scripted:
    name = "scripted"
    version = "1"

    def __init__(self) -> None:
        self._held = bytearray()

    def capabilities(self) -> Capabilities:
        return Capabilities(
            processors=[
                Processor("face_swapper", "follows a script", needs_source_image=True),
                Processor("face_enhancer", "follows a script"),
            ],
            options=[
                Option("processors", _STRING, list=True, choices=("face_swapper", "face_enhancer"), default=["face_swapper"]),
                Option("steps", _INTEGER, minimum=0, maximum=1_000_000, default=1),
                Option("seconds_per_step", _NUMBER, minimum=0, maximum=3600, default=0),
                Option("hold_file", _STRING),
                Option("hold_at", _INTEGER, minimum=0, default=0),
                Option("release_file", _STRING),
                Option("log_lines", _INTEGER, minimum=0, default=0),
                Option("log_steps", _BOOLEAN, default=False),
                Option("stdout_noise", _INTEGER, minimum=0, default=0),
                Option("rss_mb", _INTEGER, minimum=0, maximum=4096, default=0),
                Option("preview", _BOOLEAN, default=False),
                Option("trim_frame_start", _INTEGER, minimum=0),
                Option("trim_frame_end", _INTEGER, minimum=0),
                Option("warnings", _STRING, list=True, default=[]),
                Option("crash_at", _INTEGER, minimum=0),
                Option("exit_code", _INTEGER, minimum=0, maximum=255),
                Option("hang_at", _INTEGER, minimum=0),
                Option("fail", _STRING),
                Option("message", _STRING),
                Option("retryable", _BOOLEAN, default=False),
                Option("raise", _STRING),
                Option("refuse", _STRING),
                Option("fail_attempts", _INTEGER, minimum=0),
                Option("output", _STRING, default="scripted"),
                Option("face_swapper_model", _STRING, choices=("plain", "fine"), default="plain", processor="face_swapper"),
                Option(
                    "face_swapper_boost",
                    _STRING,
                    choices=_BOOSTS,
                    default="256x256",
                    processor="face_swapper",
                    dependent_choices=_BY_MODEL,
                ),
                Option("face_detector_score", _NUMBER, minimum=0, maximum=1, default=0.5),
                Option("output_image_quality", _INTEGER, minimum=0, maximum=100, default=80),
                Option("output_video_quality", _INTEGER, minimum=0, maximum=100, default=80),
                Option("output_video_fps", _NUMBER, minimum=1, maximum=120),
            ],
            image_formats=["jpg", "png", "webp"],
            video_formats=["mp4", "webm", "mov"],
            ignored_options=["face_detector_model", "face_detector_size"],
        )

    def warm(self) -> Sequence[str]:
        return ("script", "plain")

    def cancel(self) -> None:
        pass

    def run(self, job: Job, report: Report) -> Result:
        release = job.parameters.get("release_file")
        try:
            return self._run(job, report)
        finally:
            if release:
                Path(release).touch()

    def _run(self, job: Job, report: Report) -> Result:
        told = job.parameters
        breaks = job.attempt <= told.get("fail_attempts", job.attempt)
        if told.get("rss_mb"):
            self._held = bytearray(os.urandom(1024) * 1024 * int(told["rss_mb"]))
        for number in range(int(told.get("stdout_noise", 0))):
            print(f"noise {number}")
            os.write(1, f"raw noise {number}\n".encode())
        for number in range(int(told.get("log_lines", 0))):
            report.log(f"line {number}")
        steps = int(told.get("steps", 1))
        report.plan({Step.STEP_ANALYSING: 0.1, Step.STEP_PROCESSING: 0.8, Step.STEP_ENCODING_OUTPUT: 0.1})
        report.enter(Step.STEP_ANALYSING, 1)
        report.enter(Step.STEP_PROCESSING, steps)
        for number in range(steps):
            if told.get("log_steps"):
                report.log(f"piece {number}")
            if told.get("hold_file") and number == int(told.get("hold_at", 0)):
                Path(told["hold_file"] + ".held").touch()
                while not os.path.exists(told["hold_file"]):
                    report.cancel.wait(0.01)
            if breaks and told.get("crash_at") == number:
                if "exit_code" in told:
                    os._exit(int(told["exit_code"]))
                os.kill(os.getpid(), signal.SIGKILL)
            if told.get("hang_at") == number:
                while True:
                    time.sleep(3600)
            if told.get("seconds_per_step"):
                report.cancel.wait(float(told["seconds_per_step"]))
            report.advance(number + 1)
            if told.get("preview") and report.wants_preview():
                report.preview(b"\xff\xd8\xff\xd9", number)
        if breaks:
            if "fail" in told:
                raise EngineError(told["fail"], told.get("message", "as the script says"), bool(told.get("retryable", False)))
            if "raise" in told:
                raise RuntimeError(told["raise"])
            if "refuse" in told:
                raise ContentRefused(told["refuse"])
        report.enter(Step.STEP_ENCODING_OUTPUT, 1)
        data = str(told.get("output", "scripted")).encode()
        temporary = job.output_path + ".part"
        with open(temporary, "wb") as output:
            output.write(data)
        os.replace(temporary, job.output_path)
        report.advance(1)
        is_video = job.target_kind == MediaKind.MEDIA_KIND_VIDEO
        frames = max(1, steps) if is_video else 1
        return Result(
            media_type=_MEDIA_TYPES.get(job.output_format, "application/octet-stream"),
            width=640,
            height=360,
            frames=frames,
            duration_seconds=frames / 25 if is_video else 0.0,
            warnings=list(told.get("warnings", [])),
        )
