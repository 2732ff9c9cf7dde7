"""The scripted engine with a witness: what runs on a GPU is there for others to see, by a lock that ends with its process.

Two runs at once on one GPU leave a file `doubled-...` in the folder that the job's parameter `ledger` names. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripted import Scripted

from facefusion_worker.engine import Capabilities, Job, Option, OptionType, Report, Result


class Ledger(Scripted):
    name = "ledger"

    def capabilities(self) -> Capabilities:
        known = super().capabilities()
        return replace(known, options=[*known.options, Option("ledger", OptionType.OPTION_TYPE_STRING)])

    def warm(self) -> Sequence[str]:
        return ("ledger",)

    def run(self, job: Job, report: Report) -> Result:
        folder = job.parameters.get("ledger")
        if not folder:
            return super().run(job, report)
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        with open(Path(folder) / f"gpu-{gpu}", "a+") as mine:
            try:
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                mine.seek(0)
                (Path(folder) / f"doubled-{gpu}-{os.getpid()}").write_text(f"{os.getpid()} beside {mine.read()}")
                raise
            mine.truncate(0)
            mine.write(str(os.getpid()))
            mine.flush()
            return super().run(job, report)
