"""The client for asyncio: the methods of `JobsClient`, awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc

from . import _calls
from ._calls import BatchJob, FileSource, JobNotSucceeded
from ._follow import BatchFollowed, Followed, JobFollowed, Told
from ._service import AioService, Connecting, open_aio_channel
from ._trust import PathOf
from .v1.event_pb2 import JobEvent
from .v1.job_pb2 import Job, JobRequest, JobStatus, MediaResult
from .v1.job_service_pb2 import Batch, CancelRequest, GetRequest, GetResultRequest, WatchBatchResponse
from .v1.upload_service_pb2 import UploadResponse


class AsyncJobsClient(AioService):
    """See `JobsClient`. Made inside a running event loop and used in that one."""

    def __init__(
        self,
        server: str = "127.0.0.1:8000",
        *,
        token: str | None = None,
        patience: float = 60.0,
        ca: PathOf | None = None,
        certificate: tuple[PathOf, PathOf] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._connecting = Connecting(server, token, patience, ca, certificate, credentials)
        self._channel = open_aio_channel(self._connecting.address, token, patience, self._connecting.credentials)
        super().__init__(self._channel)

    async def __aenter__(self) -> AsyncJobsClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def submit(self, request: JobRequest | None = None, /, **fields: Any) -> Job:
        """Submits a job from its fields: `source_images`, `target_image` or `target_video`, `parameters` (a dict) and so on."""
        return (await self.jobs.Submit(_calls.to_submit(request, fields))).job

    async def submit_batch(self, jobs: Iterable[BatchJob], *, stop_on_failure: bool = False, idempotency_key: str | None = None) -> Batch:
        """Up to 1,000 jobs, all accepted or none. Each is given by its fields, among them `ref`: its name in another one's `job://NAME`."""
        return (await self.jobs.SubmitBatch(_calls.to_batch(jobs, stop_on_failure, idempotency_key))).batch

    async def get(self, job_id: str) -> Job:
        return (await self.jobs.Get(GetRequest(job_id=job_id))).job

    async def cancel(self, job_id: str) -> Job:
        return (await self.jobs.Cancel(CancelRequest(job_id=job_id))).job

    def watch(self, job_id: str, *, after: int | None = None) -> AsyncIterator[JobEvent]:
        """A job's events until it has ended, in order and without gaps, over lost connections too. `after`: the last sequence known."""
        return self._follow(JobFollowed(job_id, after))

    def watch_batch(self, batch_id: str) -> AsyncIterator[WatchBatchResponse]:
        """How a batch goes until it has finished, over lost connections too; each change with the batch as it is then."""
        return self._follow(BatchFollowed(batch_id))

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
            # What broke it off is what is raised, whatever comes of this. Shielded: a cancelled task must not take it along.
            try:
                await asyncio.shield(asyncio.ensure_future(self.cancel(job_id)))
            except grpc.RpcError as failure:
                _calls.warn_not_canceled(job_id, failure)
            raise

    async def upload(
        self,
        source: FileSource,
        *,
        filename: str | None = None,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> UploadResponse:
        """Gives the service a file (path, bytes, open file); its `uri` takes the place of a path or URL in a request.

        A path and bytes are sent again when the connection breaks: large ones from where it was cut, as long as the upload gets further
        within `patience`. What goes wrong in reading it is raised as it is.
        """
        stop = threading.Event()
        if (resumable := self._connecting.uploading(source, filename, on_progress, stop)) is not None:
            try:
                return await asyncio.to_thread(resumable.run)
            finally:
                # Of a task that is cancelled the thread goes on otherwise.
                stop.set()
        tries = _calls.Tries(self._connecting.patience, _calls.can_be_read_again(source))
        while True:
            sending = _calls.Sending(source, filename, on_progress)
            try:
                return sending.check(await self.uploads.Upload(_read_aside(sending.parts())))
            except (grpc.RpcError, asyncio.CancelledError) as error:
                if sending.failure is not None:
                    raise sending.failure from None
                delay = tries.delay(error) if isinstance(error, grpc.RpcError) else None
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    async def download(self, job_id: str, path: str | Path) -> MediaResult:
        """Streams a finished job's result to `path`; it appears under its name only when it is whole."""
        tried = 0
        while True:
            # Signed anew each time: the replica that the last one leads to may be gone.
            answer = await self.jobs.GetResult(GetResultRequest(job_id=job_id))
            url = self._connecting.address.url(answer.url)
            try:
                await asyncio.to_thread(_calls.fetch, url, Path(path), answer.result.sha256, self._connecting.trust)
                return answer.result
            except _calls.ResultLost:
                if tried == _calls.LOSSES:
                    raise
            await asyncio.sleep(_calls.backoff(tried))
            tried += 1

    async def _follow(self, followed: Followed[Told]) -> AsyncIterator[Told]:
        while True:
            lost: grpc.RpcError | None = None
            stream = followed.connect(self)
            try:
                async for message in stream:
                    followed.told()
                    yield followed.take(message)
                    if followed.over:
                        return
                # It has told all, or the service went down in good order.
                asked = followed.ask(self)
                if asked is None:
                    return
                rest = followed.rest(await asked)
                if rest is not None:
                    yield rest
                    return
            except grpc.RpcError as error:
                lost = error
            finally:
                stream.cancel()
            await asyncio.sleep(followed.lost(lost))


async def _read_aside(parts: Iterator[Any]) -> AsyncIterator[Any]:
    """Files are read on a thread: a slow disk must not hold the loop."""
    while (part := await asyncio.to_thread(next, parts, None)) is not None:
        yield part
