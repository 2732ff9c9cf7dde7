"""The receiving side of webhooks: nothing of a delivery may be used before its signature is checked.

Standard Webhooks (https://www.standardwebhooks.com): `webhook-signature` holds `v1,` and the base64 of the HMAC-SHA256 over
`ID.TIMESTAMP.BODY`, several of them with spaces between while a secret is being replaced. The standard library does it; the package of that
name would bring an HTTP client along.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOLERANCE_SECONDS = 300


class WebhookRefused(Exception):
    """Not a delivery of the service in the last five minutes: answer it with 401."""


@dataclass(frozen=True)
class WebhookEvent:
    #: The same over all tries of one delivery: keep it to tell a repeated delivery from a new one.
    id: str
    #: Such as `job.succeeded`.
    type: str
    #: RFC 3339
    timestamp: str
    #: The job as REST answers it.
    data: dict[str, Any]


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secret: str) -> WebhookEvent:
    """Checks a delivery and answers what it tells. `body` as it arrived, byte for byte; `secret` is `whsec_...`."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = given["webhook-id"], int(given["webhook-timestamp"]), given["webhook-signature"]
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except KeyError as error:
        raise WebhookRefused(f"the header {error.args[0]} is missing") from None
    except binascii.Error:
        raise ValueError("the secret is not one: it is whsec_ and base64") from None
    except ValueError:
        raise WebhookRefused("webhook-timestamp is not a time") from None
    if abs(time.time() - timestamp) > TOLERANCE_SECONDS:
        raise WebhookRefused("the delivery is not of the last five minutes")
    raw = body.encode() if isinstance(body, str) else body
    wanted = base64.b64encode(hmac.new(key, f"{message_id}.{timestamp}.".encode() + raw, hashlib.sha256).digest())
    candidates = [value for version, _, value in (one.partition(",") for one in signatures.split()) if version == "v1"]
    if not any(hmac.compare_digest(wanted, candidate.encode()) for candidate in candidates):
        raise WebhookRefused("no signature is right: another secret, or the body was changed")
    try:
        told = json.loads(raw)
        return WebhookEvent(message_id, told["type"], told["timestamp"], told["data"])
    except (ValueError, TypeError, KeyError):
        raise WebhookRefused("signed rightly, but not an event of facefusion-jobs") from None
