"""Every rpc of the contract over one channel, and what each call of it has: the caller's token, and patience.

A unary call is made again only where the service asks for it (`RetryInfo`: it has changed nothing yet), or where the connection broke and
the call may be made twice.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

import grpc
import grpc.aio

from ._calls import FileSource, Tries, may_repeat
from ._trust import PathOf, Trust
from ._tus import RESUMABLE_BYTES, ResumableUpload, bytes_of
from .v1.access_service_pb2_grpc import AccessServiceStub
from .v1.job_service_pb2_grpc import JobServiceStub
from .v1.process_service_pb2_grpc import ProcessServiceStub
from .v1.system_service_pb2_grpc import SystemServiceStub
from .v1.upload_service_pb2_grpc import UploadServiceStub
from .v1.webhook_service_pb2_grpc import WebhookServiceStub

if TYPE_CHECKING:
    from .v1.access_service_pb2_grpc import AccessServiceAsyncStub
    from .v1.job_service_pb2_grpc import JobServiceAsyncStub
    from .v1.process_service_pb2_grpc import ProcessServiceAsyncStub
    from .v1.system_service_pb2_grpc import SystemServiceAsyncStub
    from .v1.upload_service_pb2_grpc import UploadServiceAsyncStub
    from .v1.webhook_service_pb2_grpc import WebhookServiceAsyncStub

# A Watch may be silent for long: pings tell a quiet service from one that is gone.
CHANNEL_OPTIONS = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000), ("grpc.http2.max_pings_without_data", 0))


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


class Service:
    """The stubs over a channel whose calls block."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.jobs = JobServiceStub(channel)
        self.process = ProcessServiceStub(channel)
        self.system = SystemServiceStub(channel)
        self.uploads = UploadServiceStub(channel)
        self.access = AccessServiceStub(channel)
        self.webhooks = WebhookServiceStub(channel)


class AioService:
    """The same over a channel of asyncio: the classes are one, what their calls answer is to be awaited."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.jobs = cast("JobServiceAsyncStub", JobServiceStub(channel))
        self.process = cast("ProcessServiceAsyncStub", ProcessServiceStub(channel))
        self.system = cast("SystemServiceAsyncStub", SystemServiceStub(channel))
        self.uploads = cast("UploadServiceAsyncStub", UploadServiceStub(channel))
        self.access = cast("AccessServiceAsyncStub", AccessServiceStub(channel))
        self.webhooks = cast("WebhookServiceAsyncStub", WebhookServiceStub(channel))


class Connecting:
    """How a client reaches its service: by calls over gRPC, and for files over HTTP at the same address."""

    def __init__(
        self,
        server: str,
        token: str | None,
        patience: float,
        ca: PathOf | None,
        certificate: tuple[PathOf, PathOf] | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self.address = Address.of(server)
        if not self.address.secure and credentials is None and (ca is not None or certificate is not None):
            raise ValueError(f"server is '{server}', without TLS; `ca` and `certificate` are for https://{self.address.target}")
        self.token, self.patience = token, patience
        self.trust = Trust(self.address.base_url, ca, certificate)
        self.credentials = credentials or (self.trust.credentials() if self.address.secure else None)

    def uploading(
        self,
        source: FileSource,
        filename: str | None,
        on_progress: Callable[[int, int | None], object] | None,
        stop: threading.Event | None = None,
    ) -> ResumableUpload | None:
        """For a file that is large and can be read again; None: it goes as one stream. Raises OSError for one that is not there."""
        if (bytes_of(source) or 0) < RESUMABLE_BYTES:
            return None
        return ResumableUpload(
            source,
            filename,
            on_progress,
            place=self.address.url("/api/v1/tus"),
            trust=self.trust,
            token=self.token,
            patience=self.patience,
            stop=stop,
        )


def open_channel(address: Address, token: str | None, patience: float, secure: grpc.ChannelCredentials | None) -> grpc.Channel:
    if secure is not None:
        channel = grpc.secure_channel(address.target, secure, options=CHANNEL_OPTIONS)
    else:
        channel = grpc.insecure_channel(address.target, options=CHANNEL_OPTIONS)
    return grpc.intercept_channel(channel, _Calls(token, patience))


def open_aio_channel(address: Address, token: str | None, patience: float, secure: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    # One for each kind of call: of several kinds in one class grpc.aio sees the first alone.
    calls = [kind(token, patience) for kind in (_AioCalls, _AioServerStreams, _AioClientStreams)]
    if secure is not None:
        return grpc.aio.secure_channel(address.target, secure, options=CHANNEL_OPTIONS, interceptors=calls)
    return grpc.aio.insecure_channel(address.target, options=CHANNEL_OPTIONS, interceptors=calls)


class _Caller:
    def __init__(self, token: str | None, patience: float) -> None:
        self._added = () if token is None else (("authorization", f"Bearer {token}"),)
        self._patience = patience

    def _signed(self, details: Any) -> Any:
        return details._replace(metadata=(*(details.metadata or ()), *self._added))


class _AioCaller(_Caller):
    def _signed(self, details: Any) -> Any:
        return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), *self._added))


class _Calls(_Caller, grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        tries = Tries(self._patience, may_repeat(request))
        while True:
            call = continuation(self._signed(client_call_details), request)
            error = call.exception()
            delay = tries.delay(error) if isinstance(error, grpc.RpcError) else None
            if delay is None:
                return call
            time.sleep(delay)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._signed(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._signed(client_call_details), request_iterator)


class _AioCalls(_AioCaller, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        tries = Tries(self._patience, may_repeat(request))
        while True:
            call = await continuation(self._signed(client_call_details), request)
            try:
                await call
            except grpc.RpcError as error:
                delay = tries.delay(error)
                if delay is None:
                    return call
                await asyncio.sleep(delay)
            else:
                return call


class _AioServerStreams(_AioCaller, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._signed(client_call_details), request)


class _AioClientStreams(_AioCaller, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._signed(client_call_details), request_iterator)
