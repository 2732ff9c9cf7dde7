"""Where this engine takes hold of the running program: steps and progress, cancel, errors, children, model sessions.

Always true here: outside a run the hooks do nothing; within one, every wait of the program (an inference, a child, a queue of frames) ends
when the run is cancelled; and what the content analyser looks at, asks and answers is untouched.
"""

from __future__ import annotations

import collections
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import onnxruntime

from ...engine import EngineError, Report, Step
from ...pictures import jpeg_preview
from .media import is_full, no_space
from .models import Models
from .program import Program

_OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to allocate|not enough memory|cudaErrorMemoryAllocation|ALLOC_FAILED|smaller than requested bytes|bad allocation"
    r"|bad_alloc|insufficient memory",
    re.IGNORECASE,
)
_FOLDERS = re.compile(r"(?:/[^\s/:]+)+/")
_PREFIX = re.compile(r"^\[[A-Z0-9_.]+\] ")


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


# The distances of work at which a step's time is noted.
_MARKS = 10


class Run:
    """One run of the program, as the hooks see it. Its first step counts from here, its last one until `leave`."""

    def __init__(self, report: Report, frames: int) -> None:
        self.report = report
        self.frames = frames
        self.step: Step | None = None
        self.step_seconds: dict[Step, float] = {}
        # As in `Report.plan`, of the steps that told of all their work.
        self.step_shapes: dict[Step, list[float]] = {}
        self.analysed = False
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.faces_asked = self.faces_found = False
        self.range: tuple[int, int] | None = None  # of the target video's frames
        self.after_analysis: Callable[[], bool] = lambda: False  # answers whether the content is refused
        self._entered = time.monotonic()
        self._marks: list[float] = []
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._native: set[Any] = set()  # options of the sessions that run or load now
        self._shown = 0
        self._said = ""

    # -- the program's threads -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        self.report.cancel.check()

    def enter(self, step: Step) -> None:
        if self.step is not None:
            self.leave()
            self._entered = time.monotonic()
        self.step, self._marks = step, []
        self.report.enter(step, self.frames)

    def leave(self) -> None:
        if self.step is not None:
            seconds = time.monotonic() - self._entered
            self.step_seconds[self.step] = self.step_seconds.get(self.step, 0.0) + seconds
            if len(self._marks) > _MARKS:
                self.step_shapes[self.step] = [(mark - self._entered) / seconds for mark in self._marks]
            self.step = None

    def advance(self, done: float, total: float) -> None:
        """`done` of the `total` of one of the program's bars, which need not count in frames of the job."""
        if not total:
            return
        while done > 0 and len(self._marks) <= _MARKS and done * _MARKS >= total * len(self._marks):
            self._marks.append(time.monotonic())
        self.report.advance(min(self.frames, int(done * self.frames / total)))

    def show(self, pixels: Any) -> None:
        if self.analysed and self.report.wants_preview():
            self.report.preview(jpeg_preview(pixels[:, :, :3]), self._shown)
        self._shown += 1

    def add_child(self, child: Child) -> None:
        with self._lock:
            # Those that have ended are the program's again, and their pipes go when it lets go of them.
            self._said = next((one.complaint for one in self._children if one.returncode is not None and one.complaint), self._said)
            self._children = {one for one in self._children if one.returncode is None} | {child}
        if self.report.cancel.is_set:
            child.kill()

    @contextmanager
    def native(self, options: Any, stop: Callable[[Any], None]) -> Iterator[None]:
        """Registers a call into onnxruntime that `stop` breaks off."""
        entry = (options, stop)
        with self._lock:
            self._native.add(entry)
        try:
            self.check()  # after it is registered: a cancel in between is seen by one of the two
            yield
        finally:
            with self._lock:
                self._native.discard(entry)

    # -- the control thread ----------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        with self._lock:
            native, children = list(self._native), list(self._children)
        for options, stop in native:
            stop(options)
        for child in children:
            child.kill()

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        self.leave()
        with self._lock:
            children, self._children = self._children, set()
        for child in children:
            child.end()

    def said(self) -> str:
        """The last thing that ffmpeg complained of."""
        return next((child.complaint for child in self._children if child.complaint), self._said)


class Child(subprocess.Popen):  # type: ignore[type-arg]
    """A child of the program: reads nothing of ours, and its complaints never fill a pipe that nobody empties."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        settings.setdefault("stdin", subprocess.DEVNULL)
        self._complaints: collections.deque[bytes] = collections.deque(maxlen=20)
        self._listener: threading.Thread | None = None
        drain = settings.get("stderr") == subprocess.PIPE
        super().__init__(*arguments, **settings)
        if drain and self.stderr is not None:
            # The program waits for the child's end before it reads this pipe, if it reads it at all.
            pipe, self.stderr = self.stderr, None
            self._listener = threading.Thread(target=self._listen, args=(pipe,), name="ffmpeg", daemon=True)
            self._listener.start()

    def _listen(self, pipe: Any) -> None:
        with pipe:
            for line in pipe:
                self._complaints.append(line)

    @property
    def complaint(self) -> str:
        return self._complaints[-1].decode(errors="replace").strip() if self._complaints else ""

    def communicate(self, *arguments: Any, **settings: Any) -> Any:
        output, errors = super().communicate(*arguments, **settings)
        return output, b"".join(self._complaints) if errors is None and self._listener else errors

    def wait(self, timeout: float | None = None) -> int:
        """Wakes when the child ends, where the plain one looks again every 50 ms."""
        if timeout is not None and self.returncode is None and hasattr(os, "pidfd_open"):
            with suppress(OSError):
                descriptor = os.pidfd_open(self.pid)
                try:
                    select.select([descriptor], [], [], timeout)
                finally:
                    os.close(descriptor)
                timeout = 0.005
        return super().wait(timeout)

    def end(self) -> None:
        """Not one process, descriptor or thread of it is left."""
        if self.poll() is None:
            self.kill()
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.wait()
        if self._listener is not None:
            self._listener.join()


class _Subprocess:
    """Stands for the module `subprocess` within three of the program's modules."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks

    def Popen(self, *arguments: Any, **settings: Any) -> Child:
        child = Child(*arguments, **settings)
        if self._hooks.run is not None:
            self._hooks.run.add_child(child)
        return child

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


class _Pool(ThreadPoolExecutor):
    """An error ends the queue of frames: without this the rest of the video would be processed first."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        self.shutdown(wait=True, cancel_futures=kind is not None)
        return False


class Hooks:
    """Put in place once; `run` is the run they serve."""

    def __init__(self, program: Program, models: Models) -> None:
        self.run: Run | None = None
        self._program = program
        self._models = models
        self._install_children()
        self._install_sessions()
        self._install_models()
        self._install_bars()
        self._install_tasks()
        self._install_frames()
        self._install_faces()
        for name in program.release.trims:
            module = program.module("workflows." + name)
            module.restrict_trim_frame = self._range(module.restrict_trim_frame)
        handler = _LogHandler(self)
        logger = logging.getLogger("facefusion")
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)

    @contextmanager
    def serving(self, run: Run) -> Iterator[None]:
        self._program.reset()
        self.run = run
        try:
            yield
        finally:
            run.close()
            self._program.reset()
            self.run = None

    def interrupt(self) -> None:
        """From the control thread."""
        run = self.run
        if run is not None:
            processes = self._program.module("process_manager")
            if processes.is_processing():
                processes.stop()
            run.interrupt()

    def _install_children(self) -> None:
        for name in ("ffmpeg", "ffprobe", "download"):
            self._program.module(name).subprocess = _Subprocess(self)
        videos = self._program.module("video_manager")
        close = videos.close_video_writer

        def close_video_writer(writer: Any) -> bool:
            if self.run is not None and self.run.report.cancel.is_set:
                writer["process"].kill()  # what it has not written yet, nobody wants
            try:
                return bool(close(writer))
            except OSError:  # it is gone, and with it the reader of its pipe
                writer["process"].wait()
                return False

        videos.close_video_writer = close_video_writer

    def _install_sessions(self) -> None:
        hooks = self
        manager = self._program.module("inference_manager")
        plain = manager.InferenceSession

        class Session(plain):  # type: ignore[misc, valid-type]
            def __init__(self, path: str, sess_options: Any = None, **settings: Any) -> None:
                options = sess_options or onnxruntime.SessionOptions()
                hooks._models.loading(path)
                run = hooks.run
                if run is None:
                    super().__init__(path, options, **settings)
                else:
                    try:
                        with run.native(options, _stop_loading):
                            super().__init__(path, options, **settings)
                    except Exception:
                        run.check()
                        raise
                hooks._models.loaded(path, self)

            def run(self, names: Any, feed: Any, run_options: Any = None) -> Any:
                hooks._models.used(self)
                run = hooks.run
                if run is None:
                    return super().run(names, feed, run_options)
                options = run_options or onnxruntime.RunOptions()
                try:
                    with run.native(options, _stop_running):
                        return super().run(names, feed, options)
                except Exception as error:
                    run.check()
                    if is_out_of_memory(error):
                        raise _no_memory(error) from error
                    raise

        manager.InferenceSession = Session

        def fatal_exit(code: int) -> None:
            """In place of the end of the whole process: called while the reason is being handled."""
            error = sys.exc_info()[1]
            if error is not None and is_out_of_memory(error):
                raise _no_memory(error) from None
            name = self._models.loading_name
            raise EngineError("MODEL_DAMAGED", f"The model {name} cannot be loaded: {_first_line(error)}")

        manager.fatal_exit = fatal_exit

    def _install_models(self) -> None:
        """Nothing is fetched within a job, nothing is deleted, and what is missing has a name."""
        download, models = self._program.module("download"), self._models
        hashes, sources, validate = download.validate_hash_paths, download.validate_source_paths, download.validate_hash

        def validate_hash_paths(paths: list[str]) -> Any:
            self._check()
            return models.recorded(paths) or hashes(paths)

        def validate_source_paths(paths: list[str]) -> Any:
            self._check()
            return models.recorded(paths) or sources(paths)

        def validate_hash(path: str) -> bool:
            self._check()
            return models.verdict(path, validate)

        download.validate_hash_paths = validate_hash_paths
        download.validate_source_paths = validate_source_paths
        download.validate_hash = validate_hash
        remove, fetch = download.remove_file, download.conditional_download
        download.remove_file = lambda path: models.fetching and remove(path)
        download.conditional_download = lambda folder, urls: fetch(folder, urls) if models.fetching else None

    def _check(self) -> None:
        if self.run is not None:
            self.run.check()

    def _install_bars(self) -> None:
        hooks = self

        class Bar:
            """What the program asks of `tqdm`."""

            def __init__(self, total: float = 0, initial: float = 0, desc: str = "", **_: Any) -> None:
                self.total, self.n, self.desc = total, initial, desc

            def __enter__(self) -> Bar:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def set_postfix(self, **_: Any) -> None:
                pass

            def update(self, amount: float = 1) -> None:
                self.n += amount
                if hooks.run is not None:
                    hooks.run.check()
                    hooks.run.advance(self.n, self.total)
                elif hooks._models.fetching:
                    hooks._models.fetching(self.n, self.total)

        release = self._program.release
        for name in ("content_analyser", "ffmpeg", "download", *("workflows." + pool for pool in release.pools)):
            self._program.module(name).tqdm = Bar
        for name in release.pools:
            self._program.module("workflows." + name).ThreadPoolExecutor = _Pool

    def _install_tasks(self) -> None:
        for workflow, tasks in self._program.release.workflows.items():
            module = self._program.module("workflows." + workflow)
            for name, step in tasks.items():
                setattr(module, name, self._task(name, getattr(module, name), step))

    def _task(self, name: str, task: Callable[..., int], step: Step | None) -> Callable[..., int]:
        def wrapped(*arguments: Any) -> int:
            run = self.run
            if run is None:
                return task(*arguments)
            run.check()
            if step is not None:
                run.enter(step)
            code = task(*arguments)
            run.check()
            if step == Step.STEP_ANALYSING and code == 0:
                if run.after_analysis():
                    return 3
                run.analysed = True
            return code

        wrapped.__name__ = name
        return wrapped

    def _install_frames(self) -> None:
        videos = self._program.module("video_manager")
        videos.write_video_frame = self._shown(videos.write_video_frame)
        for writer in self._program.release.writers:
            module = self._program.module("workflows." + writer)
            module.write_image = self._shown(_written(module.write_image))

    def _shown(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(where: Any, pixels: Any) -> Any:
            self._check()
            if self.run is not None:
                self.run.show(pixels)
            return write(where, pixels)

        return wrapped

    def _install_faces(self) -> None:
        """Whether any face of the target was taken: the program says nothing when it takes none."""
        for option in self._program.actions["processors"].choices or ():
            module = self._program.processors([option])[0]
            if hasattr(module, "select_faces"):
                module.select_faces = self._selected(module.select_faces)

    def _range(self, restrict: Callable[..., Any]) -> Callable[..., Any]:
        """Counted in frames of the target; the program would cut it to the number of files on disk, in memory none."""

        def wrapped(*arguments: Any) -> Any:
            return self.run.range if self.run is not None and self.run.range else restrict(*arguments)

        return wrapped

    def _selected(self, select_faces: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **settings: Any) -> Any:
            faces = select_faces(*arguments, **settings)
            if self.run is not None:
                self.run.faces_asked = True
                self.run.faces_found = self.run.faces_found or bool(faces)
            return faces

        return wrapped


def _written(write_image: Callable[[str, Any], bool]) -> Callable[[str, Any], bool]:
    """The program does not ask whether a frame could be written, and goes on with half of one."""

    def wrapped(path: str, pixels: Any) -> bool:
        if not write_image(path, pixels) or is_full(os.path.dirname(path)):
            raise no_space()
        return True

    return wrapped


class _LogHandler(logging.Handler):
    """Keeps what the program complains of; the lines themselves go the way of all logging."""

    def __init__(self, hooks: Hooks) -> None:
        super().__init__(logging.WARNING)
        self._hooks = hooks

    def emit(self, record: logging.LogRecord) -> None:
        run = self._hooks.run
        if run is not None:
            kept = run.errors if record.levelno >= logging.ERROR else run.warnings
            kept.append(_PREFIX.sub("", record.getMessage()))


def _stop_running(options: Any) -> None:
    options.terminate = True


def _stop_loading(options: Any) -> None:
    # Since onnxruntime 1.21; before that a model is loaded to its end.
    if hasattr(options, "set_load_cancellation_flag"):
        options.set_load_cancellation_flag(True)


def _no_memory(error: BaseException) -> EngineError:
    return EngineError("GPU_OUT_OF_MEMORY", f"The models ran out of memory: {_first_line(error)}", retryable=True)


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines() if error is not None else []
    # Where the models lie is nobody's affair but the operator's.
    return _FOLDERS.sub("", lines[0])[:300] if lines else type(error).__name__
