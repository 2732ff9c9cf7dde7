"""The service that a user would write by hand, as FastAPI's tutorial has it ("Response Model - Return Type", the example with `items`): a
dictionary of dictionaries, a response model, a path operation.

`async def`, because it is the faster of the two ways here: a plain `def` would go through a thread pool. `/models` is the faster service
that keeps its jobs as models, which nothing outside the process can have changed.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel


class JobError(BaseModel):
    reason: str
    message: str
    retryable: bool


class MediaResult(BaseModel):
    media_type: str
    bytes: str
    sha256: str
    width: int
    height: int
    frames: int
    duration_seconds: float


class EngineInfo(BaseModel):
    name: str
    version: str


class Timings(BaseModel):
    queued_seconds: float
    prepare_seconds: float
    run_seconds: float
    store_seconds: float
    gpu_seconds: float
    step_seconds: dict[str, float]


class JobRequest(BaseModel):
    source_images: list[str]
    source_audio: str | None
    target_video: str | None = None
    target_image: str | None = None
    output_format: str | None
    output_uri: str | None
    parameters: dict[str, Any] | None
    engine: str | None
    priority: int
    labels: dict[str, str]
    idempotency_key: str | None
    start_timeout: str | None
    run_timeout: str | None
    max_attempts: int | None
    cache: str | None
    retention: str | None
    webhook: dict[str, Any] | None
    previews: bool
    attestation: str | None


class Job(BaseModel):
    job_id: str
    status: str
    progress: int
    step: str | None
    estimated_finish_time: datetime | None
    created_at: datetime | None
    updated_at: datetime | None
    result_url: str | None
    error_message: str | None
    error: JobError | None
    wait_reason: str | None
    queue_position: int | None
    attempt: int
    slot: str | None
    batch_id: str | None
    result: MediaResult | None
    warnings: list[str]
    engine: EngineInfo | None
    cached: bool
    timings: Timings | None
    sequence: int
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    force_stop_at: datetime | None
    purged_at: datetime | None
    submitted_by: str | None
    tenant: str | None
    result_expire_time: datetime | None
    request: JobRequest | None


app = FastAPI()
jobs: dict[str, dict[str, Any]] = {entry["job_id"]: entry for entry in json.loads(os.environ["BENCH_JOBS"])}
models: dict[str, Job] = {job_id: Job(**entry) for job_id, entry in jobs.items()}


@app.get("/api/v1/jobs/{job_id}", response_model=Job)
async def read_job(job_id: str) -> Any:
    if job_id not in jobs:
        raise HTTPException(status_code=404, detail="Job not found")
    return jobs[job_id]


@app.get("/models/{job_id}", response_model=Job)
async def read_model(job_id: str) -> Job:
    return models[job_id]
