"""What is followed over as many connections as it takes: a job's events, a batch's changes.

Each says how it is asked for after what was told last, and when all is told; which connection, and when the next one, is for the client.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import grpc

from . import _calls
from ._calls import is_terminal, status_in
from ._errors import StreamEndedEarly
from ._service import AioService, Service
from .v1.event_pb2 import JobEvent
from .v1.job_service_pb2 import GetBatchRequest, GetRequest, WatchBatchRequest, WatchBatchResponse, WatchRequest

#: Connections in a row that told nothing after which a client gives up: about 45 seconds.
ATTEMPTS = 12

Told = TypeVar("Told")


class Followed(Generic[Told]):
    """One for each time that something is followed."""

    #: Nothing comes after what was told last.
    over = False
    _failures = 0

    def told(self) -> None:
        """A connection that told something begins the count of those that did not anew."""
        self._failures = 0

    def lost(self, error: grpc.RpcError | None) -> float:
        """Seconds until the next connection. `error`: what ended the last one; None: it ended in good order, too early.

        Raises what another connection cannot mend: the service's word, or the loss after too many of them.
        """
        if error is not None and not _calls.is_loss(error):
            raise error
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise error or StreamEndedEarly(
                f"the service ended the event stream {ATTEMPTS} times in a row before it had told all: {self.way_on()}"
            )
        return _calls.backoff(self._failures - 1)

    def way_on(self) -> str:
        """What a caller can do when no connection tells anything."""
        raise NotImplementedError

    def connect(self, service: Service | AioService) -> Any:
        """The stream of what comes after what was told last."""
        raise NotImplementedError

    def take(self, message: Any) -> Told:
        """What a message of the stream tells."""
        raise NotImplementedError

    def ask(self, service: Service | AioService) -> Any | None:
        """The call whose answer says whether a stream that ended in good order has told all; None: it has."""
        raise NotImplementedError

    def rest(self, answer: Any) -> Told | None:
        """What is left to tell, when all is over; None: another connection tells more."""
        raise NotImplementedError


class JobFollowed(Followed[JobEvent]):
    def __init__(self, job_id: str, after: int | None) -> None:
        self._job_id = job_id
        self._after = after

    def connect(self, service: Service | AioService) -> Any:
        return service.jobs.Watch(WatchRequest(job_id=self._job_id, after_sequence=self._after))

    def way_on(self) -> str:
        return f"the job goes on; get('{self._job_id}') says how it is, and watch('{self._job_id}', after={self._after}) tells the rest"

    def take(self, message: Any) -> JobEvent:
        event = message.event
        # Previews have no sequence.
        self._after = event.sequence or self._after
        self.over = is_terminal(status_in(event))
        return event

    def ask(self, service: Service | AioService) -> Any:
        return service.jobs.Get(GetRequest(job_id=self._job_id))

    def rest(self, answer: Any) -> JobEvent | None:
        job = answer.job
        # What it may have told meanwhile another connection replays.
        if not is_terminal(job.status) or (self._after is not None and job.sequence > self._after):
            return None
        return JobEvent(sequence=job.sequence, time=job.updated_at, snapshot={"job": job})


class BatchFollowed(Followed[WatchBatchResponse]):
    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id
        self._token = ""
        self._finished = False

    def connect(self, service: Service | AioService) -> Any:
        return service.jobs.WatchBatch(WatchBatchRequest(batch_id=self._batch_id, watch_token=self._token))

    def way_on(self) -> str:
        return f"the batch goes on; watch_batch('{self._batch_id}') tells how it is and what follows"

    def take(self, message: Any) -> WatchBatchResponse:
        self._token = message.watch_token or self._token
        self._finished = message.batch.HasField("finished_at")
        return message

    def ask(self, service: Service | AioService) -> Any | None:
        # Changes that are older than the batch's end come after it: the stream is read to its own.
        return None if self._finished else service.jobs.GetBatch(GetBatchRequest(batch_id=self._batch_id))

    def rest(self, answer: Any) -> WatchBatchResponse | None:
        if not answer.batch.HasField("finished_at"):
            return None
        return WatchBatchResponse(batch=answer.batch, watch_token=self._token)
