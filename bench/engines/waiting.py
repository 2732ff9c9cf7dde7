"""An engine that stands for a GPU: each frame of a job takes its time, and takes nothing of the processor. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from facefusion_worker.engine import Capabilities, Job, Option, OptionType, Processor, Report, Result, Step
from noop import Noop


class Waiting(Noop):
    name = "waiting"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            processors=[Processor("waiting", "waits")],
            options=[
                Option("frames", OptionType.OPTION_TYPE_INTEGER, "of the job", minimum=1, maximum=100_000, default=125),
                Option("frame_seconds", OptionType.OPTION_TYPE_NUMBER, "of each", minimum=0, maximum=10, default=0.03),
            ],
            image_formats=["png", "jpg", "webp"],
            video_formats=["mp4"],
        )

    def warm(self) -> Sequence[str]:
        return ()

    def run(self, job: Job, report: Report) -> Result:
        frames, seconds = int(job.parameters["frames"]), float(job.parameters["frame_seconds"])
        report.plan({Step.STEP_PROCESSING: 1.0})
        report.enter(Step.STEP_PROCESSING, frames)
        for number in range(frames):
            report.cancel.wait(seconds)
            report.advance(number + 1)
        with open(job.output_path, "wb") as output:
            output.write(b"ok\n")
        return Result(media_type="video/mp4", width=1, height=1, frames=frames)
