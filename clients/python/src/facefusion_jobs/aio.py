"""The client for asyncio: the methods of `JobsClient`, awaited."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from . import _calls
from ._calls import FileSource, JobNotSucceeded, is_terminal
from .v1.access_service_pb2_grpc import AccessServiceStub
from .v1.event_pb2 import JobEvent
from .v1.job_pb2 import Job, JobRequest, JobStatus, MediaResult
from .v1.job_service_pb2 import CancelRequest, GetRequest, GetResultRequest, SubmitRequest, WatchRequest
from .v1.job_service_pb2_grpc import JobServiceStub
from .v1.process_service_pb2_grpc import ProcessServiceStub
from .v1.system_service_pb2_grpc import SystemServiceStub
from .v1.upload_service_pb2 import UploadResponse
from .v1.upload_service_pb2_grpc import UploadServiceStub
from .v1.webhook_service_pb2_grpc import WebhookServiceStub


class AsyncJobsClient:
    """See `JobsClient`. Made inside a running event loop and used in that one."""

    def __init__(
        self,
        server: str = "127.0.0.1:8000",
        *,
        token: str | None = None,
        patience: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._address = _calls.Address.of(server)
        self._patience = patience
        self._metadata = _calls.bearer(token)
        secure = self._address.secure or credentials is not None
        self._channel = (
            grpc.aio.secure_channel(self._address.target, credentials or grpc.ssl_channel_credentials(), options=_calls.CHANNEL_OPTIONS)
            if secure
            else grpc.aio.insecure_channel(self._address.target, options=_calls.CHANNEL_OPTIONS)
        )
        self.jobs = JobServiceStub(self._channel)
        self.process = ProcessServiceStub(self._channel)
        self.system = SystemServiceStub(self._channel)
        self.uploads = UploadServiceStub(self._channel)
        self.access = AccessServiceStub(self._channel)
        self.webhooks = WebhookServiceStub(self._channel)

    async def __aenter__(self) -> AsyncJobsClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def submit(self, request: JobRequest | None = None, /, **fields: Any) -> Job:
        """Submits a job from its fields: `source_images`, `target_image` or `target_video`, `parameters` (a dict) and so on."""
        return (await self._unary(self.jobs.Submit, SubmitRequest(job=_calls.to_request(request, fields)))).job

    async def get(self, job_id: str) -> Job:
        return (await self._unary(self.jobs.Get, GetRequest(job_id=job_id))).job

    async def cancel(self, job_id: str) -> Job:
        return (await self._unary(self.jobs.Cancel, CancelRequest(job_id=job_id))).job

    async def watch(self, job_id: str, *, after: int | None = None) -> AsyncIterator[JobEvent]:
        """A job's events until it has ended, in order and without gaps, over lost connections too. `after`: the last sequence known."""
        failures = 0
        while True:
            lost: grpc.RpcError | None = None
            stream = self.jobs.Watch(WatchRequest(job_id=job_id, after_sequence=after), metadata=self._metadata)
            try:
                async for message in stream:
                    event, failures = message.event, 0
                    after = event.sequence or after
                    yield event
                    if is_terminal(_calls.status_in(event)):
                        return
                # Ended without a terminal event: the service went down in good order, or we asked for what lies past the job's end.
                job = await self.get(job_id)
                # What it may have told meanwhile another connection replays.
                if is_terminal(job.status) and (after is None or job.sequence <= after):
                    yield JobEvent(sequence=job.sequence, time=job.updated_at, snapshot={"job": job})
                    return
            except grpc.RpcError as error:
                if not _calls.is_loss(error):
                    raise
                lost = error
            finally:
                stream.cancel()
            failures += 1
            if failures >= _calls.WATCH_ATTEMPTS:
                raise lost or RuntimeError("the event stream ended early again and again")
            await asyncio.sleep(_calls.backoff(failures - 1))

    async def wait(self, job_id: str, *, on_event: Callable[[JobEvent], object] | None = None) -> Job:
        """The job when it has ended well, with its result and a signed URL to it; else raises `JobNotSucceeded`."""
        async for event in self.watch(job_id):
            if on_event is not None:
                on_event(event)
        job = await self.get(job_id)
        if job.status != JobStatus.JOB_STATUS_SUCCEEDED:
            raise JobNotSucceeded(job)
        return job

    async def submit_and_wait(
        self, request: JobRequest | None = None, /, *, on_event: Callable[[JobEvent], object] | None = None, **fields: Any
    ) -> Job:
        """Cancels the job when the wait is broken off (its task is cancelled, an error in `on_event`): nobody else knows of it."""
        job_id = (await self.submit(request, **fields)).job_id
        try:
            return await self.wait(job_id, on_event=on_event)
        except (JobNotSucceeded, grpc.RpcError):
            raise
        except BaseException:
            # Shielded: the task that is being cancelled must not take this along.
            await asyncio.shield(asyncio.ensure_future(self.cancel(job_id)))
            raise

    async def upload(
        self,
        source: FileSource,
        *,
        filename: str | None = None,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> UploadResponse:
        """Gives the service a file (path, bytes, open file); its `uri` takes the place of a path or URL in a request."""
        digest = hashlib.sha256()
        parts = _calls.upload_parts(source, filename, digest, on_progress)

        async def requests() -> AsyncIterator[Any]:
            # Files are read on a thread: a slow disk must not hold the loop.
            while (part := await asyncio.to_thread(next, parts, None)) is not None:
                yield part

        answer = await self.uploads.Upload(requests(), metadata=self._metadata)
        if answer.sha256 != digest.hexdigest():
            raise OSError("the file changed on the way to the service or while it was read: send it again")
        return answer

    async def download(self, job_id: str, path: str | Path) -> MediaResult:
        """Streams a finished job's result to `path`; it appears under its name only when it is whole."""
        answer = await self._unary(self.jobs.GetResult, GetResultRequest(job_id=job_id))
        await asyncio.to_thread(_calls.fetch, self._address.url(answer.url), Path(path), answer.result.sha256)
        return answer.result

    async def _unary(self, call: Any, request: Any) -> Any:
        until, tried = time.monotonic() + self._patience, 0
        while True:
            try:
                return await call(request, metadata=self._metadata)
            except grpc.RpcError as error:
                delay = _calls.retry_after(error, tried)
                if delay is None or time.monotonic() + delay > until:
                    raise
            tried += 1
            await asyncio.sleep(delay)
