"""`python -m facefusion_worker.engines.facefusion check|models|warm [--processors ...] [--json]`: what an operator asks before a job.

Prints one JSON object a line with `--json`, else one sentence a line. Exit status: 0 all is well, 1 something is missing or broken.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from ...engine import EngineError
from .hooks import Hooks
from .job import Jobs
from .models import ModelFile, Models
from .program import Program
from .settings import Settings

# A download that brings nothing for this long is given up: the program itself would wait for ever.
_STALLED_SECONDS = 30.0


class Console:
    def __init__(self, as_json: bool) -> None:
        self._json = as_json

    def say(self, kind: str, sentence: str, **fields: Any) -> None:
        print(json.dumps({"kind": kind, **fields}) if self._json else sentence, flush=True)


class Checkout:
    """The program as an operator's command sees it: nothing is loaded, no job runs."""

    def __init__(self, settings: Settings) -> None:
        self.program = Program(settings)
        self.models = Models(self.program)
        Hooks(self.program, self.models)
        logging.getLogger("facefusion").setLevel(logging.CRITICAL)
        self.options = Jobs(self.program).options

    def files(self, processors: list[str]) -> list[ModelFile]:
        names = processors or [processor.name for processor in self.options.processors if processor.name == "face_swapper"]
        # Asked one at a time: a job may have fewer processors than there are.
        found: dict[str, ModelFile] = {}
        for name in names:
            for file in self.models.needed(self.options.resolve({"processors": [name]})):
                found.setdefault(file.path, file)
        return list(found.values())


def check(console: Console, settings: Settings) -> int:
    checkout = Checkout(settings)
    program = checkout.program
    for tool in ("ffmpeg", "ffprobe", "curl"):
        flag = "--version" if tool == "curl" else "-version"
        version = subprocess.run([tool, flag], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
        console.say("tool", f"{tool}: {version}", name=tool, path=shutil.which(tool), version=version)
    hooks = len(list(program.release.hooks()))
    console.say(
        "engine",
        f"FaceFusion {program.version} ({settings.home}): all {hooks} hooks are there; runs on {', '.join(program.providers)}",
        version=program.version,
        release=program.release.name,
        home=settings.home,
        python=sys.executable,
        providers=list(program.providers),
        hooks=hooks,
        processors=[processor.name for processor in checkout.options.processors],
        options=len(checkout.options.options),
    )
    return 0


def models(console: Console, settings: Settings, processors: list[str]) -> int:
    files = Checkout(settings).files(processors)
    for file in files:
        console.say("model", f"{file.state:8} {file.bytes:>12} {file.name}", **dataclasses.asdict(file))
    return int(any(file.state != "present" for file in files))


def warm(console: Console, settings: Settings, processors: list[str]) -> int:
    """Fetches what is missing or damaged, from the hosts that the program knows, with the program's own download."""
    checkout = Checkout(settings)
    wanted = [file for file in checkout.files(processors) if file.state != "present"]
    if not wanted:
        console.say("done", "All models are there.", fetched=0)
        return 0
    watch = _Watch(console, checkout)
    threading.Thread(target=watch.run, daemon=True).start()
    for name in processors or ["face_swapper"]:
        arguments = checkout.options.resolve({"processors": [name]})
        arguments["download_providers"] = list(checkout.program.actions["download_providers"].choices or ())
        _forget_addresses(checkout.program)
        watch.expect([file.path for file in checkout.models.needed(arguments) if file.state != "present"])
        checkout.program.apply(arguments)
        checkout.models.fetching = watch.tell
        try:
            checkout.program.module("core").processors_pre_check()
        finally:
            checkout.models.fetching = None
            watch.expect([])
            checkout.program.reset()
    failed = [file for file in checkout.files(processors) if file.state != "present"]
    for file in failed:
        console.say("failed", f"The model {file.name} could not be fetched.", name=file.name, state=file.state)
    console.say("done", f"{len(wanted) - len(failed)} of {len(wanted)} models were fetched.", fetched=len(wanted) - len(failed))
    return int(bool(failed))


def _forget_addresses(program: Program) -> None:
    """The tables of models hold addresses, which are none while no host may be asked."""
    for name, module in list(sys.modules.items()):
        if name.startswith("facefusion."):
            table = getattr(module, "create_static_model_set", None)
            if table is not None and hasattr(table, "cache_clear"):
                table.cache_clear()


class _Watch:
    """Says how far a download is, and ends the process when one stands still."""

    def __init__(self, console: Console, checkout: Checkout) -> None:
        self._console = console
        self._checkout = checkout
        self._expected: list[str] = []
        self._done = self._said = 0.0
        self._moved = time.monotonic()

    def expect(self, paths: list[str]) -> None:
        self._expected, self._done, self._moved = paths, -1.0, time.monotonic()

    def tell(self, done: float, total: float) -> None:
        """Called from a loop that does not rest while the other process writes."""
        time.sleep(0.05)
        now = time.monotonic()
        if done != self._done:
            self._done, self._moved = done, now
            if now - self._said >= 0.5 or done >= total:
                self._said = now
                name = next(
                    (os.path.basename(path) for path in self._expected if not os.path.isfile(path) or os.path.getsize(path) < total), ""
                )
                self._console.say("progress", f"{name}: {int(done)} of {int(total)} bytes", name=name, done=int(done), total=int(total))

    def run(self) -> None:
        while True:
            time.sleep(1)
            if self._expected and time.monotonic() - self._moved > _STALLED_SECONDS:
                missing = next((path for path in self._expected if not os.path.isfile(path)), self._expected[0])
                name = os.path.splitext(os.path.basename(missing))[0]
                self._console.say("failed", f"The model {name} could not be fetched: nothing comes.", name=name, state="missing")
                os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m facefusion_worker.engines.facefusion", description="Looks at an installed FaceFusion.")
    parser.add_argument("command", choices=("check", "models", "warm"))
    parser.add_argument("--processors", nargs="+", default=[], help="whose models (default: face_swapper)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    console = Console(arguments.json)
    try:
        settings = Settings.read(os.environ)
        if arguments.command == "check":
            return check(console, settings)
        return (models if arguments.command == "models" else warm)(console, settings, arguments.processors)
    except EngineError as error:
        console.say("error", error.message, reason=error.reason, message=error.message)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
