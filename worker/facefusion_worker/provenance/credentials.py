"""The operator's certificate and key, looked at before anything is signed with them.

Always true here: the key is in the value that `load` answers and nowhere else, and no message says anything of it but its path.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .problems import Unfit

# C2PA 2.2, 14.5.1.1: what a signing certificate may be for, besides its trust list's own purposes.
_PURPOSES = {
    ExtendedKeyUsageOID.EMAIL_PROTECTION.dotted_string: "emailProtection",
    "1.3.6.1.5.5.7.3.36": "documentSigning",
    "1.3.6.1.4.1.62558.2.1": "c2pa-kp-claimSigning",
}
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_MIN_RSA_BITS = 2048


@dataclass(frozen=True)
class Credentials:
    chain: str
    key: str = field(repr=False)
    algorithm: str
    trust: str | None
    timestamps: str | None
    subject: str
    issuer: str
    serial: int
    sha256: str
    expires: datetime
    warnings: tuple[str, ...]


def load(certificate: str, key: str, trust: str | None = None, timestamps: str | None = None) -> Credentials:
    """Reads and checks both files; raises `Unfit`."""
    chain = _certificates("FFJOBS_PROVENANCE_CERT", certificate)
    leaf = chain[0]
    _check_leaf(leaf, certificate)
    for child, parent in pairwise(chain):
        _check_issued(child, parent, certificate)
    private = _private_key(key)
    if _public_bytes(private.public_key()) != _public_bytes(leaf.public_key()):
        raise Unfit(
            f"the private key in {key} does not belong to the certificate of {_name(leaf.subject)} in {certificate}",
            "set FFJOBS_PROVENANCE_KEY to its key; the signer's certificate comes first in FFJOBS_PROVENANCE_CERT",
        )
    roots = _certificates("FFJOBS_PROVENANCE_TRUST", trust) if trust else []
    if roots and not _leads_to(chain, roots):
        raise Unfit(
            f"the certificate in {certificate} does not lead to a root in {trust}",
            "add the certificates between them to FFJOBS_PROVENANCE_CERT, or correct FFJOBS_PROVENANCE_TRUST",
        )
    return Credentials(
        chain="".join(_pem(one) for one in chain),
        # The library takes no other form of a key.
        key=private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
        algorithm=_algorithm(private, key),
        trust="".join(_pem(one) for one in roots) or None,
        timestamps=timestamps,
        subject=_name(leaf.subject),
        issuer=_name(leaf.issuer),
        serial=leaf.serial_number,
        sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        expires=leaf.not_valid_after_utc,
        warnings=_warnings(leaf, key, timestamps),
    )


def check_date(expires: datetime, what: str) -> None:
    """Raises `Unfit` where a certificate has expired."""
    if expires <= datetime.now(timezone.utc):
        raise Unfit(
            f"{what} expired on {expires:%Y-%m-%d %H:%M} UTC",
            "have it renewed and set FFJOBS_PROVENANCE_CERT and FFJOBS_PROVENANCE_KEY to the new pair",
        )


def _read(setting: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise Unfit(f"{setting} is {path}, which cannot be read ({os.strerror(error.errno or 0)})", f"correct {setting}") from None


def _certificates(setting: str, path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(setting, path))
    except ValueError:
        raise Unfit(f"{setting} is {path}, which holds no certificate in PEM", "convert it with `openssl x509 -outform PEM`") from None


def _check_leaf(leaf: x509.Certificate, path: str) -> None:
    what = f"the certificate of {_name(leaf.subject)} in {path}"
    check_date(leaf.not_valid_after_utc, what)
    if leaf.not_valid_before_utc > datetime.now(timezone.utc):
        raise Unfit(f"{what} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC", "look at this machine's clock, or wait")
    if leaf.issuer == leaf.subject:
        raise Unfit(
            f"{what} is signed by itself, and verifiers refuse manifests that are signed with such a one",
            "use one that an authority has issued; for trials `ffjobs provenance certificate` makes one with an authority of its own",
        )
    basic = _extension(leaf, x509.BasicConstraints)
    if basic is not None and basic.ca:
        raise Unfit(f"{what} is that of an authority and not of a signer", "put the signer's certificate first in FFJOBS_PROVENANCE_CERT")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise Unfit(f"{what} is not for signatures (key usage digitalSignature)", "have one issued for C2PA claim signing")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or not any(one.dotted_string in _PURPOSES for one in purposes):
        raise Unfit(
            f"{what} is not for signing claims: it has none of the purposes {', '.join(_PURPOSES.values())}",
            "have one issued for C2PA claim signing; that of a web server does not do",
        )


def _check_issued(child: x509.Certificate, parent: x509.Certificate, path: str) -> None:
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise Unfit(
            f"in {path} the certificate of {_name(child.subject)} is not issued by that of {_name(parent.subject)}, which follows it",
            "put the signer's certificate first, then the one that issued it, and so on",
        ) from None


def _leads_to(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> bool:
    for root in roots:
        if chain[-1] == root:
            return True
        try:
            chain[-1].verify_directly_issued_by(root)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            continue
        return True
    return False


def _private_key(path: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    data = _read("FFJOBS_PROVENANCE_KEY", path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except TypeError:
        raise Unfit(
            f"the private key in {path} is encrypted, and nobody is there to type its password",
            "decrypt it with `openssl pkey`, and let nobody but the service's user read it",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise Unfit(f"FFJOBS_PROVENANCE_KEY is {path}, which holds no private key in PEM", "correct FFJOBS_PROVENANCE_KEY") from None
    _algorithm(key, path)
    return key  # type: ignore[return-value]


def _algorithm(key: object, path: str) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _MIN_RSA_BITS:
        return "ps256"
    raise Unfit(
        f"the private key in {path} is of a kind that C2PA does not take",
        f"use one on the curve P-256, P-384 or P-521, Ed25519, or RSA of at least {_MIN_RSA_BITS} bits",
    )


def _warnings(leaf: x509.Certificate, key: str, timestamps: str | None) -> tuple[str, ...]:
    warnings: list[str] = []
    days = (leaf.not_valid_after_utc - datetime.now(timezone.utc)).days
    if days < 30:
        warnings.append(f"the certificate expires in {days} days; jobs fail from then on")
    if timestamps is None:
        warnings.append("without FFJOBS_PROVENANCE_TSA manifests are not valid any more when the certificate has expired")
    if _others_can_read(key):
        warnings.append(f"others than its owner can read {key}: chmod 600 {key}")
    return tuple(warnings)


def _others_can_read(path: str) -> bool:
    """A file that is another's is ours by its group: so secrets are given to a container."""
    found = os.stat(path)
    return bool(found.st_mode & (0o077 if found.st_uid == os.getuid() else 0o007))


def _extension(certificate: x509.Certificate, kind: type) -> object | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _name(name: x509.Name) -> str:
    parts = [name.get_attributes_for_oid(oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)]
    return ", ".join(str(part[0].value) for part in parts if part) or name.rfc4514_string()


def _public_bytes(key: object) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
