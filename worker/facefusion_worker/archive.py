"""The frames of a run as one file: a ZIP archive of pictures, each as it was written, in the order of their names.

Always true here: the same pictures under the same names make the same bytes, wherever and whenever they are packed; an archive that is
read is one of ours, and no name in it leads anywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator

from .engine import CancelToken, EngineError

EXTENSION = "zip"
MEDIA_TYPE = "application/zip"

_NAME = re.compile(r"\d{1,12}\.[a-z]{3,4}")
# The oldest that the format knows: when a picture was written is nobody's affair, and would make like archives differ.
_TIME = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1 << 20


def pack(pictures: Iterable[str], path: str, cancel: CancelToken, packed: Callable[[int], None]) -> None:
    """Moves the pictures into an archive: each is deleted once it is in it, so that they take their room on the disk once. They are
    compressed already, and are stored. `packed` is told how many are in it."""
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for number, picture in enumerate(pictures, 1):
            entry = zipfile.ZipInfo(os.path.basename(picture), _TIME)
            entry.external_attr = 0o644 << 16
            entry.file_size = os.path.getsize(picture)
            with open(picture, "rb") as file, archive.open(entry, "w") as into:
                while chunk := file.read(_CHUNK):
                    cancel.check()
                    into.write(chunk)
            os.unlink(picture)
            packed(number)


def unpack(path: str, folder: str) -> Iterator[str]:
    """The pictures one after another, each for as long as it is being looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                # One that is larger than its archive, or lies elsewhere than it says, was not packed here.
                if not _NAME.fullmatch(entry.filename) or entry.compress_type != zipfile.ZIP_STORED:
                    raise _not_ours("an entry is not a frame")
                picture = os.path.join(folder, entry.filename)
                with archive.open(entry) as file, open(picture, "xb") as into:
                    shutil.copyfileobj(file, into, _CHUNK)
                yield picture
                if os.path.exists(picture):
                    os.unlink(picture)
    except zipfile.BadZipFile as error:
        raise _not_ours(str(error)) from None


def _not_ours(problem: str) -> EngineError:
    return EngineError("RESULT_INVALID", f"The result is no archive of frames: {problem}.", retryable=True)
