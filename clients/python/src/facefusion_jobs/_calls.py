"""What both clients have in common: how a request is made, when a call is made again, when a job has ended, files in and out."""

from __future__ import annotations

import hashlib
import random
import secrets
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import urljoin, urlsplit

import grpc
from google.protobuf.json_format import ParseDict

from ._errors import details_of
from .v1.event_pb2 import JobEvent
from .v1.job_pb2 import Job, JobRequest, JobStatus
from .v1.upload_service_pb2 import UploadMetadata, UploadRequest

FileSource: TypeAlias = str | PathLike[str] | bytes | IO[bytes]

TERMINAL = frozenset(JobStatus.Value(f"JOB_STATUS_{word}") for word in ("SUCCEEDED", "FAILED", "CANCELED", "REFUSED"))
CHUNK_BYTES = 256 * 1024
# A Watch may be silent for long: pings tell a quiet service from one that is gone.
CHANNEL_OPTIONS = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000), ("grpc.http2.max_pings_without_data", 0))
#: Connections of one watch in a row without an event after which it gives up: about 45 seconds.
WATCH_ATTEMPTS = 12
LOSSES = 5


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


def to_request(request: JobRequest | None, fields: Mapping[str, Any]) -> JobRequest:
    """A request from its fields, `parameters` as a plain dict. One request is one job: it is given an idempotency key."""
    made = JobRequest()
    if request is not None:
        made.CopyFrom(request)
    parameters = fields.get("parameters")
    made.MergeFrom(JobRequest(**{name: value for name, value in fields.items() if name != "parameters" and value is not None}))
    if parameters is not None:
        ParseDict(parameters, made.parameters)
    if not made.HasField("idempotency_key"):
        made.idempotency_key = secrets.token_hex(16)
    return made


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


def retry_after(error: grpc.RpcError, tried: int) -> float | None:
    """Seconds until a call that may be made twice is made again; None: not at all."""
    details = details_of(error)
    if details.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED) and details.retry_after is not None:
        return details.retry_after
    return backoff(tried) if tried < LOSSES and is_loss(error) else None


@dataclass(frozen=True)
class Address:
    target: str
    base_url: str
    secure: bool

    @classmethod
    def of(cls, server: str) -> Address:
        """`host:port`, `http://host:port` or `https://host:port`."""
        parts = urlsplit(server if "://" in server else f"http://{server}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"server is '{server}'; it takes host:port, or a URL such as http://127.0.0.1:8000")
        secure = parts.scheme == "https"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        target = f"{host}:{parts.port or (443 if secure else 80)}"
        return cls(target, f"{parts.scheme}://{target}", secure)

    def url(self, url: str) -> str:
        """A URL of the service's, which may be without a host."""
        return urljoin(self.base_url, url)


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {token}"),)


def upload_parts(source: FileSource, filename: str | None, digest: Any, on_progress: Any) -> Iterator[UploadRequest]:
    """The messages of one upload; `digest` sees every byte."""
    if isinstance(source, bytes):
        name, total, chunks = "", len(source), (source[at : at + CHUNK_BYTES] for at in range(0, len(source), CHUNK_BYTES))
    elif isinstance(source, (str, PathLike)):
        path = Path(source)
        name, total, chunks = path.name, path.stat().st_size, _chunks_of(path)
    else:
        name, total, chunks = Path(getattr(source, "name", "") or "").name, None, iter(lambda: source.read(CHUNK_BYTES), b"")
    yield UploadRequest(metadata=UploadMetadata(filename=filename if filename is not None else name, bytes=total))
    sent = 0
    for chunk in chunks:
        digest.update(chunk)
        yield UploadRequest(chunk=chunk)
        sent += len(chunk)
        if on_progress is not None:
            on_progress(sent, total)


def _chunks_of(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")


def fetch(url: str, path: Path, sha256: str) -> None:
    """Streams what is at `url` to `path`, which is there only when it is whole. Raises OSError."""
    part, digest = Path(f"{path}.part"), hashlib.sha256()
    try:
        with urllib.request.urlopen(url) as response, part.open("wb") as file:
            while chunk := response.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise OSError("the result did not arrive whole: fetch it again")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
