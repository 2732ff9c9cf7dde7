"""The wire: `facefusion.worker.v1` in its ProtoJSON mapping, one message a line, on two dedicated descriptors.

Always true here: a line leaves whole or not at all, fields that hold their default are left out (as protobuf's own writers do), and
nothing that the service sends can raise out of the reader.
"""

from __future__ import annotations

import json
import os
import re
import select
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .engine import Capabilities, Job, MediaKind, Option, Processor, Result, Step

# A control line holds paths and options. More than this is not a message.
MAX_CONTROL_LINE = 8 << 20
# Long enough for a traceback; the service keeps log lines in its event store.
MAX_TEXT = 16_384


class WireError(ValueError):
    """A line from the service that is not a message."""


@dataclass(frozen=True)
class Run:
    job: Job


@dataclass(frozen=True)
class Cancel:
    job_id: str


@dataclass(frozen=True)
class Shutdown:
    pass


@dataclass(frozen=True)
class Unknown:
    """A message of a newer service: told in the log, otherwise ignored."""

    names: tuple[str, ...] = field(default=())


ToWorker = Run | Cancel | Shutdown | Unknown

_CAMEL = re.compile(r"([A-Z])")


def _snake(name: str) -> str:
    return name if name.islower() else _CAMEL.sub(lambda match: "_" + match.group(1).lower(), name)


def _fields(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{what} is not an object")
    return {_snake(key): entry for key, entry in value.items() if entry is not None}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise WireError(f"{name} is not a string")
    return value


def _media_kind(value: object) -> MediaKind:
    try:
        return MediaKind[str(value)] if isinstance(value, str) else MediaKind(value)
    except (KeyError, ValueError):
        return MediaKind.MEDIA_KIND_UNSPECIFIED


def _run(value: object) -> Run:
    fields = _fields(value, "run")
    job_id, attempt = _text(fields, "job_id"), fields.get("attempt", 0)
    sources, parameters = fields.get("source_paths", []), fields.get("parameters", {})
    if not job_id:
        raise WireError("run without a job_id")
    if not isinstance(sources, list) or not all(isinstance(path, str) for path in sources):
        raise WireError("source_paths is not a list of strings")
    if not isinstance(parameters, dict):
        raise WireError("parameters is not an object")
    try:
        number = int(attempt)
    except (TypeError, ValueError, OverflowError):
        raise WireError("attempt is not a number") from None
    return Run(
        Job(
            job_id=job_id,
            attempt=number,
            source_paths=tuple(sources),
            source_audio_path=_text(fields, "source_audio_path"),
            target_path=_text(fields, "target_path"),
            target_kind=_media_kind(fields.get("target_kind", 0)),
            output_path=_text(fields, "output_path"),
            output_format=_text(fields, "output_format"),
            parameters=parameters,
            work_dir=_text(fields, "work_dir"),
            previews=bool(fields.get("previews", False)),
            low_memory=bool(fields.get("low_memory", False)),
        )
    )


def parse(line: bytes | str) -> ToWorker:
    """One control line. Proto and camelCase names are taken, unknown fields ignored; raises WireError and nothing else."""
    try:
        fields = _fields(json.loads(line), "message")
    except (ValueError, RecursionError) as error:
        raise WireError(str(error)) from None
    if "run" in fields:
        return _run(fields["run"])
    if "cancel" in fields:
        return Cancel(_text(_fields(fields["cancel"], "cancel"), "job_id"))
    if "shutdown" in fields:
        return Shutdown()
    return Unknown(tuple(fields))


def read_lines(descriptor: int) -> Iterator[bytes]:
    """The descriptor's lines until its end. A read that fails is an end: the other side is gone."""
    pending = bytearray()
    while True:
        try:
            chunk = os.read(descriptor, 65_536)
        except InterruptedError:
            continue
        except OSError:
            return
        if not chunk:
            return
        pending += chunk
        while (end := pending.find(b"\n")) >= 0:
            line = bytes(pending[:end])
            del pending[: end + 1]
            if line.strip():
                yield line
        if len(pending) > MAX_CONTROL_LINE:
            pending.clear()
            yield b"\xff"  # not JSON: reported like any other bad line


# -- messages to the service: plain dictionaries, fields in the schema's order, defaults left out --------------------------------------


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def clean_text(text: str) -> str:
    """UTF-8 that any reader takes (a file name may carry lone surrogates), of a length that an event may have."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _processor(processor: Processor) -> dict[str, Any]:
    return _given(
        name=processor.name,
        description=processor.description,
        needs_source_image=processor.needs_source_image,
        needs_source_audio=processor.needs_source_audio,
    )


def _option(option: Option) -> dict[str, Any]:
    message = _given(name=option.name, type=option.type.name, list=option.list, choices=list(option.choices))
    # These three have presence in the schema: zero is a value, absent is none.
    if option.minimum is not None:
        message["minimum"] = option.minimum
    if option.maximum is not None:
        message["maximum"] = option.maximum
    if option.default is not None:
        message["default"] = option.default
    message |= _given(help=option.help, processor=option.processor)
    if option.dependent_choices:
        message["dependent_choices"] = [
            _given(option=rule.option, value=rule.value, choices=list(rule.choices)) for rule in option.dependent_choices
        ]
    return message


def _capabilities(capabilities: Capabilities) -> dict[str, Any]:
    return _given(
        processors=[_processor(processor) for processor in capabilities.processors],
        options=[_option(option) for option in capabilities.options],
        image_formats=list(capabilities.image_formats),
        video_formats=list(capabilities.video_formats),
        ignored_options=list(capabilities.ignored_options),
    )


def ready(
    engine: str,
    version: str,
    capabilities: Capabilities,
    pid: int,
    warm_seconds: float,
    warm_models: Sequence[str],
    model_digest: str = "",
) -> dict[str, Any]:
    body = _given(engine=engine, engine_version=version)
    body["capabilities"] = _capabilities(capabilities)
    return {"ready": body | _given(pid=pid, warm_seconds=warm_seconds, warm_models=list(warm_models), model_digest=model_digest)}


def progress(
    job: Job, step: Step, percent: float, frames_done: int = 0, frames_total: int = 0, rate: float = 0.0, eta: float | None = None
) -> dict[str, Any]:
    body = _given(
        job_id=job.job_id,
        attempt=job.attempt,
        step=step.name if step else "",
        percent=percent,
        frames_done=frames_done,
        frames_total=frames_total,
        frames_per_second=rate,
    )
    if eta is not None:
        body["eta_seconds"] = eta
    return {"progress": body}


def preview(job: Job, jpeg_base64: str, frame: int) -> dict[str, Any]:
    return {"preview": _given(job_id=job.job_id, attempt=job.attempt, jpeg_base64=jpeg_base64, frame=frame)}


def log(level: str, message: str, job: Job | None = None) -> dict[str, Any]:
    """`level` is one of DEBUG, INFO, WARN, ERROR."""
    body = _given(job_id=job.job_id, attempt=job.attempt) if job else {}
    return {"log": body | {"level": "LOG_LEVEL_" + level, "message": clean_text(message)}}


def done(job: Job, result: Result, step_seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "done": _given(
            job_id=job.job_id,
            attempt=job.attempt,
            media_type=result.media_type,
            width=result.width,
            height=result.height,
            frames=result.frames,
            duration_seconds=result.duration_seconds,
            warnings=[clean_text(warning) for warning in result.warnings],
            step_seconds=dict(step_seconds),
        )
    }


def failed(job: Job, outcome: str, reason: str, message: str, retryable: bool) -> dict[str, Any]:
    """`outcome` is one of ERROR, CANCELED, REFUSED."""
    return {
        "failed": _given(
            job_id=job.job_id,
            attempt=job.attempt,
            outcome="OUTCOME_" + outcome,
            reason=reason,
            message=clean_text(message),
            retryable=retryable,
        )
    }


def idle(job: Job, rss_bytes: float, warm_models: Sequence[str]) -> dict[str, Any]:
    return {"idle": _given(job_id=job.job_id, attempt=job.attempt, rss_bytes=rss_bytes, warm_models=list(warm_models))}


def heartbeat(rss_bytes: float) -> dict[str, Any]:
    return {"heartbeat": _given(rss_bytes=rss_bytes)}


class EventWriter:
    """Owns the event descriptor. Any thread may send but the one that reads control messages: a full pipe makes a sender wait, and
    a cancel must never stand behind that."""

    def __init__(self, descriptor: int, gone: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._gone = gone
        self._encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)

    def send(self, *messages: dict[str, Any]) -> None:
        """Several messages leave one after another, with nothing between them, in one write."""
        lines = "".join([self._encode(message) + "\n" for message in messages]).encode()
        with self._lock:
            self._write(lines)

    def send_if_room(self, message: dict[str, Any]) -> bool:
        """For what the next one of its kind makes obsolete: dropped when the service does not keep up. Answers whether it was sent."""
        line = self._encode(message).encode() + b"\n"
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._writable.poll(0):
                return False
            self._write(line)
            return True
        finally:
            self._lock.release()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                self._writable.poll()
            except OSError:  # broken pipe: the service is gone
                self._gone()
                return
