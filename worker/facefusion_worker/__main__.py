"""`python -m facefusion_worker --engine NAME --control-fd 3 --event-fd 4`: the only reader of arguments and signals.

Before any engine is imported: the two descriptors belong to this process alone, stdin is empty and stdout is stderr, because libraries and
their children read and print as they like.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import select
import signal
import sys
import time
import traceback

from .engine import EngineError, load_engine
from .worker import Worker

EXIT_ENGINE_FAILED = 70
# After the death of the service, longer than the worker itself takes to stop what runs (worker.PARENT_GONE_GRACE_SECONDS).
GUARD_GRACE_SECONDS = 1.0
# Memory is what a process may write to: address space alone is taken in terabytes by the drivers of graphics cards.
_LIMITS = {"memory": resource.RLIMIT_DATA, "file": resource.RLIMIT_FSIZE}


def _own_descriptors(control: int, events: int) -> tuple[int, int]:
    for descriptor in (control, events):
        os.set_inheritable(descriptor, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0, inheritable=True)
    os.close(null)
    os.dup2(2, 1, inheritable=True)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return control, events


def _leave_guard(control: int, events: int) -> None:
    """Leaves a process in this one's group that waits for the end of the service or of the worker and then kills what is left of the
    group. The service does that itself as long as it lives; when it is killed, a worker that is stopped or sits in native code hears
    nothing, and an engine's children hear nothing in any case. Only for the leader of a group of its own, and before there are threads."""
    worker = os.getpid()
    if os.getpgrp() != worker or os.fork() != 0:
        return
    try:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_IGN)
        for descriptor in (0, 1, 2, events):
            os.close(descriptor)
        hung_up = select.poll()
        hung_up.register(control, 0)  # what is sent there is the worker's to read
        while os.getppid() == worker and not hung_up.poll(1000):
            pass
        os.close(control)
        until = time.monotonic() + GUARD_GRACE_SECONDS
        while os.getppid() == worker and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(0, signal.SIGKILL)
    finally:
        os._exit(0)


def _limit(text: str) -> tuple[str, int]:
    name, separator, value = text.partition("=")
    if not separator or name not in _LIMITS or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"not a limit: {text!r}")
    return name, int(value)


def _limit_resources(limits: dict[str, int]) -> None:
    """For this process and all that it starts; nobody can raise them again. No dump of memory with a caller's pictures in it is written."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, value in limits.items():
        hard = resource.getrlimit(_LIMITS[name])[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(_LIMITS[name], (value, value))


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
    parser.add_argument("--engine", default="classical", help="a built-in engine, or module:Class")
    parser.add_argument("--control-fd", type=int, default=3)
    parser.add_argument("--event-fd", type=int, default=4)
    parser.add_argument("--limit", action="append", default=[], type=_limit, metavar="memory|file=BYTES", help="for each process")
    arguments = parser.parse_args()
    if min(arguments.control_fd, arguments.event_fd) <= 2:
        parser.error("the control and event descriptors must not be stdin, stdout or stderr")
    started = _process_start()
    _limit_resources(dict(arguments.limit))
    try:
        control, events = _own_descriptors(arguments.control_fd, arguments.event_fd)
    except OSError as error:
        parser.error(f"the control and event descriptors must be open: {error}")
    with contextlib.suppress(OSError):  # no room for another process: the worker itself hears the end of the service too
        _leave_guard(control, events)
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
    except Exception as error:
        # A defect: its trace is for the log, its last line for whoever asks what is wrong.
        traceback.print_exc()
        sentence = f"The engine {arguments.engine} did not start: {''.join(traceback.format_exception_only(error)).strip()}"
        worker.fail_to_start(sentence)
        print(sentence, file=sys.stderr, flush=True)
        return EXIT_ENGINE_FAILED
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: a thread of a native library must not hold up the end
