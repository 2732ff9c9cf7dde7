"""A chain of certificates for trials: root, intermediate, signer. Its manifests are valid and nobody trusts them, as the names in them
say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .problems import Unfit

_ORGANISATION = "facefusion-jobs, for trials only"
CERTIFICATE, KEY, ROOT = "certificate.pem", "key.pem", "root.pem"


@dataclass(frozen=True)
class _Party:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(folder: str, days: int = 90) -> dict[str, str]:
    """Writes the three files into `folder` and answers their paths; raises `Unfit` where one is there already. The key of the root is not
    kept, so that nobody can issue more in its name."""
    paths = {name: os.path.join(folder, name) for name in (CERTIFICATE, KEY, ROOT)}
    for path in paths.values():
        if os.path.lexists(path):
            raise Unfit(f"{path} is there already, and is not overwritten", "name another folder, or remove the files in it")
    now = datetime.now(timezone.utc) - timedelta(minutes=5)
    root = _issue("Trial root", None, now, days + 2, authority=1)
    intermediate = _issue("Trial intermediate", root, now, days + 1, authority=0)
    signer = _issue("Trial signer", intermediate, now, days, authority=None)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    secret = signer.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(paths[KEY], secret, 0o600)
    _write(paths[CERTIFICATE], _pem(signer) + _pem(intermediate), 0o644)
    _write(paths[ROOT], _pem(root), 0o644)
    return paths


def _issue(name: str, by: _Party | None, start: datetime, days: int, authority: int | None) -> _Party:
    """`authority`: how many authorities may come below it; None: it is the signer's."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION)])
    issuer, issuer_key = (by.certificate.subject, by.key) if by else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority is not None, path_length=authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_usage(authority is not None), critical=True)
    )
    if authority is None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return _Party(builder.sign(issuer_key, hashes.SHA256()), key)


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: str, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _pem(party: _Party) -> bytes:
    return party.certificate.public_bytes(serialization.Encoding.PEM)
