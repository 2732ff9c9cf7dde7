"""What an examination ends with: facts, or a refusal that its caller is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "video", "audio"]


class Refused(Exception):
    """`message` goes on from "this": "is cut short"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Limits:
    """What is taken: sides and areas in pixels, a picture's apart from a frame's."""

    image_pixels: int
    video_pixels: int
    side: int
    frames: int
    seconds: float
    streams: int


@dataclass
class Facts:
    """What was found. Sizes in pixels as decoded, times in seconds; 0 where it does not apply."""

    width: int = 0
    height: int = 0
    frames: int = 0
    seconds: float = 0
    rate: float = 0
    streams: int = 1
    audio: bool = False
    codec: str = ""
