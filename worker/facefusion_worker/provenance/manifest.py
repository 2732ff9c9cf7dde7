"""A signed manifest for one result, and what is read back of it.

Always true here: nothing goes to the network but a request for a time stamp, where the operator names who gives one; no thumbnail of an
input, no name of a caller's file and nothing of the job is in a manifest; what is answered was read from the finished file.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, BinaryIO

import c2pa

from . import memory
from .credentials import Credentials, check_date
from .problems import NotMarked, Unfit

# Formats that hold their manifest themselves; any other gets one beside it.
EMBEDDABLE = frozenset({"image/jpeg", "image/png", "image/webp", "video/mp4", "video/quicktime"})
_UNKNOWN = "application/octet-stream"
# As the library writes the system's ENOSPC.
_NO_SPACE = "os error 28"
# What the library takes of memory: a little, and what it hashes at once, in two buffers of at most 256 MiB. What it writes in between
# is on the disk.
_MEMORY_BYTES, _HASHED_BYTES, _IN_BETWEEN_MIB = 100 << 20, 512 << 20, 1
# These it takes apart and puts together in memory.
_HELD_WHOLE, _HELD_SHARE = frozenset({"image/jpeg", "image/webp"}), 2.5


@dataclass(frozen=True)
class Ingredient:
    """An input of the run. `title` is ours: "target", "source 1"."""

    path: str
    title: str
    media_type: str


@dataclass(frozen=True)
class Claim:
    """What the manifest says of a result. `source_type` is a URI of the IPTC."""

    source_type: str
    generator: str
    generator_version: str
    engine: str
    engine_version: str
    processors: Sequence[str]
    ingredients: Sequence[Ingredient]  # the target first
    label: str = ""


def sign(source: str, destination: str, media_type: str, claim: Claim, credentials: Credentials) -> dict[str, Any]:
    """Writes the signed copy, or nothing where the manifest lies beside the file, and answers what was read back. Raises `NotMarked`."""
    try:
        check_date(credentials.expires, "the certificate that results are signed with")
    except Unfit as unfit:
        raise NotMarked("PROVENANCE_CERTIFICATE_EXPIRED", f"{unfit.message}: its operator has to renew it", retryable=False) from None
    _check_memory(os.path.getsize(source), media_type)
    embedded = media_type in EMBEDDABLE
    with c2pa.Context.from_dict(_settings(credentials, claim)) as context:
        try:
            manifest = _sign(source, destination if embedded else None, media_type, claim, credentials, context)
        except c2pa.C2paError as error:
            # For the service's log; a caller is not told where time stamps come from.
            print(_words(error), file=sys.stderr)
            if credentials.timestamps is not None and _is_of_time_stamp(str(error)):
                raise NotMarked("PROVENANCE_NOT_SIGNED", "the time stamp of its signature could not be had", retryable=True) from None
            if _NO_SPACE in str(error):
                raise NotMarked("PROVENANCE_NOT_SIGNED", "the disk has no room for signing the result", retryable=True) from None
            raise NotMarked("PROVENANCE_NOT_SIGNED", f"the result could not be signed: {_words(error)}", retryable=False) from None
        with open(destination if embedded else source, "rb") as file:
            read = _read(file, media_type, None if embedded else manifest, context)
    return _verified(read, claim, credentials) | {
        "mark": "EMBEDDED" if embedded else "SIDECAR",
        "sidecar": "" if embedded else base64.b64encode(manifest).decode(),
    }


def memory_needed(size: int, media_type: str) -> int:
    """Bytes of memory that a process takes at the most to sign a result of so many bytes."""
    return _MEMORY_BYTES + (int(_HELD_SHARE * size) if media_type in _HELD_WHOLE else min(size, _HASHED_BYTES))


def _check_memory(size: int, media_type: str) -> None:
    """Before a large file takes what others on this machine need."""
    needed = memory_needed(size, media_type)
    problem = f"signing a result of {size >> 20} MiB takes {needed >> 20} MiB of memory, and"
    room = memory.room()
    if needed > room.all:
        raise NotMarked("PROVENANCE_NOT_SIGNED", f"{problem} a process has {room.all >> 20} here", retryable=False)
    if needed > room.free:
        raise NotMarked("PROVENANCE_NOT_SIGNED", f"{problem} {room.free >> 20} are free", retryable=True)


def _settings(credentials: Credentials, claim: Claim) -> dict[str, Any]:
    trust = {"trust_anchors": credentials.trust} if credentials.trust else {}
    return {
        "trust": trust,
        "core": {"backing_store_memory_threshold_in_mb": _IN_BETWEEN_MIB},
        "verify": {
            "verify_after_sign": False,  # it is read back from the file instead
            "verify_trust": credentials.trust is not None,
            "remote_manifest_fetch": False,
            "ocsp_fetch": False,
        },
        "builder": {
            "thumbnail": {"enabled": False},
            "claim_generator_info": {"name": claim.generator, "version": claim.generator_version},
        },
    }


def _sign(source: str, destination: str | None, media_type: str, claim: Claim, credentials: Credentials, context: c2pa.Context) -> bytes:
    info = c2pa.C2paSignerInfo(credentials.algorithm, credentials.chain.encode(), credentials.key.encode(), credentials.timestamps)
    with ExitStack() as stack:
        signer = stack.enter_context(c2pa.Signer.from_info(info))
        builder = stack.enter_context(c2pa.Builder(json.dumps(_definition(media_type, claim)), context))
        for number, one in enumerate(claim.ingredients):
            _add(builder, one, _relationship(number), _label(number))
        original = stack.enter_context(open(source, "rb"))
        if destination is None:
            builder.set_no_embed()
            # The library writes a copy in any case.
            return builder.sign(signer, media_type, original, stack.enter_context(tempfile.TemporaryFile(dir=os.path.dirname(source))))
        return builder.sign(signer, media_type, original, stack.enter_context(open(destination, "x+b")))


def _definition(media_type: str, claim: Claim) -> dict[str, Any]:
    software = {"name": claim.engine, "version": claim.engine_version}
    edit = {
        "action": "c2pa.edited",
        "digitalSourceType": claim.source_type,
        "softwareAgent": software,
        "description": f"{', '.join(claim.processors)}; labelled" if claim.label else ", ".join(claim.processors),
    }
    others = [_label(number) for number in range(1, len(claim.ingredients))]
    if others:
        edit["parameters"] = {"ingredientIds": others}
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [_label(0)]}}
    return {
        "title": "result",
        "format": media_type,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [opened, edit]}}],
    }


def _add(builder: c2pa.Builder, one: Ingredient, relationship: str, label: str) -> None:
    """An input whose own manifest cannot be read is one without, so that no input keeps a result from being marked."""
    definition = json.dumps({"title": one.title, "relationship": relationship, "label": label})
    with open(one.path, "rb") as file:
        try:
            builder.add_ingredient(definition, one.media_type, file)
        except c2pa.C2paError:
            file.seek(0)
            builder.add_ingredient(definition, _UNKNOWN, file)


def _relationship(number: int) -> str:
    return "parentOf" if number == 0 else "inputTo"


def _label(number: int) -> str:
    return f"input_{number}"


def _read(file: BinaryIO, media_type: str, manifest: bytes | None, context: c2pa.Context) -> dict[str, Any]:
    try:
        with c2pa.Reader(media_type, file, manifest, context=context) as reader:
            return json.loads(reader.json())
    except c2pa.C2paError as error:
        raise _unverified(f"it cannot be read: {_words(error)}") from None


def _verified(read: Mapping[str, Any], claim: Claim, credentials: Credentials) -> dict[str, Any]:
    """What the finished file says of itself, where that is what it should say. Raises `NotMarked`."""
    state = read.get("validation_state", "")
    if state != ("Trusted" if credentials.trust else "Valid"):
        failures = read.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
        raise _unverified(f"it is {state or 'invalid'}: {'; '.join(one['explanation'] for one in failures[:3])}")
    active = read["manifests"][read["active_manifest"]]
    signature = active.get("signature_info", {})
    if str(signature.get("cert_serial_number")) != str(credentials.serial):
        raise _unverified("another certificate has signed it")
    types = [
        action.get("digitalSourceType")
        for assertion in active.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    if claim.source_type not in types:
        raise _unverified("it does not say how the result was made")
    ingredients = [(one.get("title"), one.get("relationship")) for one in active.get("ingredients", [])]
    if ingredients != [(one.title, _relationship(number)) for number, one in enumerate(claim.ingredients)]:
        raise _unverified("it does not name the inputs")
    return {
        "manifest": read["active_manifest"],
        "digital_source_type": claim.source_type,
        "signer": credentials.subject,
        "issuer": credentials.issuer,
        "certificate_sha256": credentials.sha256,
        "certificate_expires": credentials.expires.isoformat(),
        "signed_at": signature.get("time") or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "timestamped": "time" in signature,
        "validation_state": state,
    }


def _unverified(problem: str) -> NotMarked:
    return NotMarked("PROVENANCE_NOT_VERIFIED", f"the mark of the result does not read back as it was made: {problem}", retryable=True)


def _is_of_time_stamp(text: str) -> bool:
    """Signing itself asks nobody."""
    return "http" in text or "timestamp" in text.lower().replace(" ", "").replace("-", "")


def _words(error: Exception) -> str:
    """The library's, on one line; it knows no more of the key than that it is one."""
    return " ".join(str(error).split())[:300]
