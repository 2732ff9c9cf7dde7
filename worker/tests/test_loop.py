"""The loop as the service sees it: a real process on real pipes."""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import WorkerProcess, wait_for_file


@pytest.fixture(scope="module")
def shared():
    with WorkerProcess("scripted:Scripted") as worker:
        yield worker


def test_ready_says_what_the_engine_is(shared):
    assert shared.ready["engine"] == "scripted"
    assert shared.ready["pid"] == shared.process.pid
    assert shared.ready["warm_models"] == ["script", "plain"]
    assert {option["name"] for option in shared.ready["capabilities"]["options"]} > {"steps", "hold_file"}


def test_a_run_is_answered_by_progress_done_and_idle(shared, tmp_path):
    output = tmp_path / "r.mp4"
    shared.run("a", output, attempt=3, target_kind="MEDIA_KIND_VIDEO", output_format="mp4", parameters={"steps": 4})
    seen = shared.until("idle")
    assert [kind for kind, _ in seen][-2:] == ["done", "idle"]
    assert all(body["job_id"] == "a" and body["attempt"] == 3 for _, body in seen)
    assert output.read_text() == "scripted"
    done = seen[-2][1]
    assert (done["media_type"], done["frames"], done["duration_seconds"]) == ("video/mp4", 4, 0.16)
    assert set(done["step_seconds"]) == {"STEP_ANALYSING", "STEP_PROCESSING", "STEP_ENCODING_OUTPUT"}
    percents = [body.get("percent", 0) for kind, body in seen if kind == "progress"]
    assert percents == sorted(percents)
    assert seen[-1][1]["rss_bytes"] > 1e6


def test_progress_comes_at_most_twenty_times_a_second(shared, tmp_path):
    began = time.monotonic()
    shared.run("a", tmp_path / "r.jpg", parameters={"steps": 300, "seconds_per_step": 0.002})
    count = sum(kind == "progress" for kind, _ in shared.until("idle"))
    assert 4 <= count <= 20 * (time.monotonic() - began) + 5  # a step's own first message is always sent


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ({"fail": "NO_FACE_IN_SOURCE", "message": "no"}, {"outcome": "OUTCOME_ERROR", "reason": "NO_FACE_IN_SOURCE", "message": "no"}),
        (
            {"fail": "DISK_FULL", "message": "full", "retryable": True},
            {"outcome": "OUTCOME_ERROR", "reason": "DISK_FULL", "message": "full", "retryable": True},
        ),
        ({"refuse": "not this"}, {"outcome": "OUTCOME_REFUSED", "reason": "CONTENT_REFUSED", "message": "not this"}),
        (
            {"raise": "secret path"},
            {"outcome": "OUTCOME_ERROR", "reason": "ENGINE_ERROR", "message": "The engine failed: RuntimeError.", "retryable": True},
        ),
    ],
)
def test_every_way_to_fail_has_its_word(shared, tmp_path, parameters, answer):
    shared.run("f", tmp_path / "r.jpg", parameters=parameters)
    assert shared.outcome() == {"job_id": "f", "attempt": 1} | answer


def test_the_traceback_of_an_unknown_error_goes_to_the_log(shared, tmp_path):
    shared.run("f", tmp_path / "r.jpg", parameters={"raise": "the cause"})
    logs = [body for kind, body in shared.until("idle") if kind == "log"]
    assert any("the cause" in log["message"] and log["level"] == "LOG_LEVEL_ERROR" and log["job_id"] == "f" for log in logs)


def test_cancel_stops_a_run_and_the_next_one_works(shared, tmp_path):
    hold = tmp_path / "hold"
    shared.run("c", tmp_path / "r.jpg", parameters={"hold_file": str(hold)})
    wait_for_file(tmp_path / "hold.held")
    asked = time.monotonic()
    shared.send(cancel={"job_id": "c"})
    assert shared.outcome()["outcome"] == "OUTCOME_CANCELED"
    assert time.monotonic() - asked < 1.0  # milliseconds, but for a machine that is busy with something else
    assert not (tmp_path / "r.jpg").exists()
    shared.run("d", tmp_path / "r.jpg")
    assert shared.outcome()["job_id"] == "d"


def test_cancel_of_a_finished_or_unknown_job_is_ignored(shared, tmp_path):
    shared.send(cancel={"job_id": "nobody"})
    shared.run("e", tmp_path / "r.jpg")
    shared.outcome()
    shared.send(cancel={"job_id": "e"})
    shared.run("e", tmp_path / "r.jpg", attempt=2)
    assert "outcome" not in shared.outcome()


def test_cancel_reaches_a_run_that_still_waits_for_the_engine(shared, tmp_path):
    hold = tmp_path / "hold"
    shared.run("first", tmp_path / "1.jpg", parameters={"hold_file": str(hold)})
    shared.run("second", tmp_path / "2.jpg")
    wait_for_file(tmp_path / "hold.held")
    shared.send(cancel={"job_id": "second"})
    hold.touch()
    assert "outcome" not in shared.outcome()
    assert shared.outcome() == {
        "job_id": "second",
        "attempt": 1,
        "outcome": "OUTCOME_CANCELED",
        "reason": "CANCELED",
        "message": "The run was cancelled.",
    }


def test_cancel_is_heard_while_nobody_reads_the_events(tmp_path):
    with WorkerProcess("scripted:Scripted") as worker:
        hold = tmp_path / "hold"
        # More than a pipe holds: the engine stands in its log by now, or will soon, and nothing is read before the cancel is sent.
        worker.run("c", tmp_path / "r.jpg", parameters={"log_lines": 5000, "hold_file": str(hold)})
        worker.send(cancel={"job_id": "c"})
        assert worker.outcome()["outcome"] == "OUTCOME_CANCELED"


def test_cancel_breaks_what_only_the_engine_can_break(tmp_path):
    with WorkerProcess("odd:Interrupted") as worker:
        worker.run("c", tmp_path / "r.jpg")
        worker.wait_for("log")
        worker.send(cancel={"job_id": "c"})
        assert worker.outcome()["outcome"] == "OUTCOME_CANCELED"


def test_a_line_that_is_no_message_is_logged_and_the_worker_goes_on(shared, tmp_path):
    shared.send_raw(b"{nonsense")
    assert "ignored" in shared.wait_for("log")["message"]
    shared.send(future={"x": 1})
    assert "future" in shared.wait_for("log")["message"]
    shared.run("g", tmp_path / "r.jpg")
    assert shared.outcome()["job_id"] == "g"


def test_previews_come_only_when_asked_for(shared, tmp_path):
    for asked in (False, True):
        shared.run("p", tmp_path / "r.jpg", previews=asked, parameters={"steps": 3, "preview": True})
        previews = [body for kind, body in shared.until("idle") if kind == "preview"]
        assert len(previews) == int(asked)
        assert not previews or previews[0]["jpeg_base64"] == "/9j/2Q=="


def test_memory_is_told_after_each_run(shared, tmp_path):
    shared.run("m", tmp_path / "r.jpg", parameters={"rss_mb": 64})
    shared.until("done")
    held = shared.wait_for("idle")["rss_bytes"]
    assert held > 64e6


def test_printing_engines_and_children_never_reach_the_events(tmp_path):
    with WorkerProcess("scripted:Scripted") as worker:
        worker.run("n", tmp_path / "r.jpg", parameters={"stdout_noise": 5})
        assert {kind for kind, _ in worker.until("idle")} <= {"progress", "done", "idle"}
        worker.send(shutdown={})
        assert worker.exit_code() == 0
        assert worker.process.stdout.read() == b""
        errors = worker.process.stderr.read()
        assert b"noise 4" in errors
        assert b"raw noise 4" in errors


def test_children_inherit_neither_descriptor_and_stdin_is_empty(tmp_path):
    with WorkerProcess("odd:Curious") as worker:
        worker.run("k", tmp_path / "r.jpg")
        logs = [body["message"] for kind, body in worker.until("idle") if kind == "log"]
        assert "fds [0, 1, 2]" in logs
        assert "stdin b''" in logs


def test_the_loop_loads_nothing_heavy(tmp_path):
    with WorkerProcess("odd:Curious") as worker:
        worker.run("k", tmp_path / "r.jpg")
        assert "loaded " in [body["message"] for kind, body in worker.until("idle") if kind == "log"]


@pytest.mark.parametrize(
    ("engine", "reason", "retryable"),
    [
        ("odd:Exits", "ENGINE_ERROR", True),
        ("odd:Hungry", "OUT_OF_MEMORY", True),
        ("odd:FullDisk", "DISK_FULL", True),
        ("odd:NotANumber", "ENGINE_ERROR", True),
    ],
)
def test_what_is_no_ordinary_exception_is_answered_too(tmp_path, engine, reason, retryable):
    with WorkerProcess(engine) as worker:
        for number in range(2):
            worker.run(f"x{number}", tmp_path / "r.jpg")
            answer = worker.outcome()
            assert (answer["reason"], answer["retryable"]) == (reason, retryable)


def test_an_engine_that_does_not_start_says_why_and_ends():
    with WorkerProcess("odd:Unborn", ready=False) as worker:
        sentence = worker.wait_for("log")["message"]
        assert sentence == "The engine odd:Unborn did not start: RuntimeError: no such card"
        assert worker.exit_code() == 70
        assert worker.process.stderr.read().decode().splitlines()[-1] == sentence


def test_limits_hold_for_the_worker_and_what_it_starts(tmp_path):
    with WorkerProcess("odd:Limited", limits={"file": 1000, "memory": 1 << 30}) as worker:
        worker.run("x", tmp_path / "r.jpg")
        lines = worker.until("failed")
        assert [body["message"] for kind, body in lines if kind == "log"][:2] == ["core 0 file 1000", "no memory"]
        assert lines[-1][1]["reason"] == "ENGINE_ERROR"


def test_a_limit_that_is_none_is_refused():
    with WorkerProcess("noop:Noop", ready=False, limits={"mood": 3}) as worker:
        assert worker.exit_code() == 2


def test_a_crash_is_the_end_of_the_process(tmp_path):
    for parameters, code in (({"crash_at": 0}, -signal.SIGKILL), ({"crash_at": 0, "exit_code": 9}, 9)):
        with WorkerProcess("scripted:Scripted") as worker:
            worker.run("x", tmp_path / "r.jpg", parameters=parameters)
            with pytest.raises(EOFError):
                worker.until("done", "failed")
            assert worker.exit_code() == code


@pytest.mark.parametrize("parameters", [None, {"hold_file": "/nonexistent/never"}, {"hang_at": 0}])
def test_the_end_of_the_control_stream_ends_everything(tmp_path, parameters):
    with WorkerProcess("scripted:Scripted") as worker:
        if parameters is not None:
            worker.run(
                "x",
                tmp_path / "r.jpg",
                parameters={"log_lines": 1} | (parameters if "hang_at" in parameters else {"hold_file": str(tmp_path / "h")}),
            )
            worker.wait_for("log")
        asked = time.monotonic()
        worker.hang_up()
        worker.exit_code()
        assert time.monotonic() - asked < 3  # half a second is the engine's, to clean up


def _group(leader: int) -> list[int]:
    """Living members of a process group."""
    members = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                state, _, group = stat.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state not in "ZX":
            members.append(int(name))
    return members


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="machine: no /proc to see the members of a group in")
@pytest.mark.parametrize("how", ["stopped", "parent"])
def test_the_end_of_the_service_ends_the_whole_group_even_of_a_worker_that_hears_nothing(tmp_path, how):
    with WorkerProcess("odd:Parent" if how == "parent" else "scripted:Scripted") as worker:
        if how == "stopped":
            os.kill(worker.process.pid, signal.SIGSTOP)
        else:
            worker.run("x", tmp_path / "r.jpg")
            child = int(worker.wait_for("log")["message"].split()[1])
            assert child in _group(worker.process.pid)
        worker.hang_up()
        worker.exit_code()
        until = time.monotonic() + 5
        while left := _group(worker.process.pid):
            assert time.monotonic() < until, left
            time.sleep(0.01)


@pytest.mark.parametrize("how", ["message", "SIGTERM"])
def test_shutdown_breaks_off_the_run_and_exits_clean(tmp_path, how):
    with WorkerProcess("scripted:Scripted") as worker:
        worker.run("x", tmp_path / "r.jpg", parameters={"hold_file": str(tmp_path / "hold")})
        wait_for_file(tmp_path / "hold.held")
        if how == "message":
            worker.send(shutdown={})
        else:
            os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.exit_code() == 0
        with pytest.raises(EOFError):
            worker.until("done", "failed")
        assert os.listdir(tmp_path) == ["hold.held"]


def test_ctrl_c_of_a_terminal_is_the_service_s_affair(tmp_path):
    with WorkerProcess("scripted:Scripted") as worker:
        os.kill(worker.process.pid, signal.SIGINT)
        worker.run("x", tmp_path / "r.jpg")
        assert "outcome" not in worker.outcome()


def test_a_heartbeat_comes_while_the_engine_hangs(tmp_path):
    with WorkerProcess("scripted:Scripted") as worker:
        worker.run("x", tmp_path / "r.jpg", parameters={"hang_at": 0})
        assert worker.wait_for("heartbeat")["rss_bytes"] > 1e6
