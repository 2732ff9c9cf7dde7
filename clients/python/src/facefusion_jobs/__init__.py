"""Client of facefusion-jobs: submit, watch, wait, upload, download, over gRPC.

`JobsClient` for threads, `AsyncJobsClient` for asyncio: the same methods. The contract's messages are in `facefusion_jobs.v1`.
"""

from ._calls import BatchJob, JobNotSucceeded, is_terminal, status_in
from ._errors import ClientError, ErrorDetails, StreamEndedEarly, Violation, details_of
from .aio import AsyncJobsClient
from .client import JobsClient
from .v1.event_pb2 import JobEvent
from .v1.job_pb2 import Job, JobRequest, JobStatus, JobStep, MediaResult
from .v1.job_service_pb2 import Batch, WatchBatchResponse
from .v1.upload_service_pb2 import UploadResponse
from .webhooks import WebhookEvent, WebhookRefused, verify_webhook

__all__ = [
    "AsyncJobsClient",
    "Batch",
    "BatchJob",
    "ClientError",
    "ErrorDetails",
    "Job",
    "JobEvent",
    "JobNotSucceeded",
    "JobRequest",
    "JobStatus",
    "JobStep",
    "JobsClient",
    "MediaResult",
    "StreamEndedEarly",
    "UploadResponse",
    "Violation",
    "WatchBatchResponse",
    "WebhookEvent",
    "WebhookRefused",
    "details_of",
    "is_terminal",
    "status_in",
    "verify_webhook",
]
