"""The model files: which are needed, whether they are there and whole, and which stay loaded.

Always true here: no model is fetched but on the operator's word, none is deleted by a job, and none made for tests is loaded in earnest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...engine import EngineError
from .program import Program
from .settings import Settings

State = Literal["present", "missing", "damaged"]


@dataclass(frozen=True)
class ModelFile:
    name: str
    path: str
    state: State
    bytes: int


@dataclass
class _Loaded:
    path: str
    bytes: int
    used: int  # the number of the run


class Models:
    def __init__(self, program: Program) -> None:
        self._program = program
        self._settings: Settings = program.settings
        self._loaded: dict[int, _Loaded] = {}  # by session
        self._verdicts: dict[tuple[object, ...], bool] = {}
        self._recorded: list[str] | None = None
        self._run = 0
        self.loading_name = ""
        # While the operator fetches models: told of the bytes done and in all.
        self.fetching: Callable[[float, float], None] | None = None
        folder = os.path.join(self._settings.home, ".assets", "models")
        self.folder = folder
        if os.path.isdir(folder):
            for name in sorted(os.listdir(folder)):
                if name.endswith(".onnx"):
                    self._refuse_synthetic(os.path.join(folder, name))

    def _refuse_synthetic(self, path: str) -> None:
        if not self._settings.allow_synthetic and "synthetic" in producer(path).lower():
            raise EngineError(
                "MODEL_DAMAGED",
                f"The model {_stem(path)} was made for tests and is no model: its file says so. Nothing runs on such models.",
            )

    # -- which are needed ------------------------------------------------------------------------------------------------------

    def needed(self, arguments: Mapping[str, Any]) -> list[ModelFile]:
        """The models that these arguments need, with what is there of them. Reads every file whole."""
        return [self._look(path) for path in self.needed_paths(arguments)]

    def needed_paths(self, arguments: Mapping[str, Any]) -> list[str]:
        """In the program's own words: its checks, answered as if all were there, tell what they would read."""
        # Without a target: the program would look into it for its rate.
        self._program.apply({**arguments, "target_path": None})
        self._recorded = []
        try:
            self._program.module("core").processors_pre_check()
            return [path for path in dict.fromkeys(self._recorded) if not path.endswith(".hash")]
        finally:
            self._recorded = None
            self._program.forget_arguments()

    def digest(self) -> str:
        """Over the names, sizes and checksums of the models that are there: an operator may put another one in the place of one."""
        digest = hashlib.sha256()
        for folder, folders, files in os.walk(self.folder):
            folders.sort()
            for name in sorted(file for file in files if file.endswith(".hash")):
                path = os.path.join(folder, name)
                stem = os.path.splitext(name)[0]
                models = [one for one in sorted(files) if one != name and os.path.splitext(one)[0] == stem]
                sizes = [f"{one} {_size(os.path.join(folder, one))}" for one in models]
                with open(path, encoding="utf-8", errors="replace") as file:
                    facts = [os.path.relpath(path, self.folder), *sizes, file.read(200).strip(), ""]
                digest.update("\0".join(facts).encode())
        return digest.hexdigest()

    def require(self, paths: Sequence[str]) -> None:
        """Raises where a file is missing; whether those that are there are whole is for the program to say."""
        missing = [_stem(path) for path in paths if not _is_there(path)]
        if missing:
            raise EngineError("MODEL_MISSING", f"{_models(missing)} not installed; the operator fetches models with `ffjobs engine warm`.")

    def recorded(self, paths: Sequence[str]) -> tuple[list[str], list[str]] | None:
        """In place of a check while `needed` asks."""
        if self._recorded is None:
            return None
        self._recorded.extend(paths)
        return list(paths), []

    def _look(self, path: str) -> ModelFile:
        if not _is_there(path):
            return ModelFile(_stem(path), path, "missing", _size(path))
        whole = self._program.module("download").validate_hash(path)
        return ModelFile(_stem(path), path, "present" if whole else "damaged", _size(path))

    def complain(self, arguments: Mapping[str, Any]) -> None:
        """Once the program's check has failed: names what is damaged."""
        damaged = [file.name for file in self.needed(arguments) if file.state != "present"]
        if damaged:
            raise EngineError("MODEL_DAMAGED", f"{_models(damaged)} damaged: the file does not match its checksum.")

    def verdict(self, path: str, validate: Callable[[str], bool]) -> bool:
        """The program's own word on a model file, kept for as long as a file that nobody can write stays the same file."""
        key = _identity(path)
        if key is None:
            return validate(path)
        if key not in self._verdicts:
            self._verdicts[key] = validate(path)
        return self._verdicts[key]

    # -- which stay loaded -----------------------------------------------------------------------------------------------------

    def begin(self, needed: Sequence[str]) -> None:
        """Makes room for what a run needs. Never within a run: its threads look up a pool in two steps."""
        self._run += 1
        self._make_room({path: _size(path) for path in needed})

    def loading(self, path: str) -> None:
        self.loading_name = _stem(path)
        self._refuse_synthetic(path)

    def loaded(self, path: str, session: Any) -> None:
        self._loaded[id(session)] = _Loaded(path, _size(path), self._run)

    def used(self, session: Any) -> None:
        entry = self._loaded.get(id(session))
        if entry is not None:
            entry.used = self._run

    def end(self) -> None:
        self._make_room({})
        alive = {id(session) for _, _, pool in self._pools() for session in pool.values()}
        self._loaded = {key: entry for key, entry in self._loaded.items() if key in alive}

    def warm_names(self) -> list[str]:
        return sorted({_stem(entry.path) for _, _, pool in self._pools() for entry in self._entries(pool)})

    def _pools(self) -> Iterator[tuple[dict[str, Any], str, Mapping[str, Any]]]:
        """Each pool of sessions with the table that holds it, and its key there."""
        for pools in self._program.module("inference_manager").INFERENCE_POOL_SET.values():
            for context, pool in list(pools.items()):
                yield pools, context, pool or {}

    def _entries(self, pool: Mapping[str, Any]) -> list[_Loaded]:
        return [self._loaded[id(session)] for session in pool.values() if id(session) in self._loaded]

    def _make_room(self, needed: Mapping[str, int]) -> None:
        """Lets go of the pools that were used longest ago, until what is loaded and what is needed fit together."""
        wanted = dict(needed)
        places = []
        for pools, context, pool in self._pools():
            entries = self._entries(pool)
            wanted |= {entry.path: entry.bytes for entry in entries}
            if not any(entry.path in needed for entry in entries):
                places.append((max((entry.used for entry in entries), default=0), pools, context, entries))
        for _, pools, context, entries in sorted(places, key=lambda place: place[0]):
            if sum(wanted.values()) <= self._settings.model_memory:
                return
            del pools[context]
            for entry in entries:
                wanted.pop(entry.path, None)

    def forget_all(self) -> None:
        """After memory ran out: the next run begins with nothing loaded."""
        for pools in self._program.module("inference_manager").INFERENCE_POOL_SET.values():
            pools.clear()
        self._loaded.clear()


def _identity(path: str) -> tuple[object, ...] | None:
    """What tells one state of a model and its checksum from another; None where somebody could write to it."""
    found: list[object] = [path]
    for part in (path, os.path.splitext(path)[0] + ".hash"):
        try:
            stat = os.stat(part)
            read_only = bool(os.statvfs(part).f_flag & os.ST_RDONLY)
        except OSError:
            return None
        if stat.st_mode & 0o222 and not read_only:
            return None
        found += [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns]
    return tuple(found)


def producer(path: str) -> str:
    """`producer_name` of an ONNX file (field 2 of ModelProto), read without its libraries; empty if there is none before the graph."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return ""
    place = 0
    while place < len(head):
        tag, place = _varint(head, place)
        length, place = _varint(head, place)  # a plain number, or the length of what follows
        if tag & 7 == 2:
            if tag >> 3 == 2:
                return head[place : place + length].decode("utf-8", "replace")
            if tag >> 3 == 7:
                return ""
            place += length
        elif tag & 7 != 0:
            return ""
    return ""


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        value, place, shift = value | (byte & 0x7F) << shift, place + 1, shift + 7
        if byte < 0x80:
            break
    return value, place


def _is_there(path: str) -> bool:
    return _size(path) > 0 and os.path.isfile(os.path.splitext(path)[0] + ".hash")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _models(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"The model {shown} is" if len(names) == 1 else f"The models {shown} are"
