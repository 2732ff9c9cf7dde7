"""How much memory this process may have: the machine's, its container's, its own limit. Standard library only; where the system does not
tell, there is no bound."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NO_BOUND = 1 << 62


class Room(NamedTuple):
    """In bytes."""

    all: int
    free: int


def room(root: Path = Path("/")) -> Room:
    """`root` is where the system's own files are."""
    rooms = [Room(_NO_BOUND, _NO_BOUND), *_machine(root), *_container(root / "sys/fs/cgroup"), *_own()]
    return Room(min(one.all for one in rooms), min(one.free for one in rooms))


def _machine(root: Path) -> Iterator[Room]:
    facts = _pairs(root / "proc/meminfo")
    if "MemTotal:" in facts and "MemAvailable:" in facts:
        yield Room(facts["MemTotal:"] << 10, facts["MemAvailable:"] << 10)


def _container(group: Path) -> Iterator[Room]:
    """Of control groups, version 2. What is kept of files goes when memory is wanted."""
    most, taken = _number(group / "memory.max"), _number(group / "memory.current")
    if most is not None and taken is not None:
        yield Room(most, most - taken + _pairs(group / "memory.stat").get("inactive_file", 0))


def _own() -> Iterator[Room]:
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        yield Room(limit, limit)


def _pairs(path: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
