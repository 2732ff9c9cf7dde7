"""The installed FaceFusion: found, loaded, and held to the table of what this adapter takes hold of.

All that differs between releases is in this file. Nothing of the program is changed on disk; its content analyser is the released one (the
program's own check says so, at start and before every job), and no setting turns it off.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import inspect
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ...engine import EngineError, Step
from ...vision import av
from .settings import Settings

# Of the program's options, those that are the operator's affair: a job can neither see nor set them.
OPERATOR_OPTIONS = frozenset(
    (
        "config_path",
        "temp_path",
        "jobs_path",
        "source_paths",
        "target_path",
        "output_path",
        "execution_device_ids",
        "execution_providers",
        "execution_thread_count",
        "download_providers",
        "video_memory_strategy",
        "log_level",
    )
)

# What a run after one that ran out of memory is given: the program lets each model go as soon as it is done with it, and works on one frame
# at a time.
LOW_MEMORY: Mapping[str, Any] = {"video_memory_strategy": "strict", "execution_thread_count": 1}

_OLDEST_AV = (17, 1)

_TASKS_OF_PICTURES = {
    "analyse_image": Step.STEP_ANALYSING,
    "setup": None,
    "prepare_image": Step.STEP_EXTRACTING_FRAMES,
    "process_image": Step.STEP_PROCESSING,
    "finalize_image": Step.STEP_ENCODING_OUTPUT,
    "clear": None,
}
_TASKS_OF_VIDEO_3_8 = {
    "analyse_video": Step.STEP_ANALYSING,
    "setup": None,
    "extract_frames": Step.STEP_EXTRACTING_FRAMES,
    "process_disk_frames": Step.STEP_PROCESSING,
    "process_memory_frames": Step.STEP_PROCESSING,
    "merge_frames": Step.STEP_ENCODING_OUTPUT,
    "restore_audio": Step.STEP_RESTORING_AUDIO,
    "finalize_video": None,
    "clear": None,
}
_TASKS_OF_VIDEO_4 = {
    "analyse_video": Step.STEP_ANALYSING,
    "setup": None,
    "create_temp_frames": Step.STEP_EXTRACTING_FRAMES,
    "process_frames": Step.STEP_PROCESSING,
    "process_memory_frames": Step.STEP_PROCESSING,
    "merge_frames": Step.STEP_ENCODING_OUTPUT,
    "restore_audio": Step.STEP_RESTORING_AUDIO,
    "finalize_video": None,
    "clear": None,
}
_TASKS_OF_SOUND_4 = {"analyse_image": Step.STEP_ANALYSING} | {
    name: step for name, step in _TASKS_OF_VIDEO_4.items() if name not in ("analyse_video", "process_memory_frames")
}

# Pictures instead of a video: no encoding, and no sound.
_TASKS_OF_FRAMES_4 = {
    name: step
    for name, step in _TASKS_OF_VIDEO_4.items()
    if name in ("analyse_video", "setup", "create_temp_frames", "process_frames", "clear")
} | {"copy_temp_frames": Step.STEP_ENCODING_OUTPUT, "finalize_frames": None}
_TASKS_OF_SOUND_FRAMES_4 = {"analyse_image": Step.STEP_ANALYSING} | {
    name: step for name, step in _TASKS_OF_FRAMES_4.items() if name != "analyse_video"
}

# What every release must have, by module. A name is looked up by the program at each call, so that replacing it there takes effect.
_HOOKS: Mapping[str, Sequence[str]] = {
    "core": ("common_pre_check", "processors_pre_check", "conditional_process"),
    "content_analyser": ("analyse_image", "analyse_video", "analyse_frame", "get_inference_pool", "tqdm"),
    "download": (
        "subprocess",
        "conditional_download",
        "validate_hash",
        "validate_hash_paths",
        "validate_source_paths",
        "remove_file",
        "tqdm",
    ),
    "ffmpeg": ("subprocess", "tqdm"),
    "ffprobe": ("subprocess", "extract_static_video_metadata", "extract_static_audio_metadata"),
    "inference_manager": ("InferenceSession", "fatal_exit", "INFERENCE_POOL_SET", "resolve_static_inference_providers"),
    "process_manager": ("stop", "end", "is_processing"),
    "state_manager": ("STATE_SET", "init_item", "get_item"),
    "video_manager": ("write_video_frame", "close_video_writer", "clear_video_pool"),
    "vision": (
        "read_static_image",
        "read_static_video_frame",
        "read_video_frame",
        "count_video_frame_total",
        "detect_video_fps",
        "scale_resolution",
    ),
    "audio": ("read_static_audio", "read_static_voice"),
    "face_store": ("clear_faces",),
    "frame_store": ("FRAME_STORE_SET",),
    "filesystem": ("is_audio",),
    "execution": ("get_available_execution_providers",),
    "program": ("create_program",),
    "processors.core": ("get_processors_modules",),
    "translator": ("get",),
    "metadata": ("get",),
    "choices": ("face_detector_set",),
    "processors.modules.face_swapper.choices": ("face_swapper_set",),
}


@dataclass(frozen=True)
class Release:
    """One family of releases, and where it differs from the others."""

    name: str
    command: str  # that runs one job without a window
    arguments: str  # the module with `apply_args`
    workflows: Mapping[str, Mapping[str, Step | None]]  # tasks by workflow module; each task is a hook
    pools: Sequence[str]  # modules with a thread pool and a bar of their own
    writers: Sequence[str]  # modules that write processed frames to disk
    trims: Sequence[str] = ()  # modules that take a range of the target for a range of the frames on disk

    @property
    def speaks(self) -> bool:
        """Whether it makes a video of a picture and sound."""
        return "audio_to_image" in self.workflows

    @property
    def writes_frames(self) -> bool:
        """Whether it makes pictures of a video."""
        return "image_to_video_as_frames" in self.workflows

    def hooks(self) -> Iterator[tuple[str, str]]:
        tables: dict[str, list[str]] = {module: list(names) for module, names in _HOOKS.items()}
        tables.setdefault(self.arguments, []).append("apply_args")
        for module, tasks in self.workflows.items():
            tables.setdefault("workflows." + module, []).extend(tasks)
        for module in self.pools:
            tables.setdefault("workflows." + module, []).extend(["tqdm", "ThreadPoolExecutor"])
        for module in self.writers:
            tables.setdefault("workflows." + module, []).append("write_image")
        if self.speaks:
            tables["audio"].append("restrict_trim_audio_frame")
        for module in self.trims:
            tables.setdefault("workflows." + module, []).append("restrict_trim_frame")
        for module, names in tables.items():
            for name in dict.fromkeys(names):
                yield "facefusion." + module, name


RELEASES = {
    "3.8": Release(
        name="3.8",
        command="headless-run",
        arguments="args",
        workflows={"image_to_image": _TASKS_OF_PICTURES, "image_to_video": _TASKS_OF_VIDEO_3_8},
        pools=("to_video",),
        writers=("to_image", "to_video"),
    ),
    "4": Release(
        name="4",
        command="run",
        arguments="args_helper",
        workflows={
            "image_to_image": _TASKS_OF_PICTURES,
            "image_to_video": _TASKS_OF_VIDEO_4,
            "image_to_video_as_frames": _TASKS_OF_FRAMES_4,
            "audio_to_image": _TASKS_OF_SOUND_4,
            "audio_to_image_as_frames": _TASKS_OF_SOUND_FRAMES_4,
        },
        pools=("core", "to_video"),
        writers=("core",),
        trims=("to_video",),
    ),
}


def release_of(version: str) -> Release:
    number = version.lstrip("v")
    for prefix, release in RELEASES.items():
        if number == prefix or number.startswith(prefix + "."):
            return release
    known = ", ".join(f"{name}.x" for name in RELEASES)
    raise EngineError("ENGINE_NOT_SUPPORTED", f"FaceFusion {version} is not one of the releases that this engine knows ({known}).")


class Program:
    """FaceFusion, imported into this process. There is one, for as long as the process lives: the program keeps its state in modules."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._enter(settings.home)
        try:
            self.version = str(self.module("metadata").get("version")).lstrip("v")
            self.release = release_of(self.version)
            self._check_hooks()
        except ModuleNotFoundError as error:
            raise EngineError("ENGINE_BROKEN", self._absent(error)) from None
        if not self.module("core").common_pre_check():
            raise EngineError("ENGINE_BROKEN", "FaceFusion's content analyser is not the released one; the checkout has been changed.")
        self.parser, self.actions, self._defaults = self._parse()
        self.providers = self._providers()
        self._path_caches = list(self._find_path_caches())

    @staticmethod
    def _enter(home: str) -> None:
        here = os.path.abspath(__file__)
        for folder in ("uis", "apis"):
            # The program tells its callers apart by the paths of the code on the stack.
            if os.path.join("facefusion", folder) in here:
                raise EngineError(
                    "ENGINE_BROKEN", f"This service must not lie under a folder facefusion/{folder}: FaceFusion would take it for its own."
                )
        for tool in ("ffmpeg", "ffprobe", "curl"):
            if shutil.which(tool) is None:
                raise EngineError("ENGINE_BROKEN", f"{tool} is not on the PATH; FaceFusion needs it.")
        if tuple(int(part) for part in av.__version__.split(".")[:2]) < _OLDEST_AV:
            raise EngineError(
                "ENGINE_BROKEN", f"{sys.executable} has PyAV {av.__version__}; {'.'.join(map(str, _OLDEST_AV))} is the oldest that does."
            )
        os.environ["OMP_NUM_THREADS"] = "1"  # as the program's own entry point does, before its libraries load
        os.chdir(home)  # its configuration and its processors are found from the working folder
        if home not in sys.path:
            sys.path.insert(0, home)

    @staticmethod
    def _absent(error: ModuleNotFoundError) -> str:
        name = error.name or str(error)
        if name.startswith("facefusion"):
            return f"FaceFusion has no module {name}; its release is not one that this engine knows."
        return f"{sys.executable}, which runs FaceFusion, lacks the package {name}; install it with: {sys.executable} -m pip install {name}"

    def module(self, name: str) -> ModuleType:
        return importlib.import_module("facefusion." + name)

    def _check_hooks(self) -> None:
        missing = []
        for module_name, name in self.release.hooks():
            try:
                if not hasattr(importlib.import_module(module_name), name):
                    missing.append(f"{module_name}.{name}")
            except ModuleNotFoundError as error:
                if not (error.name or "").startswith("facefusion"):
                    raise
                missing.append(f"{module_name}.{name}")
        if missing:
            raise EngineError("ENGINE_BROKEN", f"FaceFusion {self.version} lacks what this engine takes hold of: {', '.join(missing)}.")

    def _parse(self) -> tuple[argparse.ArgumentParser, dict[str, argparse.Action], dict[str, Any]]:
        # Making the parser reads sys.argv, and starts ffmpeg several times: once for the process.
        command, sys.argv = self.release.command, ["facefusion.py", self.release.command]
        parser = self.module("program").create_program()
        subparsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        if command not in subparsers.choices:
            raise EngineError("ENGINE_BROKEN", f"FaceFusion {self.version} has no command {command}.")
        defaults = vars(parser.parse_args([command]))
        actions = {action.dest: action for action in subparsers.choices[command]._actions if action.dest in defaults}
        return parser, actions, defaults

    def _providers(self) -> tuple[str, ...]:
        available = self.module("execution").get_available_execution_providers()
        wanted = self.settings.execution_providers
        for provider in wanted:
            if provider not in available:
                raise EngineError(
                    "ENGINE_NOT_CONFIGURED", f"The execution provider {provider} is not there; there are: {', '.join(available)}."
                )
        return wanted or ("cuda" if "cuda" in available else "cpu",)

    def defaults(self) -> dict[str, Any]:
        """A fresh set of the program's arguments with the operator's among them. Lists in it are this caller's own."""
        arguments = copy.deepcopy(self._defaults)
        settings = self.settings
        return arguments | {
            "command": self.release.command,
            "source_paths": None,
            "target_path": None,
            "output_path": None,
            "execution_device_ids": list(settings.device_ids),
            "execution_providers": list(self.providers),
            "execution_thread_count": settings.thread_count or arguments["execution_thread_count"],
            # Nothing is fetched within a job, and no host is asked.
            "download_providers": [],
            # What stays loaded is this engine's own decision.
            "video_memory_strategy": "tolerant",
            "log_level": "info",
        }

    def apply(self, arguments: Mapping[str, Any]) -> None:
        self.module(self.release.arguments).apply_args(dict(arguments), self.module("state_manager").init_item)

    def say(self, key: str) -> str:
        """One of the program's own sentences."""
        return str(self.module("translator").get(key) or key)

    def processors(self, names: Sequence[str]) -> list[ModuleType]:
        return self.module("processors.core").get_processors_modules(list(names))

    def load_models(self, arguments: Mapping[str, Any]) -> None:
        """What these arguments need, one after another. The program itself loads at first use: its threads would each load the same."""
        modules: dict[str, ModuleType] = {}
        for processor in self.processors(arguments["processors"]):
            for module in (*processor.get_common_modules(), processor):
                modules.setdefault(module.__name__, module)
        masks = {"occlusion", "region"} & set(arguments["face_mask_types"])
        for name, module in modules.items():
            if masks or not name.endswith(".face_masker"):
                module.get_inference_pool()

    def _find_path_caches(self) -> Iterator[Any]:
        """The program's caches that are keyed by the path of a job's file: they would answer for the file that was there before."""
        for name, module in list(sys.modules.items()):
            if not name.startswith("facefusion."):
                continue
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear") and getattr(value, "__module__", None) == name:
                    keys = inspect.signature(value).parameters
                    if any("path" in key and key != "model_path" for key in keys):
                        yield value
        # Keyed by module and device alone, though it depends on the model.
        yield self.module("inference_manager").resolve_static_inference_providers

    def reset(self) -> None:
        """Back to where a fresh process stands, but for the models that are loaded."""
        self.module("video_manager").clear_video_pool()
        for cache in self._path_caches:
            cache.cache_clear()
        self.module("face_store").clear_faces()
        self.module("frame_store").FRAME_STORE_SET.clear()
        self.forget_arguments()

    def forget_arguments(self) -> None:
        """What it knows of a run's files stays: finding it out takes a tenth of a second for a video."""
        self.module("process_manager").end()
        for state in self.module("state_manager").STATE_SET.values():
            state.clear()
