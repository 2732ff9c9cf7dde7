"""What the operator decides, read once when the engine is made. No job can change any of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...engine import EngineError

# Of model files; what a session takes beside its weights comes on top.
MODEL_MEMORY_BYTES = 6 << 30
# What a job may ask of the options that can exhaust a machine. Scales are factors of a side, `processors` is how
# many may run in one job, `enhanced_megapixels` bounds the picture that a frame_enhancer model makes before it is scaled down.
LIMITS: Mapping[str, float] = {
    "output_image_scale": 8,
    "output_video_scale": 4,
    "output_video_fps": 120,
    "output_audio_fps": 120,
    "processors": 8,
    "enhanced_megapixels": 256,
}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    home: str
    execution_providers: tuple[str, ...] = ()  # empty: the first of cuda and cpu that this machine has
    device_ids: tuple[int, ...] = (0,)
    thread_count: int | None = None
    model_memory: int = MODEL_MEMORY_BYTES
    limits: Mapping[str, float] = field(default_factory=lambda: dict(LIMITS))
    weights_path: str = ""  # empty: what is learned of steps lasts as long as the process
    allow_synthetic: bool = False

    @staticmethod
    def read(environment: Mapping[str, str]) -> Settings:
        home = environment.get("FACEFUSION_HOME", "")
        if not home:
            raise EngineError("ENGINE_NOT_CONFIGURED", "FACEFUSION_HOME is not set: it names the folder of a FaceFusion checkout.")
        home = os.path.abspath(home)
        if not os.path.isfile(os.path.join(home, "facefusion", "core.py")):
            raise EngineError("ENGINE_NOT_CONFIGURED", f"FACEFUSION_HOME is {home}, and no FaceFusion checkout is there.")
        threads = environment.get("FACEFUSION_EXECUTION_THREAD_COUNT", "")
        return Settings(
            home=home,
            execution_providers=tuple(_words(environment.get("FACEFUSION_EXECUTION_PROVIDERS", ""))),
            device_ids=tuple(_number("FACEFUSION_EXECUTION_DEVICE_IDS", word) for word in _devices(environment)),
            thread_count=_number("FACEFUSION_EXECUTION_THREAD_COUNT", threads) if threads else None,
            model_memory=_size(environment.get("FFJOBS_MODEL_MEMORY", "")),
            limits={**LIMITS, **_limits(environment.get("FFJOBS_OPTION_LIMITS", ""))},
            weights_path=environment.get("FFJOBS_STEP_WEIGHTS", ""),
            allow_synthetic=environment.get("FFJOBS_TEST_SYNTHETIC_MODELS", "") == "1",
        )


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _devices(environment: Mapping[str, str]) -> list[str]:
    return _words(environment.get("FACEFUSION_EXECUTION_DEVICE_IDS", "")) or ["0"]


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise EngineError("ENGINE_NOT_CONFIGURED", f"{name} is {text!r}; it is a whole number.")
    return int(text)


def _size(text: str) -> int:
    if not text:
        return MODEL_MEMORY_BYTES
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise EngineError("ENGINE_NOT_CONFIGURED", f"FFJOBS_MODEL_MEMORY is {text!r}; it is a size such as 6GiB.")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def _limits(text: str) -> dict[str, float]:
    if not text:
        return {}
    try:
        limits = json.loads(text)
        return {str(name): float(limit) for name, limit in limits.items()}
    except (ValueError, AttributeError, TypeError):
        raise EngineError(
            "ENGINE_NOT_CONFIGURED", 'FFJOBS_OPTION_LIMITS is not an object of numbers, such as {"output_video_fps": 60}.'
        ) from None
