"""The engine of the benches: it does nothing, at once, or holds its slot and reports at a steady rate. Standard library only.

Everything it does follows from the job's own parameters, so that one warm worker serves every bench.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from facefusion_worker.engine import Capabilities, Job, Option, OptionType, Processor, Report, Result, Step

CLOCK_SPAN = 1 << 31
STRING, NUMBER, INTEGER = OptionType.OPTION_TYPE_STRING, OptionType.OPTION_TYPE_NUMBER, OptionType.OPTION_TYPE_INTEGER


class Noop:
    name = "noop"
    version = "1"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            processors=[Processor("noop", "does nothing")],
            options=[
                Option("times_file", STRING, "a file that gets a line with the job and CLOCK_MONOTONIC as the run begins"),
                Option("hold_seconds", NUMBER, "how long the run lasts", minimum=0, maximum=3600, default=0),
                Option("output_bytes", INTEGER, "size of the result", minimum=0, maximum=1 << 40, default=0),
                Option("output_seed", INTEGER, "another result of the same size", minimum=0, maximum=1 << 30, default=0),
                Option("copy_to", STRING, "a second file with the same bytes"),
                Option("events_per_second", NUMBER, "reports while it lasts", minimum=0, maximum=100, default=0),
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
        size = int(job.parameters.get("output_bytes") or 0)
        if size:
            self._write(job, size)
            return Result(media_type="video/mp4", width=1, height=1, frames=1)
        with open(job.output_path, "wb") as output:
            output.write(b"ok\n")
        return Result(media_type="image/png", width=1, height=1, frames=1)

    def _write(self, job: Job, size: int) -> None:
        block = random.Random(int(job.parameters.get("output_seed") or 0)).randbytes(1 << 20)
        for path in filter(None, (job.output_path, job.parameters.get("copy_to"))):
            with open(path, "wb") as output:
                for at in range(0, size, len(block)):
                    output.write(block[: size - at])

    def _hold(self, report: Report, seconds: float, rate: float) -> None:
        """Progress and log lines in turn, because the service thins out progress but never a log. Progress carries the wall clock's low 31
        bits, in milliseconds, as its count of frames: a watcher takes that off its own clock."""
        report.enter(Step.STEP_PROCESSING, CLOCK_SPAN)
        end = time.monotonic() + seconds
        due = time.monotonic()
        ticks = 0
        while (now := time.monotonic()) < end:
            if rate == 0:
                report.cancel.wait(end - now)
                break
            due = max(due + 1 / rate, now)
            report.cancel.wait(due - now)
            ticks += 1
            if ticks % 2 == 0:
                report.log(f"tick {ticks}")
            else:
                report.advance(int(time.time() * 1000) % CLOCK_SPAN)

    def cancel(self) -> None:
        pass
