"""The program: questions on stdin and answers on stdout, as JSON lines, until nobody asks any more."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from contextlib import suppress
from typing import Any

from ..vision import cv2
from .footage import examine_footage
from .nursery import Bounds, Nursery
from .picture import examine_picture
from .verdict import Facts, Kind, Limits, Refused

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


def examine(path: str, kind: Kind, media_type: str, limits: Limits) -> Facts:
    """Says what the file is, or raises `Refused`. `media_type` is what its first bytes say."""
    if kind == "image":
        return examine_picture(path, media_type, limits)
    return examine_footage(path, kind, media_type, limits)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"facts": vars(examine(request["path"], request["kind"], request["type"], Limits(**request["limits"])))}
    except Refused as refused:
        return {"refused": {"reason": refused.reason, "message": refused.message}}
    except MemoryError:
        return {"refused": {"reason": "INPUT_TOO_LARGE", "message": "takes more memory to decode than is allowed"}}
    except FileNotFoundError:
        return {"gone": True}


def _leave_the_network() -> None:
    """Where the system lets a process do so; nothing here opens a socket anyway, unless a decoder is taken over."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m facefusion_worker.probe", description="Examines media files, named on stdin as JSON lines."
    )
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--memory", type=int, default=1536 * 1024 * 1024, help="address space of a child, in bytes")
    parser.add_argument("--cpu-seconds", type=float, default=10)
    parser.add_argument("--wall-seconds", type=float, default=25)
    arguments = parser.parse_args()
    answers = os.dup(1)
    os.dup2(2, 1)
    _leave_the_network()
    cv2.setNumThreads(1)
    bounds = Bounds(arguments.memory, arguments.cpu_seconds, arguments.wall_seconds)
    Nursery(0, answers, arguments.children, bounds, answer).serve()


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)
