"""Children, each for one file, forked ahead of it.

Always true here: a child has little memory and processor time and no right to write; its death is an answer too, and what it says goes
for its own file alone.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Answer = dict[str, Any]
# What a child may say; more of it than a file's facts can be is not read.
_WORDS = frozenset({"facts", "refused", "gone"})
_MAX_WORD_BYTES = 64 * 1024
# A killed process that is not gone by then is looked at again.
_REAP_SECONDS = 60


@dataclass(frozen=True)
class Bounds:
    """Of one child: address space in bytes, processor time and time by the clock in seconds."""

    memory: int
    cpu_seconds: float
    wall_seconds: float


@dataclass
class _Child:
    pid: int
    channel: socket.socket
    request: int | None = None
    deadline: float = 0
    heard: bytes = b""
    late: bool = False


class Nursery:
    """Keeps children ready, gives each one file, and tells what came of it.

    Requests and answers are JSON lines on two descriptors. `work` makes a request's answer, in a child: one of `facts`, `refused` and
    `gone`. What became of a child that gives none is told as `died`: `cpu`, `late`, `signal N`, or `nonsense`.
    """

    def __init__(self, requests: int, answers: int, children: int, bounds: Bounds, work: Callable[[Answer], Answer]) -> None:
        self._requests = requests
        self._answers = answers
        self._width = children
        self._bounds = bounds
        self._work = work
        self._idle: list[_Child] = []
        self._busy: list[_Child] = []
        self._waiting: deque[Answer] = deque()
        self._heard = b""

    def serve(self) -> None:
        """Until nobody asks any more."""
        self._fill()
        self._say({"ready": True})
        while True:
            timeout = min((child.deadline for child in self._busy), default=None)
            wait = None if timeout is None else max(0.0, timeout - time.monotonic())
            channels = [child.channel for child in (*self._busy, *self._idle)]
            ready, _, _ = select.select([self._requests, *channels], [], [], wait)
            if self._requests in ready and not self._listen():
                break
            for child in [one for one in (*self._busy, *self._idle) if one.channel in ready]:
                self._hear(child)
            now = time.monotonic()
            for child in self._busy:
                if now >= child.deadline and not child.late:
                    child.late = True
                    os.kill(child.pid, signal.SIGKILL)
                    child.deadline = now + _REAP_SECONDS
            self._hand_out()
        for child in (*self._busy, *self._idle):
            os.kill(child.pid, signal.SIGKILL)

    def _listen(self) -> bool:
        data = os.read(self._requests, 65_536)
        if not data:
            return False
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "leave" in request:
                self._waiting = deque(one for one in self._waiting if one["id"] != request["leave"])
                for child in self._busy:
                    if child.request == request["leave"]:
                        os.kill(child.pid, signal.SIGKILL)
            else:
                self._waiting.append(request)
        return True

    def _hand_out(self) -> None:
        while self._waiting and len(self._busy) < self._width:
            self._fill()
            child = self._idle.pop()
            request = self._waiting.popleft()
            child.request = request["id"]
            child.deadline = time.monotonic() + self._bounds.wall_seconds
            self._busy.append(child)
            with suppress(OSError):
                child.channel.sendall(json.dumps(request).encode() + b"\n")
        self._fill()

    def _hear(self, child: _Child) -> None:
        try:
            data = child.channel.recv(65_536)
        except OSError:
            data = b""
        child.heard += data
        if data and not child.heard.endswith(b"\n") and len(child.heard) <= _MAX_WORD_BYTES:
            return
        child.channel.close()
        # A child has no more to say after its answer; one that says it and hangs does not stay.
        with suppress(ProcessLookupError):
            if data:
                os.kill(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        if child in self._idle:
            self._idle.remove(child)
            return
        self._busy.remove(child)
        self._say({**_end_of(child, status), "id": child.request})

    def _say(self, answer: Answer) -> None:
        data = json.dumps(answer).encode() + b"\n"
        while data:
            data = data[os.write(self._answers, data) :]

    def _fill(self) -> None:
        while len(self._idle) + len(self._busy) < self._width or (self._waiting and not self._idle):
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    self._be_child(theirs)
                    status = 0
                finally:
                    os._exit(status)
            theirs.close()
            self._idle.append(_Child(pid, ours))

    def _be_child(self, channel: socket.socket) -> None:
        keep = channel.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, 4096)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for what, value in (
            (resource.RLIMIT_AS, self._bounds.memory),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, 32),
        ):
            resource.setrlimit(what, (value, value))
        seconds = max(1, round(self._bounds.cpu_seconds))
        # Where both limits are the same the end comes by SIGKILL, which could be anybody's.
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        with channel.makefile("rb") as lines:
            line = lines.readline()
        if line:
            channel.sendall(json.dumps(self._work(json.loads(line))).encode() + b"\n")


def _end_of(child: _Child, status: int) -> Answer:
    """What a child that is gone has said, if that can be an answer, or how it went. A file may have made it say anything."""
    if child.heard:
        return _word(child.heard) or {"died": "nonsense"}
    if child.late:
        return {"died": "late"}
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {"died": "cpu" if number == signal.SIGXCPU else f"signal {number}"}


def _word(line: bytes) -> Answer | None:
    if not line.endswith(b"\n") or len(line) > _MAX_WORD_BYTES:
        return None
    try:
        answer = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and len(answer) == 1 and _WORDS.issuperset(answer) else None


def _refuse_constant(name: str) -> None:
    """Of NaN and the infinities, which are no JSON and end whoever reads them as that."""
    raise ValueError(name)
