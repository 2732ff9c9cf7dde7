"""A large file on its way to the service over tus 1.0.0 (https://tus.io/protocols/resumable-upload).

What the service has got is asked of it before anything is sent again, so that a cut connection or a restart costs only what was under way.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from os import PathLike
from pathlib import Path
from typing import IO, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict, ParseError
from google.rpc import status_pb2

from ._calls import CHUNK_BYTES, SILENCE, FileSource, backoff
from ._errors import ClientError
from ._trust import Trust
from .v1.upload_service_pb2 import UploadResponse

#: From so many bytes on a file whose parts can be read again goes up in pieces.
RESUMABLE_BYTES = 16 * 1024 * 1024
#: Large enough that asking costs nothing, small enough that a body limit of a proxy lets it through.
PIECE_BYTES = 8 * 1024 * 1024
#: Of an answer that says what is wrong.
MOST_WORDS = 256 * 1024

_VERSION = {"Tus-Resumable": "1.0.0"}
_BY_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    410: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def bytes_of(source: FileSource) -> int | None:
    """How many there are, where its parts can be read again; None: it is read once."""
    if isinstance(source, bytes):
        return len(source)
    return Path(source).stat().st_size if isinstance(source, (str, PathLike)) else None


class HttpRefusal(ClientError):
    """What the service, or the way to it, said of a request over HTTP."""

    def __init__(self, code: grpc.StatusCode, message: str, details: list[Any] | None = None, status: int | None = None) -> None:
        told = status_pb2.Status(code=code.value[0], message=message)
        for detail in details or []:
            # One that is not known here says nothing to who reads it either.
            with contextlib.suppress(ParseError, TypeError):
                told.details.append(ParseDict(detail, AnyMessage()))
        super().__init__(code, message, (("grpc-status-details-bin", told.SerializeToString()),) if told.details else ())
        self.status = status
        #: Seconds after which it may be asked again; None: it did not say.
        self.retry_after: float | None = None

    @property
    def is_gone(self) -> bool:
        return self.status in (404, 410)

    @property
    def is_passing(self) -> bool:
        """Another try may go well."""
        # 409, 423: another request for the upload is under way, or the offset was not the service's; asked again it tells.
        status = self.status
        return status is None or status in (409, 423, 429) or (status >= 500 and status not in (501, 507))


class UploadStopped(Exception):
    """Nobody waits for it any more."""


class ResumableUpload:
    """One file. `place`: where uploads are made. `patience`: seconds that it goes on without getting anywhere.

    `stop`: ends it from another thread.
    """

    def __init__(
        self,
        source: FileSource,
        filename: str | None,
        on_progress: Callable[[int, int | None], object] | None,
        *,
        place: str,
        trust: Trust,
        token: str | None,
        patience: float,
        stop: threading.Event | None = None,
    ) -> None:
        self._source = source
        size = bytes_of(source)
        assert size is not None
        self._size = size
        self._filename = filename if filename is not None else "" if isinstance(source, bytes) else Path(str(source)).name
        self._on_progress = on_progress
        self._place, self._trust, self._patience = place, trust, patience
        self._headers = {**_VERSION, **({} if token is None else {"Authorization": f"Bearer {token}"})}
        self._stop = stop or threading.Event()
        self._url: str | None = None
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._reached = 0
        #: What went wrong on this side; urllib takes it for the network's.
        self._failure: BaseException | None = None

    def run(self) -> UploadResponse:
        """To the end, over lost connections. Raises `grpc.RpcError` for what no repetition mends; what goes wrong in reading as it is."""
        with self._open() as file:
            tried, reached, until = 0, 0, time.monotonic() + self._patience
            while True:
                try:
                    answer = self._attempt(file)
                except HttpRefusal as refusal:
                    begun_anew = refusal.is_gone and self._url is not None
                    if begun_anew:
                        self._url = None
                    elif not refusal.is_passing:
                        raise
                    if self._reached > reached:
                        tried, reached, until = 0, self._reached, time.monotonic() + self._patience
                    delay = max(backoff(tried), refusal.retry_after or 0)
                    tried += 1
                    if time.monotonic() + delay > until:
                        raise
                    if self._stop.wait(delay):
                        raise UploadStopped from None
                else:
                    return self._checked(answer)

    def _open(self) -> IO[bytes]:
        return io.BytesIO(self._source) if isinstance(self._source, bytes) else Path(str(self._source)).open("rb")

    def _attempt(self, file: IO[bytes]) -> Message:
        """Sends what the service has not got."""
        answer = self._create() if self._url is None else self._ask(self._url)
        at = int(answer.get("Upload-Offset") or 0)
        self._reached = max(self._reached, at)
        while at < self._size:
            answer = self._send(file, at)
            now = int(answer.get("Upload-Offset") or 0)
            if now <= at:
                raise HttpRefusal(grpc.StatusCode.INTERNAL, "the service took nothing of what it was sent", status=500)
            at = self._reached = now
        return answer

    def _create(self) -> Message:
        name = base64.b64encode(self._filename.encode()).decode()
        answer = self._request("POST", self._place, {"Upload-Length": str(self._size), "Upload-Metadata": f"filename {name}"}, b"")
        upload_id = (answer.get("Location") or "").rsplit("/", 1)[-1]
        if not upload_id:
            raise HttpRefusal(grpc.StatusCode.INTERNAL, "the service named no place for the upload", status=501)
        self._url = f"{self._place}/{upload_id}"
        return answer

    def _ask(self, url: str) -> Message:
        answer = self._request("HEAD", url)
        if (length := answer.get("Upload-Length")) is not None and int(length) != self._size:
            raise HttpRefusal(grpc.StatusCode.NOT_FOUND, "another upload is there", status=404)
        return answer

    def _send(self, file: IO[bytes], at: int) -> Message:
        end = min(self._size, at + PIECE_BYTES)
        headers = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream", "Content-Length": str(end - at)}
        assert self._url is not None
        return self._request("PATCH", self._url, headers, self._piece(file, at, end))

    def _piece(self, file: IO[bytes], at: int, end: int) -> Iterator[bytes]:
        try:
            file.seek(at)
            while at < end:
                if self._stop.is_set():
                    raise UploadStopped
                chunk = file.read(min(CHUNK_BYTES, end - at))
                if not chunk:
                    raise OSError("the file has become shorter while it was read: send it again")
                # What is sent again was seen before.
                if at + len(chunk) > self._hashed:
                    self._digest.update(chunk[max(0, self._hashed - at) :])
                    self._hashed = at + len(chunk)
                yield chunk
                at += len(chunk)
                if self._on_progress is not None:
                    self._on_progress(at, self._size)
        except GeneratorExit:
            raise
        except BaseException as failure:
            self._failure = failure
            raise

    def _request(
        self, method: str, url: str, headers: dict[str, str] | None = None, body: bytes | Iterator[bytes] | None = None
    ) -> Message:
        if self._stop.is_set():
            raise UploadStopped
        request = urllib.request.Request(url, body, {**self._headers, **(headers or {})}, method=method)  # type: ignore[arg-type]
        try:
            with self._trust.open(request, SILENCE, redirects=False) as answer:
                answer.read()
                return answer.headers
        except urllib.error.HTTPError as refused:
            with refused:
                raise self._refusal(refused) from None
        except (OSError, http.client.HTTPException) as lost:
            if self._failure is not None:
                raise self._failure from None
            cause = lost.reason if isinstance(lost, urllib.error.URLError) else lost
            # An authority that is not believed will not be believed the next time.
            lasting = isinstance(cause, ssl.SSLCertVerificationError)
            raise HttpRefusal(grpc.StatusCode.UNAVAILABLE, f"the connection was lost: {cause}", status=501 if lasting else None) from lost

    def _refusal(self, refused: urllib.error.HTTPError) -> HttpRefusal:
        body: Any = {}
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            body = json.loads(refused.read(MOST_WORDS))
        body = body if isinstance(body, dict) else {}
        by_status = _BY_STATUS.get(refused.code, grpc.StatusCode.UNAVAILABLE if refused.code >= 500 else grpc.StatusCode.INVALID_ARGUMENT)
        code = grpc.StatusCode.__members__.get(str(body.get("code", "")).upper(), by_status)
        message = str(body.get("message") or f"the service answered {refused.code}")
        refusal = HttpRefusal(code, message, body.get("details") or [], refused.code)
        after = refused.headers.get("Retry-After") or ""
        refusal.retry_after = float(after) if after.isdigit() else None
        return refusal

    def _checked(self, answer: Message) -> UploadResponse:
        told = UploadResponse(
            uri=answer.get("Upload-Uri") or f"upload://{(self._url or '').rsplit('/', 1)[-1]}",
            sha256=answer.get("Upload-Sha256") or "",
            bytes=self._size,
            media_type=answer.get("Upload-Media-Type") or "",
        )
        if expires := answer.get("Upload-Expires"):
            told.expire_time.FromDatetime(parsedate_to_datetime(expires))
        if told.sha256 != self._digest.hexdigest():
            raise OSError("the file changed on the way to the service or while it was read: send it again")
        return told
