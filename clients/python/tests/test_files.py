"""Large files over connections that are cut, and files over TLS with an authority of one's own. Started as test_client.py is."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import ssl
import threading
import time
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from facefusion_jobs import AsyncJobsClient, JobsClient, details_of
from facefusion_jobs.v1.job_service_pb2 import GetResultResponse

SERVER = os.environ["FFJOBS_TEST_SERVER"]
#: A service that speaks TLS alone and asks for a client certificate; ca.pem, client.pem, client.key and other.pem, which signed none of it.
TLS_SERVER = os.environ["FFJOBS_TEST_TLS_SERVER"]
CERTIFICATES = Path(os.environ["FFJOBS_TEST_CERTIFICATES"])
TRUSTED = {"ca": CERTIFICATES / "ca.pem", "certificate": (CERTIFICATES / "client.pem", CERTIFICATES / "client.key")}
MIB = 1024 * 1024
#: A video by its first bytes, and several pieces of an upload.
VIDEO = bytes.fromhex("000000186674797069736f6d0000020069736f6d69736f32") + random.Random(1).randbytes(20 * MIB)


class Cutting:
    """Between a client and the service: cuts the first connections after so many bytes on their way to it, and counts what has passed."""

    def __init__(self, cuts: list[int]) -> None:
        self.left = list(cuts)
        self.passed = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Cutting:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            host, port = SERVER.removeprefix("http://").rsplit(":", 1)
            far = socket.create_connection((host, int(port)))
            threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
            threading.Thread(target=self._back, args=(far, near), daemon=True).start()

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        own = 0
        try:
            while data := near.recv(64 * 1024):
                own += len(data)
                self.passed += len(data)
                # Connections that only ask are left alone: a cut is for one that carries a file.
                if self.left and own > self.left[0]:
                    self.left.pop(0)
                    break
                far.sendall(data)
        except OSError:
            pass
        end(near, far)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        try:
            while data := far.recv(64 * 1024):
                near.sendall(data)
        except OSError:
            pass
        end(near, far)


def end(*sockets: socket.socket) -> None:
    for one in sockets:
        # Closed alone, a socket that another thread reads from stays open.
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


async def upload(kind: str, server: str, source, **options):
    """With either client; `options` of the client and of the call."""
    call = {name: options.pop(name) for name in ("filename", "on_progress") if name in options}
    if kind == "asyncio":
        async with AsyncJobsClient(server, **options) as client:
            return await client.upload(source, **call)
    with JobsClient(server, **options) as client:
        return await asyncio.to_thread(client.upload, source, **call)


@pytest.fixture(params=["sync", "asyncio"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def clip(tmp_path) -> Path:
    (tmp_path / "clip.mp4").write_bytes(VIDEO)
    return tmp_path / "clip.mp4"


def test_an_upload_goes_on_where_it_was_cut(kind, clip):
    told = []
    # In the middle of a first, a second and a later piece.
    with Cutting([3 * MIB, 6 * MIB, 2 * MIB]) as proxy:
        answer = asyncio.run(upload(kind, proxy.address, clip, on_progress=lambda *progress: told.append(progress)))
        assert proxy.left == []
        # Each cut costs what was between the service's disk and the cut, and no whole file.
        assert proxy.passed < len(VIDEO) + 3 * 8 * MIB
    assert answer.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert (answer.media_type, answer.bytes, told[-1]) == ("video/mp4", len(VIDEO), (len(VIDEO), len(VIDEO)))
    assert answer.uri.startswith("upload://")
    assert answer.expire_time.seconds > time.time()


def test_bytes_resume_too_and_a_job_takes_them(kind):
    with Cutting([5 * MIB]) as proxy:
        answer = asyncio.run(upload(kind, proxy.address, VIDEO, filename="clip.mp4"))
        assert proxy.left == []
    with JobsClient(SERVER) as client:
        job = client.submit_and_wait(source_images=["face.jpg"], target_video=answer.uri)
        assert job.request.target_video == answer.uri


def test_a_connection_that_is_always_cut_ends_in_an_error_in_time(kind, clip):
    with Cutting([0] * 1000) as proxy, pytest.raises(grpc.RpcError) as caught:
        asyncio.run(upload(kind, proxy.address, clip, patience=1.0))
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(("server", "options"), [(SERVER, {}), (TLS_SERVER, TRUSTED)], ids=["plain", "TLS"])
def test_what_the_service_refuses_is_told_as_over_grpc(kind, server, options):
    with pytest.raises(grpc.RpcError) as caught:
        asyncio.run(upload(kind, server, bytes(17 * MIB), filename="nothing.mp4", **options))
    details = details_of(caught.value)
    assert details.code == grpc.StatusCode.INVALID_ARGUMENT
    assert [one.reason for one in details.violations] == ["UNSUPPORTED_MEDIA_TYPE"]
    assert "no kind of file" in details.message


def test_what_goes_wrong_on_this_side_is_raised_as_it_is(kind, clip):
    def refuse(sent: int, total: int | None) -> None:
        if sent > 9 * MIB:
            clip.write_bytes(b"")
            raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        asyncio.run(upload(kind, SERVER, clip, on_progress=refuse))


def test_a_file_that_changes_while_it_is_sent_is_not_taken(kind, clip):
    def cut_short(sent: int, total: int | None) -> None:
        if sent == 8 * MIB:
            os.truncate(clip, 10 * MIB)

    with pytest.raises(OSError, match="has become shorter"):
        asyncio.run(upload(kind, SERVER, clip, on_progress=cut_short))


def test_a_cancelled_task_sends_no_more(clip):
    reached = threading.Event()

    async def body() -> int:
        with Cutting([]) as proxy:
            task = asyncio.create_task(upload("asyncio", proxy.address, clip, on_progress=lambda *_: reached.set()))
            await asyncio.to_thread(reached.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return proxy.passed

    assert asyncio.run(body()) < len(VIDEO)


class Failing(BaseHTTPRequestHandler):
    """A replica that goes down, and the one that comes up in its place."""

    def do_GET(self) -> None:
        if self.path == "/busy":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(VIDEO)))
        self.end_headers()
        self.wfile.write(VIDEO if self.path == "/whole" else VIDEO[: len(VIDEO) // 2])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def failing() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def nobody() -> str:
    """Where no one listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def download(kind: str, urls: list[str], path: Path) -> str:
    """With either client, which is told the next URL each time it asks. Answers the digest that the service told."""
    facts = {"sha256": hashlib.sha256(VIDEO).hexdigest()}

    async def body() -> str:
        async with AsyncJobsClient(SERVER) as client:

            async def told(_: object) -> GetResultResponse:
                return GetResultResponse(url=urls.pop(0), result=facts)

            client.jobs.GetResult = told
            return (await client.download("job_1", path)).sha256

    if kind == "asyncio":
        return asyncio.run(body())
    with JobsClient(SERVER) as client:
        client.jobs.GetResult = lambda _: GetResultResponse(url=urls.pop(0), result=facts)
        return client.download("job_1", path).sha256


def test_a_result_is_fetched_again_from_where_it_is_to_be_had_now(kind, failing, tmp_path):
    urls = [f"{nobody()}/whole", f"{failing}/busy", f"{failing}/half", f"{failing}/whole"]
    download(kind, urls, tmp_path / "result.mp4")
    assert urls == []
    assert (tmp_path / "result.mp4").read_bytes() == VIDEO
    assert [path.name for path in tmp_path.iterdir()] == ["result.mp4"]


def test_a_result_that_never_comes_ends_in_an_error_and_leaves_nothing(kind, failing, tmp_path):
    urls = [f"{failing}/half"] * 9
    with pytest.raises(OSError, match=r"fetch it again|IncompleteRead"):
        download(kind, urls, tmp_path / "result.mp4")
    assert len(urls) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_does_not_take_a_result_is_not_tried_again(kind, failing, tmp_path):
    urls = [f"{failing}/whole"] * 9
    with pytest.raises(FileNotFoundError):
        download(kind, urls, tmp_path / "nowhere" / "result.mp4")
    assert len(urls) == 8


def test_calls_uploads_and_downloads_believe_the_authority_that_the_client_is_given(kind, clip, tmp_path):
    answer = asyncio.run(upload(kind, TLS_SERVER, clip, **TRUSTED))
    assert answer.sha256 == hashlib.sha256(VIDEO).hexdigest()
    fields = {"source_images": ["face.jpg"], "target_image": "target.png", "parameters": {"output": "the picture"}}

    async def body() -> None:
        async with AsyncJobsClient(TLS_SERVER, **TRUSTED) as client:
            job = await client.submit_and_wait(**fields)
            await client.download(job.job_id, tmp_path / "result.png")

    if kind == "asyncio":
        asyncio.run(body())
    else:
        with JobsClient(TLS_SERVER, **TRUSTED) as client:
            client.download(client.submit_and_wait(**fields).job_id, tmp_path / "result.png")
    assert (tmp_path / "result.png").read_text() == "the picture"


def test_an_authority_that_signed_nothing_of_it_is_not_believed(kind, clip, tmp_path):
    began = time.monotonic()
    other = {**TRUSTED, "ca": CERTIFICATES / "other.pem"}
    with pytest.raises(grpc.RpcError, match="certificate"):
        asyncio.run(upload(kind, TLS_SERVER, clip, **other))
    # It is not tried for as long as a lost connection would be.
    assert time.monotonic() - began < 30
    credentials = grpc.ssl_channel_credentials(*((CERTIFICATES / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")))
    with JobsClient(TLS_SERVER, credentials=credentials) as client:
        job = client.submit_and_wait(source_images=["face.jpg"], target_image="target.png")
        # Calls go by gRPC's own, and files by what files go by.
        with pytest.raises(urllib.error.URLError) as caught:
            client.download(job.job_id, tmp_path / "result.png")
        assert isinstance(caught.value.reason, ssl.SSLCertVerificationError)
    assert list(tmp_path.iterdir()) == [clip]


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(ValueError, match="without TLS"):
        JobsClient("http://127.0.0.1:8000", ca=CERTIFICATES / "ca.pem")
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        JobsClient(TLS_SERVER, ca=CERTIFICATES / "none.pem")
