"""What a `grpc.RpcError` of the service says beside its code, by the messages of `google.rpc` in its trailers; the client's own errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong with a request."""

    field: str
    description: str
    reason: str


@dataclass(frozen=True)
class ErrorDetails:
    code: grpc.StatusCode
    message: str
    #: Stable, such as QUOTA_EXCEEDED; empty where the error is not the service's.
    reason: str = ""
    #: All at once.
    violations: tuple[Violation, ...] = ()
    #: Seconds after which the service asks to be asked again.
    retry_after: float | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    #: Whether the service sent any details: a broken connection has none.
    any: bool = False


def details_of(error: grpc.RpcError) -> ErrorDetails:
    """Reads the details of any error that a call raised, sync or asyncio."""
    reason, violations, retry_after, metadata, found = "", [], None, {}, False
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            found = True
            info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                violations += [Violation(one.field, one.description, one.reason) for one in bad.field_violations]
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return ErrorDetails(error.code(), error.details() or "", reason, tuple(violations), retry_after, metadata, found)


class ClientError(grpc.RpcError):
    """What no call over gRPC raised, as one would have: `code()` and `details()`, and `details_of` reads it."""

    def __init__(self, code: grpc.StatusCode, message: str, trailers: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(message)
        self._code, self._message, self._trailers = code, message, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._trailers


class StreamEndedEarly(ClientError):
    """A watch whose streams ended in good order before all was told, again and again: what is watched goes on, and can be watched again."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, message)
