"""The engine `facefusion_subprocess`: the program's own command line, one process for each job.

For operators who want nothing to outlive a job. Options, files, models and the result are handled as in the other mode; in between all that
is known is what the program prints. It answers 1 for refused content as for any failure: what it had printed by then tells the two apart.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from ...engine import EngineError, Step
from . import media
from .engine import Facefusion
from .hooks import Run, is_out_of_memory
from .job import Prepared
from .program import OPERATOR_OPTIONS
from .settings import Settings

_BAR = re.compile(r"^(?P<what>[^:]+):\s+\d+%\|.*\|\s+(?P<done>\d+)/(?P<total>\d+) \[")
_LINE = re.compile(r"^\[FACEFUSION\.[A-Z0-9_]+\] (?P<text>.*)$")
# What the program's process is given of this one's environment: nothing that could be a secret.
_ENVIRONMENT = re.compile(
    r"^(PATH|HOME|TMPDIR|LANG|LC_.*|LD_LIBRARY_PATH|CUDA_.*|NVIDIA_.*|HIP_.*|ROCR_.*|CONDA_.*|MALLOC_.*|TZ|SSL_CERT_.*)$"
)
_PASSED_ON = (
    "source_paths",
    "target_path",
    "output_path",
    "temp_path",
    "execution_device_ids",
    "execution_providers",
    "execution_thread_count",
    "video_memory_strategy",
)
_FAILED, _REFUSED = 1, 3


class FacefusionSubprocess(Facefusion):
    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._child: subprocess.Popen[bytes] | None = None
        say = self._program.say
        self._steps = {
            say("analysing"): Step.STEP_ANALYSING,
            say("extracting"): Step.STEP_EXTRACTING_FRAMES,
            say("processing"): Step.STEP_PROCESSING,
            say("merging"): Step.STEP_ENCODING_OUTPUT,
        }
        # Beginnings of lines: what follows in them is the job's.
        self._marks = {
            _beginning(say("copying_image")): Step.STEP_PROCESSING,
            _beginning(say("finalizing_image")): Step.STEP_ENCODING_OUTPUT,
        }
        self._begins = _beginning(say("processing_step"))
        self._warns = {say(key) for key in ("finalizing_image_skipped", "replacing_audio_skipped", "restoring_audio_skipped")}
        self._not_loaded = re.compile(re.escape(say("loading_model_failed")).replace(re.escape("{model_name}"), "(.+)"))

    def warm(self) -> tuple[str, ...]:
        return ()

    def cancel(self) -> None:
        super().cancel()
        child = self._child
        if child is not None:
            _kill_tree(child.pid)

    def _process(self, prepared: Prepared, run: Run) -> int:
        target = prepared.target
        if target.info is not None and not media.has_sample(target):
            raise EngineError("OPTION_INVALID", "The trim is so short that FaceFusion's content analyser would look at none of it.")
        if target.begin > 0 and self._program.release.trims and not prepared.as_frames:
            raise EngineError("OPTION_INVALID", f"FaceFusion {self.version} cannot take trim_frame_start in this mode.")
        if self._program.release.trims:
            prepared.arguments["workflow_strategy"] = "disk"  # it loses the sound otherwise
        prepared.arguments["video_memory_strategy"] = "strict"  # nothing is kept for a job that does not come
        # It would delete what does not match, and fetch what is missing.
        self._models.complain(prepared.arguments)
        run.check()
        command = [sys.executable, "facefusion.py", *self._arguments(prepared)]
        environment = {name: value for name, value in os.environ.items() if _ENVIRONMENT.match(name)}
        child = subprocess.Popen(
            command,
            cwd=self._settings.home,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._child = child
        try:
            run.check()  # a cancel that came before the child was known
            lines = self._follow(child.stdout, prepared, run)
            run.check()
            return self._outcome(child.wait(), lines, run)
        finally:
            _kill_tree(child.pid)
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]
            self._child = None

    def _arguments(self, prepared: Prepared) -> Iterator[str]:
        program = self._program
        yield program.release.command
        defaults = program.defaults()
        values = {**prepared.arguments, "jobs_path": os.path.join(prepared.arguments["temp_path"], "jobs")}
        for name, action in program.actions.items():
            value = values.get(name)
            passed = name in _PASSED_ON or name == "jobs_path"
            if (
                value is None
                or (name in OPERATOR_OPTIONS and not passed)
                or (not passed and value == defaults[name] and not _depends(name))
            ):
                continue
            yield action.option_strings[-1]
            yield from (str(entry) for entry in (value if isinstance(value, list) else [value]))

    def _follow(self, output: IO[bytes] | None, prepared: Prepared, run: Run) -> list[str]:
        """Makes events of what the program prints, until it ends. Answers its lines, without the bars."""
        lines: list[str] = []
        last = Step.STEP_ENCODING_OUTPUT if prepared.arguments["workflow_strategy"] == "disk" else Step.STEP_PROCESSING
        for text in _texts(output):
            bar, line = _BAR.match(text), _LINE.match(text)
            if bar and bar["what"] in self._steps:
                step, done, total = self._steps[bar["what"]], int(bar["done"]), int(bar["total"])
                if run.step != step and run.step != Step.STEP_RESTORING_AUDIO:
                    run.enter(step)
                if run.step == step:
                    run.advance(done, total)
                    if prepared.as_frames:
                        if step == Step.STEP_PROCESSING and done >= total:
                            run.enter(Step.STEP_ENCODING_OUTPUT)
                    elif step == last and done >= total and prepared.target.info is not None:
                        run.enter(Step.STEP_RESTORING_AUDIO)
                continue
            said = line["text"] if line else text
            lines.append(said)
            if said in self._warns:
                run.warnings.append(said)
            run.report.log(said)
            step = next((step for mark, step in self._marks.items() if said.startswith(mark)), None)
            if step is not None:
                run.enter(step)
        return lines

    def _outcome(self, code: int, lines: list[str], run: Run) -> int:
        if code in (0, _REFUSED):
            return code
        if any(is_out_of_memory(RuntimeError(line)) for line in lines):
            raise EngineError("GPU_OUT_OF_MEMORY", "The models ran out of memory.", retryable=True)
        for line in lines:
            if match := self._not_loaded.fullmatch(line):
                raise EngineError("MODEL_DAMAGED", f"The model {match[1]} cannot be loaded.")
        # Refused content ends a step that has begun, without a word; whatever else goes wrong is said.
        if (
            code == 1
            and [line for line in lines if line.strip()][:1]
            and all(line.startswith(self._begins) for line in lines if line.strip())
        ):
            return _REFUSED
        run.errors += [line for line in lines if line.strip()][-3:]
        return _FAILED


def _depends(name: str) -> bool:
    # Their defaults are other options' affair; said always, they are right always.
    return name in ("face_detector_size", "face_swapper_pixel_boost")


def _beginning(template: str) -> str:
    return template.partition("{")[0]


def _texts(output: Any) -> Iterator[str]:
    """Lines, and the states of a bar, which end in a carriage return."""
    pending = b""
    while chunk := output.read1(65_536):
        *whole, pending = re.split(rb"[\r\n]", pending + chunk)
        for text in whole:
            if text.strip():
                yield text.decode(errors="replace").rstrip()
    if pending.strip():
        yield pending.decode(errors="replace").rstrip()


def _kill_tree(pid: int) -> None:
    """The process and all that it has started. It is held still meanwhile, so that none is missed."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    family = [pid]
    for parent in family:
        with suppress(OSError, ValueError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    family += [int(child) for child in file.read().split()]
    for member in family:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
