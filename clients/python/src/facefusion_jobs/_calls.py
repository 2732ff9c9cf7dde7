"""What both clients have in common: how a request is made, when a call is made again, when a job has ended, files in and out."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import random
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeAlias

import grpc
from google.protobuf.json_format import ParseDict

from ._errors import details_of
from ._trust import Trust
from .v1.access_service_pb2 import CreateKeyRequest, RotateKeyRequest
from .v1.event_pb2 import JobEvent
from .v1.job_pb2 import Job, JobRequest, JobStatus
from .v1.job_service_pb2 import SubmitBatchRequest, SubmitRequest
from .v1.upload_service_pb2 import UploadMetadata, UploadRequest, UploadResponse

FileSource: TypeAlias = str | PathLike[str] | bytes | IO[bytes]
#: A job of a batch: a request, or its fields; among them `ref`, a name that the others' `job://NAME` take.
BatchJob: TypeAlias = JobRequest | Mapping[str, Any]

TERMINAL = frozenset(JobStatus.Value(f"JOB_STATUS_{word}") for word in ("SUCCEEDED", "FAILED", "CANCELED", "REFUSED"))
CHUNK_BYTES = 256 * 1024
#: Seconds without a byte after which a download is given up.
SILENCE = 60.0
#: How often a call is made again when its connection breaks, and a result fetched again.
LOSSES = 5

_log = logging.getLogger("facefusion_jobs")


class JobNotSucceeded(Exception):
    """A job that ended without a result: failed, canceled or refused. `job` says which and why."""

    def __init__(self, job: Job) -> None:
        word = JobStatus.Name(job.status).removeprefix("JOB_STATUS_").lower()
        why = f": {job.error.message} ({job.error.reason})" if job.HasField("error") else ""
        super().__init__(f"{job.job_id} {word}{why}")
        self.job = job
        self.reason = job.error.reason


def is_terminal(status: int) -> bool:
    return status in TERMINAL


def status_in(event: JobEvent) -> int:
    """The status that an event tells; 0: none."""
    kind = event.WhichOneof("event")
    return event.state.status if kind == "state" else event.snapshot.job.status if kind == "snapshot" else 0


def to_submit(request: JobRequest | None, fields: Mapping[str, Any]) -> SubmitRequest:
    """One request is one job: it is given an idempotency key."""
    job = to_request(request, fields)
    if not job.HasField("idempotency_key"):
        job.idempotency_key = secrets.token_hex(16)
    return SubmitRequest(job=job)


def to_batch(jobs: Iterable[BatchJob], stop_on_failure: bool, idempotency_key: str | None) -> SubmitBatchRequest:
    made = SubmitBatchRequest(stop_on_failure=stop_on_failure, idempotency_key=idempotency_key or secrets.token_hex(16))
    for job in jobs:
        if isinstance(job, JobRequest):
            made.jobs.add(job=job)
        else:
            fields = dict(job)
            made.jobs.add(ref=fields.pop("ref", ""), job=to_request(None, fields))
    return made


def to_request(request: JobRequest | None, fields: Mapping[str, Any]) -> JobRequest:
    """A request from its fields, `parameters` as a plain dict."""
    made = JobRequest()
    if request is not None:
        made.CopyFrom(request)
    parameters = fields.get("parameters")
    made.MergeFrom(JobRequest(**{name: value for name, value in fields.items() if name != "parameters" and value is not None}))
    if parameters is not None:
        ParseDict(parameters, made.parameters)
    return made


def warn_not_canceled(job_id: str, failure: grpc.RpcError) -> None:
    """Of a wait that was broken off: its caller is told of that."""
    details = details_of(failure)
    _log.warning("%s was left and could not be canceled, and may go on: %s (%s)", job_id, details.message, details.code.name)


def backoff(tried: int, first: float = 0.25, longest: float = 5.0) -> float:
    """Seconds; doubles with each try, half of it by chance."""
    cap = min(longest, first * 2**tried)
    return cap / 2 + random.random() * cap / 2


def is_loss(error: grpc.RpcError) -> bool:
    """A broken connection, or a service that goes down, rather than its word on the call."""
    details = details_of(error)
    if details.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED):
        return True
    return details.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and not details.any


def may_repeat(request: Any) -> bool:
    """Not what would be there twice: a key, or a submission without an idempotency key."""
    if isinstance(request, (CreateKeyRequest, RotateKeyRequest)):
        return False
    submitted = request.job if "job" in request.DESCRIPTOR.fields_by_name else request
    return "idempotency_key" not in submitted.DESCRIPTOR.fields_by_name or submitted.HasField("idempotency_key")


class Tries:
    """The repetitions of one call. `patience`: seconds for all of them. `repeatable`: it may be made twice."""

    def __init__(self, patience: float, repeatable: bool) -> None:
        self._until = time.monotonic() + patience
        self._repeatable = repeatable
        self._tried = 0

    def delay(self, error: grpc.RpcError) -> float | None:
        """Seconds until it is made again; None: not at all."""
        delay = self._asked(error)
        if delay is None and self._tried < LOSSES and self._repeatable and is_loss(error):
            delay = backoff(self._tried)
        self._tried += 1
        return None if delay is None or time.monotonic() + delay > self._until else delay

    @staticmethod
    def _asked(error: grpc.RpcError) -> float | None:
        """The service's own word: it has changed nothing yet."""
        details = details_of(error)
        return details.retry_after if details.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED) else None


class Sending:
    """One try to send a file. Raises OSError for a file that is not there."""

    def __init__(self, source: FileSource, filename: str | None, on_progress: Callable[[int, int | None], object] | None) -> None:
        self._source = source
        self._on_progress = on_progress
        self._digest = hashlib.sha256()
        path = Path(source) if isinstance(source, (str, PathLike)) else None
        self._bytes = path.stat().st_size if path else len(source) if isinstance(source, bytes) else None
        self._filename = filename if filename is not None else Path(path or getattr(source, "name", "") or "").name
        #: What went wrong while it was read; gRPC keeps that for itself.
        self.failure: BaseException | None = None

    def parts(self) -> Iterator[UploadRequest]:
        try:
            yield UploadRequest(metadata=UploadMetadata(filename=self._filename, bytes=self._bytes))
            sent = 0
            for chunk in self._chunks():
                self._digest.update(chunk)
                yield UploadRequest(chunk=chunk)
                sent += len(chunk)
                if self._on_progress is not None:
                    self._on_progress(sent, self._bytes)
        except GeneratorExit:
            raise
        except BaseException as failure:
            self.failure = failure
            raise

    def check(self, answer: UploadResponse) -> UploadResponse:
        if answer.sha256 != self._digest.hexdigest():
            raise OSError("the file changed on the way to the service or while it was read: send it again")
        return answer

    def _chunks(self) -> Iterator[bytes]:
        source = self._source
        if isinstance(source, bytes):
            yield from (source[at : at + CHUNK_BYTES] for at in range(0, len(source), CHUNK_BYTES))
        elif isinstance(source, (str, PathLike)):
            with Path(source).open("rb") as file:
                yield from iter(lambda: file.read(CHUNK_BYTES), b"")
        else:
            yield from iter(lambda: source.read(CHUNK_BYTES), b"")


def can_be_read_again(source: FileSource) -> bool:
    return isinstance(source, (bytes, str, PathLike))


class ResultLost(OSError):
    """A result did not come, or not whole: another try may get it, from another replica."""


def fetch(url: str, path: Path, sha256: str, trust: Trust) -> None:
    """Streams what is at `url` to `path`, which is there only when it is whole. Raises ResultLost, and OSError for what ails the file."""
    part, digest = Path(f"{path}.part"), hashlib.sha256()
    try:
        with part.open("wb") as file, contextlib.closing(_received(url, trust)) as chunks:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise ResultLost("the result did not arrive whole: fetch it again")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _received(url: str, trust: Trust) -> Generator[bytes, None, None]:
    try:
        with trust.open(urllib.request.Request(url), SILENCE, redirects=True) as response:
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as lost:
        cause = lost.reason if isinstance(lost, urllib.error.URLError) and not isinstance(lost, urllib.error.HTTPError) else lost
        # An authority that is not believed will not be believed the next time.
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise
        raise ResultLost(f"the result could not be fetched: {cause}") from lost
