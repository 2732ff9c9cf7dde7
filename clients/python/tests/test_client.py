"""Both clients against a service with the scripted engine, which `npm test -- client` starts (FFJOBS_TEST_SERVER, FFJOBS_TEST_FOLDER)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from facefusion_jobs import (
    AsyncJobsClient,
    JobNotSucceeded,
    JobsClient,
    JobStatus,
    StreamEndedEarly,
    WebhookRefused,
    details_of,
    is_terminal,
    status_in,
    verify_webhook,
)
from facefusion_jobs.v1 import access_service_pb2, job_service_pb2, upload_service_pb2

SERVER = os.environ["FFJOBS_TEST_SERVER"]
FOLDER = Path(os.environ["FFJOBS_TEST_FOLDER"])
PICTURE = {"source_images": ["face.jpg"], "target_image": "target.png"}


class Sync:
    """`JobsClient` with the surface of the other, so that each test is written once."""

    def __init__(self, server: str = SERVER, **options) -> None:
        self._client = JobsClient(server, **options)

    async def __aenter__(self) -> Sync:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()

    def __getattr__(self, name: str):
        async def call(*args, **kwargs):
            return await asyncio.to_thread(getattr(self._client, name), *args, **kwargs)

        return call

    async def watch(self, job_id: str, **kwargs):
        for event in await asyncio.to_thread(lambda: list(self._client.watch(job_id, **kwargs))):
            yield event

    async def watch_batch(self, batch_id: str):
        for change in await asyncio.to_thread(lambda: list(self._client.watch_batch(batch_id))):
            yield change

    @property
    def jobs(self):
        return Awaited(self._client.jobs)

    @property
    def access(self):
        return Awaited(self._client.access)


class Awaited:
    def __init__(self, stub) -> None:
        self._stub = stub

    def __getattr__(self, name: str):
        return lambda request: asyncio.to_thread(getattr(self._stub, name), request)


@pytest.fixture(params=["sync", "asyncio"])
def connect(request):
    return Sync if request.param == "sync" else lambda server=SERVER, **options: AsyncJobsClient(server, **options)


def run(coroutine):
    return asyncio.run(coroutine)


def test_a_job_is_submitted_waited_for_and_its_result_fetched(connect, tmp_path):
    async def body():
        async with connect() as client:
            seen = []
            job = await client.submit_and_wait(**PICTURE, parameters={"steps": 3, "output": "the picture"}, on_event=seen.append)
            assert job.status == JobStatus.JOB_STATUS_SUCCEEDED
            assert status_in(seen[-1]) == JobStatus.JOB_STATUS_SUCCEEDED
            facts = await client.download(job.job_id, tmp_path / "result.png")
            assert (tmp_path / "result.png").read_text() == "the picture"
            assert facts.sha256 == job.result.sha256
            assert list(tmp_path.iterdir()) == [tmp_path / "result.png"]

    run(body())


def test_a_job_that_ends_otherwise_raises_with_its_reason(connect):
    async def body():
        async with connect() as client:
            with pytest.raises(JobNotSucceeded) as caught:
                await client.submit_and_wait(**PICTURE, parameters={"fail": "NO_SOURCE_FACE", "message": "no face"})
            assert caught.value.reason == "NO_SOURCE_FACE"
            with pytest.raises(JobNotSucceeded) as caught:
                await client.submit_and_wait(**PICTURE, parameters={"refuse": "not this"})
            assert caught.value.job.status == JobStatus.JOB_STATUS_REFUSED

    run(body())


def test_events_are_in_order_without_gaps_and_resume(connect):
    async def body():
        async with connect() as client:
            job = await client.submit(**PICTURE, parameters={"steps": 5})
            whole = [event async for event in client.watch(job.job_id, after=0)]
            assert [event.sequence for event in whole] == list(range(1, len(whole) + 1))
            rest = [event.sequence async for event in client.watch(job.job_id, after=2)]
            assert rest == [event.sequence for event in whole[2:]]
            past = [event async for event in client.watch(job.job_id, after=len(whole))]
            assert [is_terminal(event.snapshot.job.status) for event in past] == [True]

    run(body())


def test_a_wait_that_is_broken_off_cancels_its_job():
    async def body():
        async with AsyncJobsClient(SERVER) as client:
            started, job_id = asyncio.Event(), []

            def on_event(event):
                if event.WhichOneof("event") == "snapshot":
                    job_id.append(event.snapshot.job.job_id)
                    started.set()

            hold = FOLDER / "python-hold"
            waiting = asyncio.create_task(client.submit_and_wait(**PICTURE, parameters={"hold_file": str(hold)}, on_event=on_event))
            await started.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            with pytest.raises(JobNotSucceeded) as caught:
                await client.wait(job_id[0])
            assert caught.value.job.status == JobStatus.JOB_STATUS_CANCELED

    run(body())


def test_files_go_up_from_a_path_bytes_and_an_open_file(connect):
    async def body():
        async with connect() as client:
            path = FOLDER / "input" / "target.png"
            told = []
            uploads = [
                await client.upload(path, on_progress=lambda *progress: told.append(progress)),
                await client.upload(path.read_bytes(), filename="b.png"),
                await client.upload(io.BytesIO(path.read_bytes()), filename="c.png"),
            ]
            assert {one.sha256 for one in uploads} == {hashlib.sha256(path.read_bytes()).hexdigest()}
            assert told[-1] == (path.stat().st_size, path.stat().st_size)
            job = await client.submit_and_wait(source_images=["face.jpg"], target_image=uploads[1].uri)
            assert job.status == JobStatus.JOB_STATUS_SUCCEEDED

    run(body())


@pytest.mark.parametrize("source", [b"", io.BytesIO(b"")])
def test_a_file_with_nothing_in_it_is_refused_in_words(connect, source):
    async def body():
        async with connect() as client:
            with pytest.raises(grpc.RpcError) as caught:
                await client.upload(source, filename="empty.png")
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    run(body())


def test_what_goes_wrong_while_a_file_is_read_is_raised_as_it_is(connect, tmp_path):
    class Broken(io.RawIOBase):
        name = "broken.png"

        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "the disk does not answer")

    def refuse(sent: int, total: int | None) -> None:
        raise KeyError("no")

    async def body():
        async with connect() as client:
            with pytest.raises(FileNotFoundError, match=r"not-here\.png"):
                await client.upload(tmp_path / "not-here.png")
            with pytest.raises(OSError, match="the disk does not answer"):
                await client.upload(Broken())
            with pytest.raises(KeyError, match="no"):
                await client.upload(b"x" * 100, on_progress=refuse)

    run(body())


def test_a_batch_is_submitted_whole_and_watched_to_its_end(connect):
    async def body():
        async with connect() as client:
            jobs = [{**PICTURE, "ref": "swap"}, PICTURE, {"source_images": ["face.jpg"], "target_image": "job://swap"}]
            batch = await client.submit_batch(jobs)
            assert batch.jobs == 3
            changes = [change async for change in client.watch_batch(batch.batch_id)]
            # What the scripted engine makes is no picture, so that nothing can be made of it.
            assert (changes[-1].batch.succeeded, changes[-1].batch.failed) == (2, 1)
            chained = await client.get(batch.job_ids[2])
            assert chained.request.target_image == f"job://{batch.job_ids[0]}"
            assert {change.job.job_id for change in changes if change.HasField("job")} <= set(batch.job_ids)
            again = [change async for change in client.watch_batch(batch.batch_id)]
            assert again[-1].batch.HasField("finished_at")
            with pytest.raises(grpc.RpcError) as caught:
                await client.submit_batch([PICTURE, {**PICTURE, "priority": 99}])
            assert [one.field for one in details_of(caught.value).violations] == ["jobs[1].job.priority"]
            with pytest.raises(grpc.RpcError) as caught:
                _ = [change async for change in client.watch_batch("batch_20250405_aaaaaaaaaaaa")]
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    run(body())


class Told(grpc.GenericRpcHandler):
    """A service that answers as it is told to: each call takes the next of `answers`; `calls` says what came, and with which credential.

    None ends a stream that has told nothing, in good order.
    """

    def __init__(self) -> None:
        self.answers: list = []
        self.calls: list[tuple[str, str | None]] = []

    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        self.calls.append((method, dict(details.invocation_metadata).get("authorization")))

        def answer(request, context):
            told = self.answers.pop(0) if self.answers else b""
            if isinstance(told, bytes):
                return told
            code, seconds = told
            if seconds is not None:
                delay = Duration()
                delay.FromMilliseconds(int(seconds * 1000))
                info = error_details_pb2.RetryInfo(retry_delay=delay)
                status = status_pb2.Status(code=code.value[0], message="not now")
                status.details.add().Pack(info)
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            return context.abort(code, "not now")

        def sent(requests, context):
            for _ in requests:
                pass
            return answer(None, context)

        def stream(request, context):
            if self.answers and self.answers[0] is None:
                self.answers.pop(0)
            else:
                yield answer(request, context)

        if method == "Upload":
            return grpc.stream_unary_rpc_method_handler(sent)
        return (grpc.unary_stream_rpc_method_handler if method.startswith("Watch") else grpc.unary_unary_rpc_method_handler)(
            stream if method.startswith("Watch") else answer
        )


@pytest.fixture
def told():
    handler = Told()
    server = grpc.server(ThreadPoolExecutor(4), handlers=[handler])
    handler.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield handler
    server.stop(None)


UNAVAILABLE, EXHAUSTED, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL
JOB = job_service_pb2.GetResponse(job={"job_id": "job_1", "status": JobStatus.JOB_STATUS_SUCCEEDED}).SerializeToString()


def test_every_call_carries_the_token_the_generated_ones_too(connect, told, tmp_path):
    async def body():
        uploaded = upload_service_pb2.UploadResponse(uri="upload://1", sha256=hashlib.sha256(b"x").hexdigest())
        told.answers = [JOB, JOB, uploaded.SerializeToString(), b"", JOB]
        async with connect(told.address, token="ffj_key") as client:
            await client.get("job_1")
            await client.jobs.Get(job_service_pb2.GetRequest(job_id="job_1"))
            await client.upload(b"x")
            _ = [event async for event in client.watch("job_1")]
        assert told.calls == [(method, "Bearer ffj_key") for method in ("Get", "Get", "Upload", "Watch", "Get")]

    run(body())


@pytest.mark.parametrize("many", [12, 11])
def test_streams_that_end_early_again_and_again_are_an_error_of_the_client_that_says_what_to_do(connect, told, monkeypatch, many):
    monkeypatch.setattr("facefusion_jobs._calls.backoff", lambda tried: 0)
    queued = job_service_pb2.GetResponse(job={"job_id": "job_1", "status": JobStatus.JOB_STATUS_QUEUED}).SerializeToString()
    batch = job_service_pb2.GetBatchResponse(batch={"batch_id": "batch_1"}).SerializeToString()

    async def body():
        async with connect(told.address) as client:
            for watch, still, way_on in (
                (lambda: client.watch("job_1", after=7), queued, "watch('job_1', after=7)"),
                (lambda: client.watch_batch("batch_1"), batch, "watch_batch('batch_1')"),
            ):
                told.answers = [None, still] * many + [(grpc.StatusCode.NOT_FOUND, None)]
                with pytest.raises(grpc.RpcError) as caught:
                    _ = [one async for one in watch()]
                # One fewer is tried again, and meets what is said then.
                if many == 11:
                    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
                    continue
                assert isinstance(caught.value, StreamEndedEarly)
                details = details_of(caught.value)
                assert details.code == grpc.StatusCode.UNAVAILABLE
                assert way_on in details.message
                assert told.answers == [(grpc.StatusCode.NOT_FOUND, None)]

    run(body())


def test_a_wait_that_loses_its_stream_leaves_the_job_as_it_is(connect, told, monkeypatch):
    monkeypatch.setattr("facefusion_jobs._calls.backoff", lambda tried: 0)
    queued = job_service_pb2.GetResponse(job={"job_id": "job_1", "status": JobStatus.JOB_STATUS_QUEUED}).SerializeToString()
    submitted = job_service_pb2.SubmitResponse(job={"job_id": "job_1"}).SerializeToString()

    async def body():
        async with connect(told.address) as client:
            told.answers = [submitted] + [None, queued] * 12
            with pytest.raises(StreamEndedEarly):
                await client.submit_and_wait(**PICTURE)
            assert "Cancel" not in {method for method, _ in told.calls}

    run(body())


def test_what_broke_a_wait_off_is_raised_though_its_job_could_not_be_canceled(connect, told, caplog):
    submitted = job_service_pb2.SubmitResponse(job={"job_id": "job_1"}).SerializeToString()

    def leave(event):
        raise KeyError("left")

    async def body():
        async with connect(told.address, patience=0) as client:
            told.answers = [submitted, b"", (INTERNAL, None)]
            with pytest.raises(KeyError, match="left"):
                await client.submit_and_wait(**PICTURE, on_event=leave)
            assert [method for method, _ in told.calls] == ["Submit", "Watch", "Cancel"]
            assert "job_1 was left and could not be canceled" in caplog.text

    run(body())


def test_a_call_is_made_again_when_the_service_says_when_and_when_it_is_lost(connect, told):
    async def body():
        async with connect(told.address, patience=20) as client:
            told.answers = [(UNAVAILABLE, 0.01), (EXHAUSTED, 0.01), (INTERNAL, None), JOB]
            assert (await client.get("job_1")).job_id == "job_1"
            assert len(told.calls) == 4
            # It says when, and that is later than one is ready to wait.
            told.answers = [(UNAVAILABLE, 60)]
            with pytest.raises(grpc.RpcError) as caught:
                await client.jobs.Get(job_service_pb2.GetRequest(job_id="job_1"))
            assert details_of(caught.value).retry_after == 60
            assert len(told.calls) == 5

    run(body())


def test_what_would_be_there_twice_is_made_again_only_where_the_service_asks(connect, told):
    async def body():
        async with connect(told.address) as client:
            requests = [
                lambda: client.access.CreateKey(access_service_pb2.CreateKeyRequest()),
                lambda: client.jobs.Submit(job_service_pb2.SubmitRequest(job={"target_image": "a.png"})),
            ]
            for request in requests:
                told.calls.clear()
                told.answers = [(INTERNAL, None)]
                with pytest.raises(grpc.RpcError):
                    await request()
                told.answers = [(UNAVAILABLE, 0.01)]
                await request()
                assert len(told.calls) == 3
            # One request of the client's own is one job, however often it is sent.
            told.answers = [(INTERNAL, None), b""]
            await client.submit(target_image="a.png")

    run(body())


def test_errors_tell_every_violation(connect):
    async def body():
        async with connect() as client:
            with pytest.raises(grpc.RpcError) as caught:
                await client.submit(source_images=["face.jpg"], target_image="target.png", priority=99, max_attempts=99)
            details = details_of(caught.value)
            assert details.code == grpc.StatusCode.INVALID_ARGUMENT
            assert {one.field.split(".")[-1] for one in details.violations} == {"priority", "max_attempts"}
            with pytest.raises(grpc.RpcError) as caught:
                await client.get("job_20250405_aaaaaaaaaaaa")
            assert details_of(caught.value).code == grpc.StatusCode.NOT_FOUND

    run(body())


def test_a_service_that_is_not_there_is_tried_again_and_then_told():
    client = JobsClient("127.0.0.1:9", patience=0.5)
    began = time.monotonic()
    with client, pytest.raises(grpc.RpcError) as caught:
        client.get("job_20250405_aaaaaaaaaaaa")
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - began < 30


def test_a_server_that_is_no_address_is_refused():
    with pytest.raises(ValueError, match="takes host:port"):
        JobsClient("ftp://example.com")


SECRET = "whsec_" + base64.b64encode(b"a secret of 24 bytes ...").decode()
BODY = json.dumps({"type": "job.succeeded", "timestamp": "2025-04-05T14:15:00Z", "data": {"job_id": "job_20250405_abc"}})


def signed(body: str = BODY, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    timestamp = int(time.time() if at is None else at)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, f"msg_1.{timestamp}.{body}".encode(), hashlib.sha256).digest()).decode()
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(timestamp), "Webhook-Signature": f"v1,{'A' * 44} v1,{signature}"}


def test_a_webhook_of_the_service_is_read():
    event = verify_webhook(BODY.encode(), signed(), SECRET)
    assert (event.id, event.type, event.data["job_id"]) == ("msg_1", "job.succeeded", "job_20250405_abc")


def test_the_example_of_the_standard_is_signed_alike(monkeypatch):
    # Id, time, body, secret and signature: https://docs.svix.com/receiving/verifying-payloads/how-manual
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    monkeypatch.setattr(time, "time", lambda: 1614265330.0)
    with pytest.raises(WebhookRefused, match="signed rightly"):
        verify_webhook('{"test": 2432232314}', headers, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (signed(), BODY.replace("succeeded", "failed")),
        (signed(at=time.time() - 3600), BODY),
        (signed(at=time.time() + 3600), BODY),
        (signed(secret="whsec_" + base64.b64encode(b"another one of 24 bytes.").decode()), BODY),
        ({**signed(), "Webhook-Id": "msg_2"}, BODY),
        ({**signed(), "Webhook-Timestamp": "soon"}, BODY),
        ({}, BODY),
    ],
)
def test_any_other_webhook_is_refused(headers, body):
    with pytest.raises(WebhookRefused):
        verify_webhook(body, headers, SECRET)
