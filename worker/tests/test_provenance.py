"""Marks on results: every format signed by the real library and read back, tampering found, and certificates that do not do refused."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facefusion_worker import archive
from facefusion_worker.engine import CancelToken
from facefusion_worker.provenance import credentials, development, memory, xmp
from facefusion_worker.provenance.problems import Unfit
from facefusion_worker.vision import av, cv2

TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "zip": "application/zip",
}
VIDEOS = ("mp4", "mov", "webm")
# What cannot hold a manifest has it beside it.
BESIDE = ("webm", "zip")
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
PACKAGE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return development.make(str(tmp_path_factory.mktemp("trial")))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file of each format, and a secret name that no manifest may hold."""
    folder = tmp_path_factory.mktemp("media")
    rows, columns = np.mgrid[0:240, 0:320]
    pixels = np.dstack([rows // 2 + 100, columns // 3 + 90, (rows + columns) // 4 + 80]).astype(np.uint8)
    for name in ("jpg", "png", "webp"):
        cv2.imwrite(str(folder / f"secret-name.{name}"), pixels)
    for number in range(3):
        cv2.imwrite(str(folder / f"{number:08}.png"), np.dstack([pixels, np.full(pixels.shape[:2], 200, np.uint8)]))
    archive.pack(sorted(map(str, folder.glob("0*.png"))), str(folder / "secret-name.zip"), CancelToken(), lambda _: None)
    for name, codec in (("mp4", "libx264"), ("mov", "libx264"), ("webm", "libvpx-vp9")):
        with av.open(str(folder / f"secret-name.{name}"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
            container.mux(stream.encode(None))
    return folder


def files(trial: dict[str, str], **more: str) -> dict[str, str]:
    return {"certificate": trial["certificate.pem"], "key": trial["key.pem"], "trust": trial["root.pem"], **more}


def talk(command: str, *lines: object, flags: tuple[str, ...] = ()) -> tuple[list[dict[str, Any]], str]:
    """Runs the process as the service does, which stays until it has ended; answers what it said, and its stderr."""
    with tempfile.TemporaryFile("w+") as complaints, process(command, *flags, stderr=complaints) as one:
        tell(one, *lines)
        said = one.stdout.read().splitlines()
        code = one.wait()
        complaints.seek(0)
        complaint = complaints.read()
    assert code == 0, complaint
    return [json.loads(line) for line in said], complaint


@contextmanager
def process(command: str, *flags: str, stderr: Any = None) -> Iterator[subprocess.Popen]:
    one = subprocess.Popen(
        [sys.executable, "-m", "facefusion_worker.provenance", command, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)},
    )
    late = threading.Timer(120, one.kill)
    late.start()
    try:
        yield one
    finally:
        late.cancel()
        one.kill()
        one.wait()


def tell(one: subprocess.Popen, *lines: object) -> None:
    one.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
    one.stdin.flush()


def request(source: Path, folder: Path, target: Path, **more: object) -> dict[str, object]:
    extension = source.suffix[1:]
    return {
        "source": str(source),
        "folder": str(folder),
        "extension": extension,
        "media_type": TYPES[extension],
        "source_type": SOURCE_TYPE,
        "generator": "facefusion-jobs",
        "generator_version": "1.2.3",
        "engine": "facefusion",
        "engine_version": "3.8.1",
        "processors": ["face_swapper"],
        "parameters": {},
        "label": "",
        "ingredients": [
            {"path": str(target), "title": "target", "media_type": TYPES[target.suffix[1:]]},
            {"path": str(target.parent / "secret-name.jpg"), "title": "source 1", "media_type": "image/jpeg"},
        ],
        **more,
    }


def mark(trial: dict[str, str], media: Path, folder: Path, extension: str, **more: object) -> dict[str, Any]:
    source = media / f"secret-name.{extension}"
    answers, _ = talk("sign", files(trial), request(source, folder, source, **more))
    assert answers[0] == {"ready": True}
    return answers[1]


def read(path: str, media_type: str, trial: dict[str, str], manifest: bytes | None = None) -> dict[str, Any]:
    settings = {"trust": {"trust_anchors": Path(trial["root.pem"]).read_text()}, "verify": {"verify_trust": True}}
    with (
        c2pa.Context.from_dict(settings) as context,
        open(path, "rb") as file,
        c2pa.Reader(media_type, file, manifest, context=context) as reader,
    ):
        return json.loads(reader.json())


@pytest.mark.parametrize("extension", TYPES)
def test_every_format_is_signed_with_its_inputs_and_reads_back(extension: str, trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    marked = mark(trial, media, tmp_path, extension)["marked"]
    sidecar = base64.b64decode(marked["sidecar"]) or None
    assert marked["mark"] == ("SIDECAR" if extension in BESIDE else "EMBEDDED")
    assert (sidecar is not None) == (extension in BESIDE)
    assert marked["xmp"] == (extension not in BESIDE)
    assert marked["validation_state"] == "Trusted"
    assert marked["digital_source_type"] == SOURCE_TYPE
    assert "Trial signer" in marked["signer"]
    found = read(marked["path"], TYPES[extension], trial, sidecar)
    assert found["validation_state"] == "Trusted"
    active = found["manifests"][found["active_manifest"]]
    assert active["label"] == marked["manifest"]
    assert [(one["title"], one["relationship"]) for one in active["ingredients"]] == [("target", "parentOf"), ("source 1", "inputTo")]
    [actions] = [one["data"]["actions"] for one in active["assertions"] if one["label"] == "c2pa.actions.v2"]
    assert [one["action"] for one in actions] == ["c2pa.opened", "c2pa.edited"]
    assert actions[1]["digitalSourceType"] == SOURCE_TYPE
    assert actions[1]["softwareAgent"] == {"name": "facefusion", "version": "3.8.1"}
    # Nobody's face and nobody's file name travel with the result.
    assert "secret-name" not in json.dumps(found)
    assert "thumbnail" not in json.dumps(found)
    # What the bytes show is as before, and the media still opens.
    if extension in VIDEOS:
        with av.open(marked["path"]) as container:
            assert sum(1 for _ in container.decode(video=0)) == 5
    elif extension == "zip":
        assert Path(marked["path"]).read_bytes() == (media / "secret-name.zip").read_bytes()
    else:
        before, after = (cv2.imread(str(path)) for path in (media / f"secret-name.{extension}", marked["path"]))
        assert np.array_equal(before, after)


@pytest.mark.parametrize("extension", TYPES)
def test_a_changed_result_is_found_out(extension: str, trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    marked = mark(trial, media, tmp_path, extension)["marked"]
    data = bytearray(Path(marked["path"]).read_bytes())
    # In the middle of the coded picture, which lies in front of nothing but itself in each of these formats.
    at = {"jpg": len(data) - 200, "png": len(data) - 200, "webp": len(data) // 2}.get(extension, data.find(b"mdat") + 300)
    at = len(data) // 2 if extension in BESIDE else at
    data[at] ^= 0x01
    changed = tmp_path / f"changed.{extension}"
    changed.write_bytes(data)
    found = read(str(changed), TYPES[extension], trial, base64.b64decode(marked["sidecar"]) or None)
    assert found["validation_state"] == "Invalid"


def test_an_input_that_is_marked_already_keeps_its_history(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    first = mark(trial, media, tmp_path, "png")["marked"]
    before = tmp_path / "secret-name.png"
    os.rename(first["path"], before)
    (tmp_path / "secret-name.jpg").write_bytes((media / "secret-name.jpg").read_bytes())
    again = tmp_path / "again"
    again.mkdir()
    answers, _ = talk("sign", files(trial), request(media / "secret-name.png", again, before))
    found = read(answers[1]["marked"]["path"], "image/png", trial)
    assert first["manifest"] in found["manifests"]
    assert found["manifests"][found["active_manifest"]]["ingredients"][0]["active_manifest"] == first["manifest"]


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n" + b"\xff" * 50])
def test_an_input_that_nobody_can_read_is_named_all_the_same(content: bytes, trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.png"
    odd.write_bytes(content)
    (tmp_path / "secret-name.jpg").write_bytes(content)
    answers, _ = talk("sign", files(trial), request(media / "secret-name.png", tmp_path, odd))
    assert answers[1]["marked"]["validation_state"] == "Trusted"


def test_a_result_that_is_a_link_is_not_read(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    link = tmp_path / "output.png"
    link.symlink_to(media / "secret-name.png")
    answers, _ = talk("sign", files(trial), request(link, tmp_path, media / "secret-name.png"))
    assert answers[1]["failed"]["reason"] == "PROVENANCE_NOT_SIGNED"
    assert answers[1]["failed"]["retryable"] is False


def test_a_result_that_is_not_its_format_fails_in_words(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.png"
    wrong.write_bytes(b"this is no picture")
    answers, _ = talk("sign", files(trial), request(wrong, tmp_path, media / "secret-name.png"))
    assert answers[1]["failed"]["reason"] == "PROVENANCE_NOT_SIGNED"


@pytest.mark.parametrize("extension", TYPES)
def test_a_label_is_seen_and_nothing_else_changes(extension: str, trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    marked = mark(trial, media, tmp_path, extension, label="AI-generated")["marked"]
    assert marked["label"] == "AI-generated"
    before, after = (_frames(str(path)) for path in (media / f"secret-name.{extension}", marked["path"]))
    assert before.shape == after.shape
    difference = np.abs(before.astype(int) - after.astype(int)).mean(axis=(0, 3))
    lower_left = difference[-20:, :60]
    assert lower_left.mean() > 3 * difference[:120, 160:].mean() + 20


def test_an_archive_that_is_none_of_frames_is_not_taken_apart(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    for name, how in (("../../outside.png", zipfile.ZIP_STORED), ("00000001.png", zipfile.ZIP_DEFLATED)):
        path = tmp_path / "odd.zip"
        with zipfile.ZipFile(path, "w", how) as odd:
            odd.writestr(name, bytes(100_000))
        answers, _ = talk("sign", files(trial), request(path, tmp_path, media / "secret-name.png", label="AI"))
        assert answers[1]["failed"]["reason"] == "PROVENANCE_NOT_LABELLED"
        assert {one.name for one in tmp_path.iterdir()} == {"odd.zip"}


def _frames(path: str) -> Any:
    if path.endswith(".zip"):
        with tempfile.TemporaryDirectory() as folder:
            return np.stack([cv2.imread(picture) for picture in archive.unpack(path, folder)])
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)])


def test_a_picture_too_small_for_its_label_is_marked_without_one(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((8, 8, 3), np.uint8))
    answers, _ = talk("sign", files(trial), request(small, tmp_path, media / "secret-name.png", label="AI-generated"))
    assert answers[1]["marked"]["label"] == ""
    assert "too small" in answers[1]["marked"]["warnings"][0]


def test_marking_again_in_the_same_folder_is_the_same_once_more(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert mark(trial, media, tmp_path, "jpg", label="AI")["marked"]["validation_state"] == "Trusted"


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "mp4", "mov"])
def test_xmp_is_where_readers_of_it_look(extension: str, media: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out.{extension}"
    assert xmp.write(str(media / f"secret-name.{extension}"), str(out), TYPES[extension], SOURCE_TYPE)
    data = out.read_bytes()
    assert data.count(SOURCE_TYPE.encode()) == 1
    marker = {"jpg": b"http://ns.adobe.com/xap/1.0/\0", "png": b"iTXtXML:com.adobe.xmp\0", "webp": b"XMP "}
    assert marker.get(extension, b"uuid\xbe\x7a\xcf\xcb") in data
    # A file that has a packet is not given another one.
    assert not xmp.write(str(out), str(tmp_path / "twice"), TYPES[extension], SOURCE_TYPE)


def test_check_signs_a_trial_and_tells_of_the_certificate(trial: dict[str, str]) -> None:
    [answer], said = talk("check", files(trial))
    assert answer["fit"]["signer"].startswith("Trial signer")
    assert len(answer["fit"]["certificate_sha256"]) == 64
    assert any("FFJOBS_PROVENANCE_TSA" in warning for warning in answer["fit"]["warnings"])
    assert said == ""


class Pair:
    """A certificate that is wrong in one way."""

    def __init__(self, folder: Path, **wrong: Any) -> None:
        now = datetime.now(timezone.utc)
        authority = ec.generate_private_key(ec.SECP256R1())
        key = wrong.get("key", ec.generate_private_key(ec.SECP256R1()))
        name, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Signer", wrong.get("issuer", "Root")))
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + wrong.get("begins", timedelta(days=-10)))
            .not_valid_after(now + wrong.get("ends", timedelta(days=10)))
            .add_extension(x509.BasicConstraints(ca=wrong.get("authority", False), path_length=None), critical=True)
        )
        if wrong.get("usage", True):
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"), False
            )
            usage |= {"encipher_only": False, "decipher_only": False}
            builder = builder.add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        purpose = wrong.get("purpose", ExtendedKeyUsageOID.EMAIL_PROTECTION)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        self.certificate, self.key = str(folder / "certificate.pem"), str(folder / "key.pem")
        Path(self.certificate).write_bytes(builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        encryption = wrong.get("encryption", serialization.NoEncryption())
        other = wrong.get("other_key", key)
        Path(self.key).write_bytes(other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
        Path(self.key).chmod(0o600)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ends": timedelta(days=-1)}, "expired on"),
        ({"begins": timedelta(days=2)}, "not valid before"),
        ({"issuer": "Signer"}, "signed by itself"),
        ({"authority": True}, "of an authority"),
        ({"usage": False}, "not for signatures"),
        ({"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, "not for signing claims"),
        ({"other_key": ec.generate_private_key(ec.SECP256R1())}, "does not belong"),
        ({"encryption": serialization.BestAvailableEncryption(b"x")}, "encrypted"),
        ({"key": rsa.generate_private_key(65537, 1024)}, "of a kind that C2PA does not take"),
    ],
)
def test_a_certificate_that_does_not_do_is_refused_in_words(wrong: dict[str, Any], words: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, **wrong)
    [answer], said = talk("check", {"certificate": pair.certificate, "key": pair.key})
    assert words in answer["unfit"]["message"]
    assert answer["unfit"]["fix"]
    assert "PRIVATE" not in said + json.dumps(answer)


def test_files_that_are_none_are_refused_in_words(trial: dict[str, str], tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for wrong in (
        {"certificate": str(tmp_path / "missing")},
        {"certificate": str(nothing)},
        {"key": str(nothing)},
        {"key": str(tmp_path)},
        {"trust": str(nothing)},
        {"trust": trial["certificate.pem"].replace("certificate", "missing")},
    ):
        with pytest.raises(Unfit, match="FFJOBS_PROVENANCE_"):
            credentials.load(**files(trial, **wrong))


def test_another_root_is_not_trusted(trial: dict[str, str], tmp_path: Path) -> None:
    other = development.make(str(tmp_path / "other"))
    with pytest.raises(Unfit, match="does not lead to a root"):
        credentials.load(**files(trial, trust=other["root.pem"]))


def test_a_chain_in_the_wrong_order_is_refused(trial: dict[str, str], tmp_path: Path) -> None:
    chain = x509.load_pem_x509_certificates(Path(trial["certificate.pem"]).read_bytes())
    wrong = tmp_path / "chain.pem"
    root = Path(trial["root.pem"]).read_bytes()
    wrong.write_bytes(chain[0].public_bytes(serialization.Encoding.PEM) + root)
    with pytest.raises(Unfit, match="is not issued by"):
        credentials.load(str(wrong), trial["key.pem"])


def test_a_certificate_that_expires_while_the_service_runs_fails_the_job(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from facefusion_worker.provenance import manifest
    from facefusion_worker.provenance.problems import NotMarked

    loaded = credentials.load(**files(trial))
    late = replace(loaded, expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    claim = manifest.Claim(
        SOURCE_TYPE, "g", "1", "e", "1", [], [manifest.Ingredient(str(media / "secret-name.png"), "target", "image/png")]
    )
    with pytest.raises(NotMarked) as caught:
        manifest.sign(str(media / "secret-name.png"), str(tmp_path / "x.png"), "image/png", claim, late)
    assert (caught.value.reason, caught.value.retryable) == ("PROVENANCE_CERTIFICATE_EXPIRED", False)


def test_a_time_stamp_that_cannot_be_had_is_worth_another_try(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    source = media / "secret-name.png"
    answers, _ = talk("sign", files(trial, timestamps="http://127.0.0.1:9/"), request(source, tmp_path, source))
    assert answers[1]["failed"]["reason"] == "PROVENANCE_NOT_SIGNED"
    assert answers[1]["failed"]["retryable"] is True


def test_a_trial_pair_is_never_written_over(trial: dict[str, str]) -> None:
    [answer], _ = talk("certificate", flags=("--out", os.path.dirname(trial["key.pem"])))
    assert "is not overwritten" in answer["unfit"]["message"]
    assert os.stat(trial["key.pem"]).st_mode & 0o777 == 0o600


def test_a_result_that_memory_does_not_hold_is_not_begun(
    trial: dict[str, str], media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tmp_path / "huge.mp4"
    huge.write_bytes((media / "secret-name.mp4").read_bytes())
    os.truncate(huge, 1 << 43)  # a hole: it takes no room
    monkeypatch.setattr(memory, "room", lambda: memory.Room(500 << 20, 500 << 20))
    from facefusion_worker.provenance import manifest
    from facefusion_worker.provenance.problems import NotMarked

    claim = manifest.Claim(SOURCE_TYPE, "g", "1", "e", "1", [], [])
    with pytest.raises(NotMarked, match="takes 612 MiB of memory, and a process has 500 here") as caught:
        manifest.sign(str(huge), str(tmp_path / "x.mp4"), "video/mp4", claim, credentials.load(**files(trial)))
    assert caught.value.retryable is False, "there will never be so much"
    monkeypatch.setattr(memory, "room", lambda: memory.Room(1 << 62, 200 << 20))
    os.truncate(huge, 200 << 20)
    with pytest.raises(NotMarked, match="takes 300 MiB of memory, and 200 are free") as caught:
        manifest.sign(str(huge), str(tmp_path / "x.mp4"), "video/mp4", claim, credentials.load(**files(trial)))
    assert caught.value.retryable is True


def large(kind: str, media: Path, path: Path, size: int) -> None:
    """A file of so many bytes, most of them a hole or copies of a hole."""
    small = (media / f"secret-name.{kind}").read_bytes()
    if kind == "jpg":
        comment = b"\xff\xfe" + struct.pack(">H", 65_535) + bytes(65_533)
        path.write_bytes(small[:2] + comment * (size // len(comment)) + small[2:])
        return
    # Of a video: media without an index, in a box to the end of the file.
    path.write_bytes(small + (struct.pack(">I4s", 0, b"mdat") if kind == "mp4" else b""))
    os.truncate(path, size)


@pytest.mark.parametrize(("kind", "share"), [("zip", 1), ("webm", 1), ("mp4", 1), ("jpg", 2.5)])
def test_a_large_result_is_signed_in_the_memory_that_is_asked_for_it(
    kind: str, share: float, trial: dict[str, str], media: Path, tmp_path: Path
) -> None:
    from facefusion_worker.provenance import manifest

    source, folder, size = tmp_path / f"large.{kind}", tmp_path / "work", 200 << 20
    large(kind, media, source, size)
    folder.mkdir()
    # With the packet that comes into it first.
    needed = manifest.memory_needed(source.stat().st_size + 4096, TYPES[kind])
    assert needed <= (101 << 20) + share * size
    # The system gives it no more than that.
    answers, _ = talk("sign", files(trial), request(source, folder, media / "secret-name.png"), flags=("--memory", str(needed)))
    assert "marked" in answers[1], answers
    assert [one.name for one in folder.iterdir()] == ([] if kind in BESIDE else [f"marked.{kind}"]), "what was in between is gone"


def test_memory_is_the_machines_or_the_containers(tmp_path: Path) -> None:
    assert memory.room(tmp_path).free >= 1 << 61, "nothing is told, so nothing is refused"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:  4096 kB\nMemFree: 1 kB\nMemAvailable: 2048 kB\nHugePages_Total: 0\n")
    assert memory.room(tmp_path) == (4 << 20, 2 << 20)
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    for name, text in {"max": "max", "current": "900000", "stat": "anon 5\ninactive_file 100000\n"}.items():
        (group / f"memory.{name}").write_text(text)
    assert memory.room(tmp_path) == (4 << 20, 2 << 20)
    (group / "memory.max").write_text("1000000\n")
    assert memory.room(tmp_path) == (1_000_000, 200_000)


def test_it_ends_with_the_service_that_wants_the_mark(trial: dict[str, str], media: Path, tmp_path: Path) -> None:
    # Opened for reading, it waits for somebody who never writes.
    pipe = tmp_path / "endless.png"
    os.mkfifo(pipe)
    source = media / "secret-name.png"
    ingredients = [{"path": str(pipe), "title": "target", "media_type": "image/png"}]
    with process("sign") as one:
        tell(one, files(trial), request(source, tmp_path, source, ingredients=ingredients))
        assert json.loads(one.stdout.readline()) == {"ready": True}
        one.stdin.close()
        assert one.wait(60) == 0
        assert one.stdout.read() == ""


def test_a_key_that_its_group_reads_is_as_containers_give_it(
    trial: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(Path(trial["key.pem"]).read_bytes())
    key.chmod(0o640)

    def warns() -> bool:
        return any("chmod 600" in one for one in credentials.load(**files(trial, key=str(key))).warnings)

    assert warns()
    monkeypatch.setattr(os, "getuid", lambda: os.stat(key).st_uid + 1)
    assert not warns()
    key.chmod(0o644)
    assert warns()
