"""`python -m facefusion_worker --engine NAME --control-fd 3 --event-fd 4`: the only reader of arguments, environment and signals.

Before any engine is imported: the two descriptors belong to this process alone, stdin is empty and stdout is stderr, because libraries and
their children read and print as they like.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback

from .engine import EngineError, load_engine
from .worker import Worker

EXIT_ENGINE_FAILED = 70


def _own_descriptors(control: int, events: int) -> tuple[int, int]:
    for descriptor in (control, events):
        os.set_inheritable(descriptor, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0, inheritable=True)
    os.close(null)
    os.dup2(2, 1, inheritable=True)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return control, events


def _process_start() -> float:
    """When this process began, as wall-clock seconds: `warm_seconds` counts the interpreter's own start too."""
    try:
        with open("/proc/self/stat", "rb") as stat, open("/proc/uptime", "rb") as uptime:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
            return time.time() - (float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return time.time()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m facefusion_worker", description="One worker process of facefusion-jobs.")
    parser.add_argument("--engine", default=os.environ.get("FFJOBS_WORKER_ENGINE", "classical"), help="a built-in engine, or module:Class")
    parser.add_argument("--control-fd", type=int, default=int(os.environ.get("FFJOBS_WORKER_CONTROL_FD", "3")))
    parser.add_argument("--event-fd", type=int, default=int(os.environ.get("FFJOBS_WORKER_EVENT_FD", "4")))
    arguments = parser.parse_args()
    if min(arguments.control_fd, arguments.event_fd) <= 2:
        parser.error("the control and event descriptors must not be stdin, stdout or stderr")
    started = _process_start()
    try:
        control, events = _own_descriptors(arguments.control_fd, arguments.event_fd)
    except OSError as error:
        parser.error(f"the control and event descriptors must be open: {error}")
    worker = Worker(control, events, started)
    worker.listen()
    try:
        engine = load_engine(arguments.engine)
        worker.attach_logging()
        worker.serve(engine)
    except EngineError as error:
        # Not a defect but a state of this machine: one sentence says it, and it is the last that stderr holds.
        worker.fail_to_start(error.message)
        print(error.message, file=sys.stderr, flush=True)
        return EXIT_ENGINE_FAILED
    except Exception:
        worker.fail_to_start(f"engine {arguments.engine} did not start\n{traceback.format_exc()}")
        return EXIT_ENGINE_FAILED
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: a thread of a native library must not hold up the end
