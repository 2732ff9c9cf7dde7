"""The peer of the engine's rows: the installed FaceFusion called directly in one warm process, with nothing of this project around it.

Reads one job a line from standard input (JSON: source, target, output, temp) and answers each with its seconds; runs in the checkout.
Models stay loaded, as in our workers; what it found in a job's files does not, and they come under new names each time, because it keeps
what it has read by name.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())
    os.environ["OMP_NUM_THREADS"] = "1"
    release4 = importlib.util.find_spec("facefusion.args_helper") is not None
    sys.argv = ["facefusion.py", "run" if release4 else "headless-run"]
    apply_args = importlib.import_module("facefusion.args_helper" if release4 else "facefusion.args").apply_args
    from facefusion import core, face_store, process_manager, program, state_manager

    defaults = vars(program.create_program().parse_args(sys.argv[1:]))
    answers.write("ready\n")
    for line in sys.stdin:
        job = json.loads(line)
        began = time.perf_counter()
        arguments = defaults | {
            "command": sys.argv[1],
            "source_paths": [job["source"]],
            "target_path": job["target"],
            "output_path": job["output"],
            "temp_path": job["temp"],
            "output_audio_encoder": "aac",
            "video_memory_strategy": "tolerant",
            "execution_providers": [job["provider"]],
            "download_providers": [],
        }
        apply_args(arguments, state_manager.init_item)
        code = 2
        if core.common_pre_check() and core.processors_pre_check():
            code = core.conditional_process()
        process_manager.end()
        # It keeps the faces of each frame by the frame's checksum: a second run of the same job would find nothing left to do.
        face_store.clear_faces()
        answers.write(json.dumps({"code": code, "seconds": time.perf_counter() - began}) + "\n")


main()
