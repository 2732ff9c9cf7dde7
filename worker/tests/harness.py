"""A worker process as the service holds it: two pipes, no clock but a deadline on every wait."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEADLINE = 30.0


class WorkerProcess:
    def __init__(
        self, engine: str, ready: bool = True, python: str = sys.executable, limits: dict[str, int] | None = None, **environment: str
    ) -> None:
        control, self._control = os.pipe()
        self._events, events = os.pipe()
        paths = os.pathsep.join([str(HERE.parent), str(HERE / "engines")])
        command = [python, "-m", "facefusion_worker", "--engine", engine, "--control-fd", str(control), "--event-fd", str(events)]
        for name, value in (limits or {}).items():
            command += ["--limit", f"{name}={value}"]
        self.process = subprocess.Popen(
            command,
            pass_fds=(control, events),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, **environment},
            start_new_session=True,
        )
        os.close(control)
        os.close(events)
        self._buffer = b""
        self.ready = self.wait_for("ready") if ready else None

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._events)
        self.process.stderr.close()
        self.process.stdout.close()

    def hang_up(self) -> None:
        """What the death of the service looks like."""
        if self._control >= 0:
            os.close(self._control)
            self._control = -1

    def send_raw(self, line: bytes) -> None:
        os.write(self._control, line + b"\n")

    def send(self, **message: Any) -> None:
        self.send_raw(json.dumps(message).encode())

    def run(self, job_id: str, output: Path, attempt: int = 1, **fields: Any) -> None:
        run = {"job_id": job_id, "attempt": attempt, "output_path": str(output), "output_format": "jpg", "target_path": "/dev/null"}
        self.send(run=run | fields)

    def next(self) -> tuple[str, dict[str, Any]]:
        """The next message; raises EOFError when the worker is gone."""
        until = time.monotonic() + DEADLINE
        while b"\n" not in self._buffer:
            if not select.select([self._events], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the worker says nothing")
            chunk = os.read(self._events, 1 << 16)
            if not chunk:
                raise EOFError(self._buffer)
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        ((kind, body),) = json.loads(line).items()
        return kind, body

    def until(self, *kinds: str) -> list[tuple[str, dict[str, Any]]]:
        """All messages up to the first of one of these kinds."""
        seen = []
        while not seen or seen[-1][0] not in kinds:
            seen.append(self.next())
        return seen

    def wait_for(self, kind: str) -> dict[str, Any]:
        return self.until(kind)[-1][1]

    def outcome(self) -> dict[str, Any]:
        """The answer of the current run, once its `idle` has come too."""
        answer = self.until("done", "failed")[-1][1]
        assert self.until("idle")[-1][1]["job_id"] == answer["job_id"]
        return answer

    def exit_code(self) -> int:
        return self.process.wait(DEADLINE)


def wait_for_file(path: Path) -> None:
    """For what only the file system tells."""
    until = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.005)
