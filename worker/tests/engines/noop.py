"""An engine that does nothing, at once: it writes a file of three bytes. For measuring the loop and for tests that need no media."""

from __future__ import annotations

from collections.abc import Sequence

from facefusion_worker.engine import Capabilities, Job, Processor, Report, Result


class Noop:
    name = "noop"
    version = "1"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            processors=[Processor("face_swapper", "does nothing")],
            image_formats=["jpg", "png", "webp"],
            video_formats=["mp4", "webm", "mov"],
        )

    def warm(self) -> Sequence[str]:
        return ()

    def run(self, job: Job, report: Report) -> Result:
        with open(job.output_path, "wb") as output:
            output.write(b"ok\n")
        return Result(media_type="application/octet-stream", width=1, height=1, frames=1)

    def cancel(self) -> None:
        pass
