"""Engines that misbehave, one class each. Standard library only."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from noop import Noop

from facefusion_worker.engine import Job, Report, Result


class Curious(Noop):
    """Logs what a child process inherits, what it reads from stdin, and which heavy libraries are loaded."""

    def run(self, job: Job, report: Report) -> Result:
        listing = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)))"
        child = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, close_fds=False, check=True)
        report.log("fds " + child.stdout.strip())
        report.log("stdin " + repr(os.read(0, 100)))
        report.log("loaded " + " ".join(sorted({"cv2", "av", "numpy"} & set(sys.modules))))
        return super().run(job, report)


class Parent(Noop):
    """Waits for a child that does not end; logs its process id."""

    def run(self, job: Job, report: Report) -> Result:
        with subprocess.Popen(["sleep", "600"]) as child:
            report.log(f"child {child.pid}")
            child.wait()
        raise AssertionError


class Exits(Noop):
    def run(self, job: Job, report: Report) -> Result:
        raise SystemExit(3)


class Hungry(Noop):
    def run(self, job: Job, report: Report) -> Result:
        raise MemoryError


class FullDisk(Noop):
    def run(self, job: Job, report: Report) -> Result:
        with open("/dev/full", "wb") as full:
            full.write(b"x")
        raise AssertionError


class Unborn(Noop):
    def __init__(self) -> None:
        raise RuntimeError("no such card")


class Interrupted(Noop):
    """Waits in what a token cannot break, as a native call would; `cancel` breaks it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def run(self, job: Job, report: Report) -> Result:
        report.log("waiting")
        os.read(self._read, 1)
        report.cancel.check()
        return super().run(job, report)

    def cancel(self) -> None:
        os.write(self._write, b"x")


class Limited(Noop):
    """Says what it is limited to, asks for more memory than that, and writes more than a file may hold."""

    def run(self, job: Job, report: Report) -> Result:
        report.log(f"core {resource.getrlimit(resource.RLIMIT_CORE)[0]} file {resource.getrlimit(resource.RLIMIT_FSIZE)[0]}")
        try:
            bytearray(2 << 30)
        except MemoryError:
            report.log("no memory")
        with open(job.output_path, "wb") as output:
            output.write(bytes(5000))
        return super().run(job, report)


class NotANumber(Noop):
    def run(self, job: Job, report: Report) -> Result:
        return Result(media_type="video/mp4", duration_seconds=float("nan"))
