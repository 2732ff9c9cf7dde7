"""The loop of one worker process: takes runs one after another and answers each with `done` or `failed`, then `idle`.

Three threads. The main one runs the engine. One reads control messages and writes nothing, so that a cancel arrives even while the service
does not read our events. One sends heartbeats, and what the control thread has to say. The end of the control stream means that the
service is gone: the process ends then, whatever the engine does.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import logging
import math
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from . import protocol
from .engine import Canceled, CancelToken, ContentRefused, Engine, EngineError, Job, KnowsModels, Step

HEARTBEAT_SECONDS = 5.0
# How long a stopping engine may take to remove what it has half written.
SHUTDOWN_GRACE_SECONDS = 3.0
PARENT_GONE_GRACE_SECONDS = 0.5
# At most 20 progress messages and one preview a second.
PROGRESS_INTERVAL = 0.05
PREVIEW_INTERVAL = 1.0

_LEVELS = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR", logging.CRITICAL: "ERROR"}


class Memory:
    """Resident memory of this process. The file is opened once: asking costs a system call, not four."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        except OSError:
            self._statm = -1

    def resident_bytes(self) -> int:
        """0 where the system does not tell."""
        if self._statm < 0:
            return 0
        return int(os.pread(self._statm, 64, 0).split()[1]) * self._page


class RunReport:
    """The `Report` of one run: makes one number, never falling, of the weighted steps, and keeps to the rates above."""

    def __init__(self, job: Job, cancel: CancelToken, events: protocol.EventWriter) -> None:
        self.job = job
        self.cancel = cancel
        self.step_seconds: dict[str, float] = {}
        self._events = events
        self._shares: dict[Step, float] = {}
        self._shapes: Mapping[Step, Sequence[float]] = {}
        self._before = 0.0
        self._share = 0.0
        self._percent = 0.0
        self._step: Step | None = None
        self._step_began = self._began = time.monotonic()
        self._done = self._total = 0
        self._sent_at = self._preview_at = -math.inf

    def plan(self, weights: Mapping[Step, float], shapes: Mapping[Step, Sequence[float]] = MappingProxyType({})) -> None:
        whole = sum(weights.values()) or 1.0
        self._shapes = shapes
        self._shares = {step: weight / whole for step, weight in weights.items()}

    def enter(self, step: Step, total: int = 0) -> None:
        self.cancel.check()
        self.close()
        self._step, self._step_began = step, time.monotonic()
        self._before, self._share = self._before + self._share, self._shares.get(step, 0.0)
        self._done, self._total = 0, total
        self._send(self._step_began)

    def advance(self, done: int) -> None:
        self.cancel.check()
        self._done = done
        now = time.monotonic()
        if now - self._sent_at >= PROGRESS_INTERVAL:
            self._send(now)

    def _send(self, now: float) -> None:
        step = self._step
        if step is None:
            return
        within = _time_share(self._shapes.get(step, ()), min(1.0, self._done / self._total)) if self._total else 0.0
        self._percent = max(self._percent, min(100.0, 100.0 * (self._before + self._share * within)))
        elapsed, rate, eta = now - self._step_began, 0.0, None
        if self._total and self._done and elapsed > 0:
            rate = self._done / elapsed
        if self._percent > 1.0:
            eta = round((now - self._began) * (100.0 / self._percent - 1.0), 2)
        message = protocol.progress(self.job, step, round(self._percent, 2), self._done, self._total, round(rate, 2), eta)
        if self._events.send_if_room(message):
            self._sent_at = now

    def close(self) -> None:
        """Ends the current step's clock."""
        if self._step is not None:
            name = self._step.name
            self.step_seconds[name] = round(self.step_seconds.get(name, 0.0) + time.monotonic() - self._step_began, 6)
            self._step = None

    def wants_preview(self) -> bool:
        return self.job.previews and time.monotonic() - self._preview_at >= PREVIEW_INTERVAL

    def preview(self, jpeg: bytes, frame: int) -> None:
        if self.wants_preview():
            self._preview_at = time.monotonic()
            self._events.send_if_room(protocol.preview(self.job, base64.b64encode(jpeg).decode("ascii"), frame))

    def log(self, message: str, level: str = "INFO") -> None:
        self._events.send(protocol.log(level, message, self.job))


def _time_share(shape: Sequence[float], work: float) -> float:
    """The share of a step's time that has passed when that share of its work is done."""
    if not shape or work == 0:
        return work
    place = work * (len(shape) - 1)
    before = min(int(place), len(shape) - 2)
    return shape[before] + (shape[before + 1] - shape[before]) * (place - before)


class _LogHandler(logging.Handler):
    """Python's logging as `log` messages, so that an engine's libraries need not know of us."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        level = "DEBUG" if record.levelno < logging.INFO else _LEVELS.get(record.levelno, "INFO")
        try:
            self._worker.log(level, self.format(record))
        except Exception:
            self.handleError(record)


class Worker:
    def __init__(self, control: int, events: int, started: float) -> None:
        self._control = control
        self._started = started
        self._memory = Memory()
        self._events = protocol.EventWriter(events, gone=self._parent_gone)
        self._runs: queue.SimpleQueue[tuple[Job, CancelToken] | None] = queue.SimpleQueue()
        self._notices: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._tokens: dict[str, CancelToken] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._engine: Engine | None = None
        self._current: Job | None = None
        self._control_thread: threading.Thread | None = None

    # -- what the threads share ------------------------------------------------------------------------------------------------

    def log(self, level: str, message: str) -> None:
        line = protocol.log(level, message, self._current)
        if threading.current_thread() is self._control_thread:
            self._notices.put(line)
        else:
            self._events.send(line)

    def fail_to_start(self, message: str) -> None:
        self._events.send(protocol.log("ERROR", message))

    def attach_logging(self) -> None:
        root = logging.getLogger()
        root.addHandler(_LogHandler(self))
        root.setLevel(logging.INFO)

    def stop(self, grace: float = SHUTDOWN_GRACE_SECONDS) -> None:
        """Stops what runs, then the process: at the end of the run, or after `grace` seconds if the engine does not let go. From any
        thread and from a signal handler."""
        self._stopping.set()
        watchdog = threading.Timer(grace, os._exit, (0,))
        watchdog.daemon = True
        watchdog.start()
        self._runs.put(None)
        for token in list(self._tokens.values()):
            token.set()
        self._interrupt_engine()

    def _parent_gone(self) -> None:
        if not self._stopping.is_set():
            self.stop(PARENT_GONE_GRACE_SECONDS)

    def _interrupt_engine(self) -> None:
        if self._engine is not None and self._current is not None:
            try:
                self._engine.cancel()
            except Exception:
                self._notices.put(protocol.log("ERROR", "engine.cancel failed\n" + traceback.format_exc(), self._current))

    # -- control thread --------------------------------------------------------------------------------------------------------

    def _read_control(self) -> None:
        try:
            for line in protocol.read_lines(self._control):
                self._take(line)
        finally:
            self._parent_gone()

    def _take(self, line: bytes) -> None:
        try:
            message = protocol.parse(line)
        except protocol.WireError as error:
            self._notices.put(protocol.log("ERROR", f"control message ignored: {error}"))
            return
        match message:
            case protocol.Run(job):
                token = CancelToken()
                with self._lock:
                    self._tokens[job.job_id] = token
                self._runs.put((job, token))
            case protocol.Cancel(job_id):
                with self._lock:
                    token = self._tokens.get(job_id)
                    if token is not None:
                        token.set()
                        running = self._current is not None and self._current.job_id == job_id
                        if running:
                            self._interrupt_engine()
            case protocol.Shutdown():
                self.stop()
            case protocol.Unknown(names):
                self._notices.put(protocol.log("WARN", f"control message ignored: unknown kind {', '.join(names) or '(empty)'}"))

    # -- heartbeat thread ------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        due = time.monotonic() + HEARTBEAT_SECONDS
        while True:
            try:
                self._events.send(self._notices.get(timeout=max(0.0, due - time.monotonic())))
            except queue.Empty:
                self._events.send_if_room(protocol.heartbeat(self._memory.resident_bytes()))
                due = time.monotonic() + HEARTBEAT_SECONDS

    # -- main thread -----------------------------------------------------------------------------------------------------------

    def serve(self, engine: Engine) -> None:
        """Says `ready` and takes runs until told to stop."""
        self._engine = engine
        warm = engine.warm()
        seconds = round(time.time() - self._started, 3)
        digest = engine.model_digest() if isinstance(engine, KnowsModels) else ""
        self._events.send(protocol.ready(engine.name, engine.version, engine.capabilities(), os.getpid(), seconds, warm, digest))
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        while not self._stopping.is_set() and (entry := self._runs.get()) is not None:
            self._run(engine, *entry)

    def listen(self) -> None:
        """Starts to read control messages, and to heed SIGTERM. Before the engine is loaded, so that the end of the service ends a slow
        start too."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the whole group; the service decides
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self._control_thread = threading.Thread(target=self._read_control, name="control", daemon=True)
        self._control_thread.start()

    def _run(self, engine: Engine, job: Job, token: CancelToken) -> None:
        report = RunReport(job, token, self._events)
        self._current = job
        try:
            token.check()
            result = engine.run(job, report)
            report.close()
            answer = protocol.done(job, result, report.step_seconds)
        except BaseException as error:
            answer = self._failure(job, error)
        with self._lock:  # from here on a cancel is too late, and must not reach the next run
            self._current = None
            if self._tokens.get(job.job_id) is token:
                del self._tokens[job.job_id]
        if self._stopping.is_set():
            return  # a run that a shutdown broke off has no answer: the process's end is the answer
        idle = protocol.idle(job, self._memory.resident_bytes(), _warm_models(engine))
        try:
            self._events.send(answer, idle)
        except (TypeError, ValueError) as error:  # an engine's result that JSON cannot carry
            self._events.send(self._failure(job, error), idle)

    def _failure(self, job: Job, error: BaseException) -> dict[str, Any]:
        if isinstance(error, Canceled):
            return protocol.failed(job, "CANCELED", "CANCELED", "The run was cancelled.", False)
        if isinstance(error, ContentRefused):
            return protocol.failed(job, "REFUSED", error.reason, error.message, False)
        if isinstance(error, EngineError):
            return protocol.failed(job, "ERROR", error.reason, error.message, error.retryable)
        with contextlib.suppress(Exception):
            self.log("ERROR", "".join(traceback.format_exception(error)))
        if isinstance(error, MemoryError):
            return protocol.failed(job, "ERROR", "OUT_OF_MEMORY", "The engine ran out of memory.", True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return protocol.failed(job, "ERROR", "DISK_FULL", "There is no space left for the result.", True)
        return protocol.failed(job, "ERROR", "ENGINE_ERROR", f"The engine failed: {type(error).__name__}.", True)


def _warm_models(engine: Engine) -> Sequence[str]:
    try:
        return engine.warm()
    except Exception:
        return ()
