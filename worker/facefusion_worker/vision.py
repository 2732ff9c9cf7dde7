"""OpenCV and PyAV, imported here and nowhere else: their guards must stand before they load.

OpenCV reads its limit on a picture's pixels once, when its library is loaded.
"""

from __future__ import annotations

import os

# Pixels of one picture, and of one frame of a video, that an input or a result may have. 64 million are 192 MB of BGR.
MAX_PICTURE_PIXELS = 64 * 1024 * 1024
MAX_VIDEO_PIXELS = 16 * 1024 * 1024

os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_PICTURE_PIXELS)
os.environ["OPENCV_LOG_LEVEL"] = "ERROR"

import av  # noqa: E402
import av.logging  # noqa: E402
import cv2  # noqa: E402

# What a hostile file makes libav say is not for the job's log. Never by a callback into Python: a decoder's threads would wait for the
# interpreter while the one that frees the decoder holds it, and both wait for ever.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)

__all__ = ["MAX_PICTURE_PIXELS", "MAX_VIDEO_PIXELS", "av", "cv2"]
