"""`python -m facefusion_worker.provenance sign | check | certificate`: the process that has the private key.

One JSON line on stdin says which files it signs with, one line on stdout answers. `sign` says `{"ready": true}` when it has read them,
takes one request, answers it and ends: whatever an input does to a library here, it does to one job. stderr is for people, and holds
nothing of the key."""

from __future__ import annotations

import argparse
import json
import os
import resource
import stat
import struct
import sys
import tempfile
import threading
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..engine import EngineError
from .problems import NotMarked, Unfit

_EXIT_DEFECT = 70
_INSTALL = f"-m pip install -r {Path(__file__).resolve().parents[2] / 'requirements-provenance.txt'}"


def _load(files: dict[str, Any]) -> Any:
    """The credentials. Raises `Unfit`, also where a package is missing."""
    try:
        import c2pa  # noqa: F401

        from . import credentials
    except ImportError as error:
        raise Unfit(
            f"{sys.executable} has no {error.name}, which marks results",
            f"run `{sys.executable} {_INSTALL}`, or set FFJOBS_PROVENANCE_PYTHON to a Python that has it",
        ) from None
    return credentials.load(files["certificate"], files["key"], files.get("trust"), files.get("timestamps"))


def _check(files: dict[str, Any]) -> dict[str, Any]:
    """Signs a picture of one pixel: what the library has against the certificate, or a time stamp's giver that is away, is told before a
    job."""
    loaded = _load(files)
    from . import manifest

    claim = manifest.Claim("http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicMedia", "check", "1", "check", "1", ["check"], [])
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "pixel.png")
        with open(source, "wb") as file:
            file.write(_pixel())
        claim = manifest.Claim(**{**vars(claim), "ingredients": [manifest.Ingredient(source, "target", "image/png")]})
        try:
            manifest.sign(source, os.path.join(folder, "marked.png"), "image/png", claim, loaded)
        except NotMarked as error:
            raise Unfit(
                f"a trial with the certificate of {loaded.subject} failed: {error.message}",
                "correct FFJOBS_PROVENANCE_CERT and FFJOBS_PROVENANCE_KEY" + (" or FFJOBS_PROVENANCE_TSA" if loaded.timestamps else ""),
            ) from None
    return {
        "signer": loaded.subject,
        "issuer": loaded.issuer,
        "certificate_sha256": loaded.sha256,
        "expires": loaded.expires.isoformat(),
        "warnings": list(loaded.warnings),
    }


def _pixel() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def _certificate(_: dict[str, Any], folder: str) -> dict[str, Any]:
    try:
        from . import development
    except ImportError as error:
        raise Unfit(f"{sys.executable} has no {error.name}", f"run `{sys.executable} {_INSTALL}`") from None
    return development.make(folder)


def _mark(loaded: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Label, XMP, manifest, in this order: the signature comes last. Raises `NotMarked`."""
    from . import manifest, xmp

    source, folder, extension, media_type = (request[name] for name in ("source", "folder", "extension", "media_type"))
    _assert_plain(source)
    # What the library does not hold in memory lies with the job's own files, and has no name there.
    os.environ["TMPDIR"] = folder
    warnings: list[str] = []
    label = request["label"]
    if label:
        from . import label as labels

        labelled = os.path.join(folder, f"labelled.{extension}")
        _discard(labelled)
        if labels.write(source, labelled, extension, label, request["parameters"]):
            source = labelled
        else:
            warnings.append("the result is too small for the label that it should have")
            label = ""
    with_xmp = os.path.join(folder, f"described.{extension}")
    marked = os.path.join(folder, f"marked.{extension}")
    _discard(with_xmp)
    _discard(marked)
    try:
        has_xmp = xmp.write(source, with_xmp, media_type, request["source_type"])
    except xmp.Malformed as error:
        raise NotMarked("PROVENANCE_NOT_SIGNED", f"the result is not as {media_type} should be: {error}", retryable=False) from None
    claim = manifest.Claim(
        source_type=request["source_type"],
        generator=request["generator"],
        generator_version=request["generator_version"],
        engine=request["engine"],
        engine_version=request["engine_version"],
        processors=request["processors"],
        ingredients=[manifest.Ingredient(**one) for one in request["ingredients"]],
        label=label,
    )
    try:
        read = manifest.sign(with_xmp if has_xmp else source, marked, media_type, claim, loaded)
    finally:
        _discard(with_xmp)
    path = marked if read["mark"] == "EMBEDDED" else source
    return read | {"path": path, "xmp": has_xmp, "label": label, "warnings": warnings}


def _assert_plain(path: str) -> None:
    """What an engine leaves is read with this process's rights: a link would lead to what the engine could not read."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise NotMarked("PROVENANCE_NOT_SIGNED", "the result is not a plain file", retryable=False)


def _discard(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def _serve(files: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    loaded = _load(files)
    say({"ready": True})
    line = sys.stdin.readline()
    if not line:
        return {}
    threading.Thread(target=_end_with_service, daemon=True).start()
    try:
        return {"marked": _mark(loaded, json.loads(line))}
    except NotMarked as error:
        return _failed(error.reason, error.message, error.retryable)
    except EngineError as error:
        return _failed("PROVENANCE_NOT_LABELLED", f"the label could not be drawn: {error.message}", error.retryable)
    except MemoryError:
        return _failed("PROVENANCE_NOT_SIGNED", "there is not enough memory to mark the result", True)


def _end_with_service() -> None:
    """Nobody is there for the answer any more: a result is not marked for hours for a service that was killed."""
    sys.stdin.read()
    os._exit(0)


def _failed(reason: str, message: str, retryable: bool) -> dict[str, Any]:
    return {"failed": {"reason": reason, "message": message, "retryable": retryable}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m facefusion_worker.provenance", description="Marks results as made by AI.")
    parser.add_argument("command", choices=("sign", "check", "certificate"))
    parser.add_argument("--out", default=".", help="folder for the files of `certificate`")
    parser.add_argument("--memory", type=int, default=0, help="bytes that this process may take; 0: no limit")
    arguments = parser.parse_args()
    # No dump of memory with the key in it is written.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if arguments.memory > 0:
        resource.setrlimit(resource.RLIMIT_DATA, (arguments.memory, arguments.memory))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        files = {} if arguments.command == "certificate" else json.loads(sys.stdin.readline())
        if arguments.command == "sign":
            answer = _serve(files, say)
        elif arguments.command == "check":
            answer = {"fit": _check(files)}
        else:
            answer = {"made": _certificate(files, arguments.out)}
    except Unfit as unfit:
        answer = {"unfit": {"message": unfit.message, "fix": unfit.fix}}
    except Exception:
        traceback.print_exc()
        return _EXIT_DEFECT
    say(answer)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
