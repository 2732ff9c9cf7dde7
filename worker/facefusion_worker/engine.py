"""What an engine is: the protocol that every engine follows, and the words it shares with the loop.

Standard library only. A run ends in exactly one of four ways: a `Result` is returned, or `Canceled`, `ContentRefused` or another exception
is raised; after any of them the engine holds nothing of the run.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable


class MediaKind(IntEnum):
    MEDIA_KIND_UNSPECIFIED = 0
    MEDIA_KIND_IMAGE = 1
    MEDIA_KIND_VIDEO = 2


class Step(IntEnum):
    STEP_UNSPECIFIED = 0
    STEP_LOADING_MODELS = 1
    STEP_ANALYSING = 2
    STEP_EXTRACTING_FRAMES = 3
    STEP_PROCESSING = 4
    STEP_ENCODING_OUTPUT = 5
    STEP_RESTORING_AUDIO = 6


class OptionType(IntEnum):
    OPTION_TYPE_BOOLEAN = 1
    OPTION_TYPE_INTEGER = 2
    OPTION_TYPE_NUMBER = 3
    OPTION_TYPE_STRING = 4


class EngineError(Exception):
    """A failure with a name: `reason` is stable and upper snake case, `message` one sentence for the caller."""

    def __init__(self, reason: str, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable


class ContentRefused(Exception):
    """The content analyser's word. Not a failure; never tried again."""

    def __init__(self, message: str, reason: str = "CONTENT_REFUSED") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Canceled(BaseException):
    """The run was stopped as asked. Not an `Exception`, so that an engine's own `except Exception` does not swallow it."""


class CancelToken:
    """Set once, from the thread that reads control messages; an engine asks between two pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        if self._event.is_set():
            raise Canceled

    def wait(self, seconds: float) -> None:
        """Sleeps, and raises `Canceled` the moment the run is cancelled."""
        if self._event.wait(seconds):
            raise Canceled


class Job(NamedTuple):
    """One run as the service sent it. Paths are absolute and chosen by the service."""

    job_id: str
    attempt: int
    source_paths: tuple[str, ...] = ()
    source_audio_path: str = ""
    target_path: str = ""
    target_kind: MediaKind = MediaKind.MEDIA_KIND_UNSPECIFIED
    output_path: str = ""
    output_format: str = ""
    parameters: Mapping[str, Any] = {}
    work_dir: str = ""
    previews: bool = False
    low_memory: bool = False  # the run before this one ran out of memory


@dataclass(frozen=True)
class Result:
    """What lies at `output_path`, as found there, not as hoped for."""

    media_type: str
    width: int = 0
    height: int = 0
    frames: int = 0
    duration_seconds: float = 0.0
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Processor:
    name: str
    description: str = ""
    needs_source_image: bool = False
    needs_source_audio: bool = False


@dataclass(frozen=True)
class DependentChoices:
    option: str
    value: str
    choices: Sequence[str]


@dataclass(frozen=True)
class Option:
    name: str
    type: OptionType
    help: str = ""
    list: bool = False
    choices: Sequence[str] = ()
    minimum: float | None = None
    maximum: float | None = None
    default: Any = None
    processor: str = ""
    dependent_choices: Sequence[DependentChoices] = ()


@dataclass(frozen=True)
class Capabilities:
    processors: Sequence[Processor] = ()
    options: Sequence[Option] = ()
    image_formats: Sequence[str] = ()
    video_formats: Sequence[str] = ()
    ignored_options: Sequence[str] = field(default=())


_EVEN: Mapping[Step, Sequence[float]] = MappingProxyType({})


class Report(Protocol):
    """The engine's side of one run. Calls are cheap: the loop drops what comes too often."""

    cancel: CancelToken

    def plan(self, weights: Mapping[Step, float], shapes: Mapping[Step, Sequence[float]] = _EVEN) -> None:
        """The share of each step in the whole run; said once, before the first step. Only the ratio matters.

        `shapes` has the steps whose time does not go evenly with their work: the shares of the step's time, rising, that have passed
        when its first piece of work is done, and then at even distances, up to when its last one is.
        """

    def enter(self, step: Step, total: int = 0) -> None:
        """A step begins (and the one before it ends): `total` pieces of work, 0 if unknown."""

    def advance(self, done: int) -> None:
        """`done` pieces of the current step are finished. Raises `Canceled` if the run was cancelled."""

    def wants_preview(self) -> bool:
        """Whether a preview would be sent now: asked before the picture is made."""

    def preview(self, jpeg: bytes, frame: int) -> None: ...

    def log(self, message: str, level: str = "INFO") -> None:
        """A line for the job's log; `level` is DEBUG, INFO, WARN or ERROR."""


@runtime_checkable
class KnowsModels(Protocol):
    """What an engine is whose results depend on files that its version does not fix."""

    def model_digest(self) -> str:
        """Tells one set of model files from another. Asked once, after `warm`; reads no model whole."""
        ...


class Engine(Protocol):
    """One engine, made once per process with no arguments. All but `cancel` run on the main thread."""

    name: str
    version: str

    def capabilities(self) -> Capabilities: ...

    def warm(self) -> Sequence[str]:
        """Loads what every run needs; answers the names of the models now warm. Called before the worker says that it is ready, and
        again, as a question, after every run: the second call must be cheap."""

    def run(self, job: Job, report: Report) -> Result: ...

    def cancel(self) -> None:
        """From the control thread, after the run's token was set: breaks what a token cannot (a native call, a child). Must not block."""


def load_engine(name: str) -> Engine:
    """A built-in engine by its name, or any class as `module:Class`."""
    module_name, separator, class_name = name.partition(":")
    if not separator:
        if not name.isidentifier():
            raise ValueError(f"not an engine's name: {name!r}")
        module_name, class_name = f"{__package__}.engines.{name}", name.title().replace("_", "")
    return getattr(importlib.import_module(module_name), class_name)()
