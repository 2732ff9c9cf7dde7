"""How long each step of a kind of job takes, learned from the jobs before it: what makes percent one steady number.

For each kind and step a line `seconds = a + b * frames`, as sums that fade: the last dozen jobs count; and the shape of the step, which is
how its time goes with its work (a queue of frames begins slowly, and an encoder has its own to do after the last). They live as long as the
process, and in a file where the operator names one. The file is a help, not a truth: whatever is wrong with it, it is begun anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence

from .engine import Step

_FADE = 0.92
_SUMS = 5
# How much of a shape is the last job's: one that was disturbed is soon forgotten.
_FRESH = 0.4
_KINDS = 200
# Until something is learned: seconds, and seconds a frame.
_FIRST = {
    Step.STEP_LOADING_MODELS: (0.15, 0.0),
    Step.STEP_ANALYSING: (0.1, 0.004),
    Step.STEP_EXTRACTING_FRAMES: (0.1, 0.01),
    Step.STEP_PROCESSING: (0.1, 0.1),
    Step.STEP_ENCODING_OUTPUT: (0.1, 0.01),
    Step.STEP_RESTORING_AUDIO: (0.1, 0.001),
}


class Weights:
    def __init__(self, path: str) -> None:
        self._path = path  # empty: none is kept
        self._table: dict[str, dict[str, list[float]]] = {}

    def predict(self, kind: str, steps: Mapping[Step, float]) -> tuple[dict[Step, float], dict[Step, list[float]]]:
        """Seconds of each step and, where they are known, shapes, as `Report.plan` takes them; `steps` has the frames of each."""
        known = self._read().get(kind, {})
        seconds = {step: max(0.001, _line(known.get(step.name), step, frames)) for step, frames in steps.items()}
        return seconds, {step: shape for step in steps if (shape := known.get(step.name, [])[_SUMS:])}

    def learn(self, kind: str, frames: float, seconds: Mapping[Step, float], shapes: Mapping[Step, Sequence[float]]) -> None:
        table = self._read()
        known = table.pop(kind, {})
        for step, taken in seconds.items():
            before = known.get(step.name) or [0.0] * _SUMS
            fresh = (1.0, frames, taken, frames * frames, frames * taken)
            sums = [_FADE * old + new for old, new in zip(before[:_SUMS], fresh, strict=True)]
            shape, now = before[_SUMS:], shapes.get(step, ())
            if len(shape) == len(now):
                shape = [old + _FRESH * (new - old) for old, new in zip(shape, now, strict=True)]
            known[step.name] = [round(number, 6) for number in [*sums, *(shape or now)]]
        table[kind] = known  # last: the kinds that come no more are the first to go
        while len(table) > _KINDS:
            del table[next(iter(table))]
        self._write(table)

    def _read(self) -> dict[str, dict[str, list[float]]]:
        if not self._path:
            return self._table
        try:
            with open(self._path, encoding="utf-8") as file:
                table = json.load(file)
            return {
                str(kind): {str(step): [float(number) for number in sums] for step, sums in steps.items() if len(sums) >= _SUMS}
                for kind, steps in table.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, table: Mapping[str, object]) -> None:
        """Another worker may write at the same time: one of the two is lost, and no harm done."""
        if not self._path:
            return
        with contextlib.suppress(OSError):
            descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(self._path), prefix=".weights-")
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump(table, file, separators=(",", ":"))
                os.replace(temporary, self._path)
            except OSError:
                os.unlink(temporary)


def _line(sums: list[float] | None, step: Step, frames: float) -> float:
    if not sums or sums[0] <= 0:
        a, b = _FIRST[step]
        return a + b * frames
    n, x, y, xx, xy = sums[:_SUMS]
    spread = n * xx - x * x
    if spread <= 1e-6 * max(1.0, xx * n):
        # All of one length: the share that a frame has is the first guess's.
        a, b = _FIRST[step]
        return (y / n) * (a + b * frames) / (a + b * x / n)
    b = max(0.0, (n * xy - x * y) / spread)
    return max(0.0, y / n + b * (frames - x / n))
