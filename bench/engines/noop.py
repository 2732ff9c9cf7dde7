"""The engine of the benches: it does nothing, at once, or holds its slot and reports at a steady rate. Standard library only.

Everything it does follows from the job's own parameters, so that one warm worker serves every bench.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from facefusion_worker.engine import Capabilities, Job, Option, OptionType, Processor, Report, Result, Step

CLOCK_SPAN = 1 << 31


class Noop:
    name = "noop"
    version = "1"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            processors=[Processor("noop", "does nothing")],
            options=[
                Option("times_file", OptionType.STRING, "a file that gets a line with the job and CLOCK_MONOTONIC, as the run begins"),
                Option("hold_seconds", OptionType.NUMBER, "how long the run lasts", minimum=0, maximum=3600, default=0),
                Option("events_per_second", OptionType.NUMBER, "progress reports while it lasts", minimum=0, maximum=100, default=0),
            ],
            image_formats=["png", "jpg", "webp"],
            video_formats=["mp4"],
        )

    def warm(self) -> Sequence[str]:
        return ()

    def run(self, job: Job, report: Report) -> Result:
        began = time.monotonic_ns()
        if times_file := job.parameters.get("times_file"):
            with open(times_file, "a", encoding="ascii") as times:
                times.write(f"{job.job_id} {began}\n")
        if hold := float(job.parameters.get("hold_seconds") or 0):
            self._hold(report, hold, float(job.parameters.get("events_per_second") or 0))
        with open(job.output_path, "wb") as output:
            output.write(b"ok\n")
        return Result(media_type="image/png", width=1, height=1, frames=1)

    def _hold(self, report: Report, seconds: float, rate: float) -> None:
        """Each report carries the wall clock's low 31 bits, in milliseconds, as its count of frames: the watcher's side takes its own clock off."""
        report.enter(Step.STEP_PROCESSING, CLOCK_SPAN)
        end = time.monotonic() + seconds
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if rate == 0:
                report.cancel.wait(end - now)
                break
            due = max(due + 1 / rate, now)
            report.cancel.wait(due - now)
            report.advance(int(time.time() * 1000) % CLOCK_SPAN)

    def cancel(self) -> None:
        pass
