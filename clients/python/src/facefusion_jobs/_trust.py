"""Whom a client believes over TLS and what it shows of itself: the same for calls and for files, which go over HTTP beside them."""

from __future__ import annotations

import http.client
import ssl
import urllib.request
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc

PathOf: TypeAlias = str | PathLike[str]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The service sends nobody elsewhere with a token and a file."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Answered:
    """A service that does not take a body may answer before it has read it, and hang up: the answer is read all the same."""

    sock: Any

    def request(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # Without an answer, whoever reads one is told of the loss.
            if self.sock is None:
                raise


class _Http(_Answered, http.client.HTTPConnection):
    pass


class _Https(_Answered, http.client.HTTPSConnection):
    pass


class _HttpHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Http, request)


class _HttpsHandler(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._trusting = context

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Https, request, context=self._trusting)


class Trust:
    """Raises OSError and ssl.SSLError for files that are not there or are none of what they should be, when they are first needed.

    `base_url`: of the service. `ca`: PEM of the authority that has signed its certificate; results, which may lie elsewhere, are believed
    with the system's authorities too. `certificate`: PEM of the client's own certificate and of its key, for the service alone.
    """

    def __init__(self, base_url: str, ca: PathOf | None, certificate: tuple[PathOf, PathOf] | None) -> None:
        self._service = urlsplit(base_url)[:2]
        self._ca, self._certificate = ca, certificate
        self._openers: dict[tuple[bool, bool], urllib.request.OpenerDirector] = {}

    def credentials(self) -> grpc.ChannelCredentials:
        chain, key = self._certificate or (None, None)
        return grpc.ssl_channel_credentials(
            root_certificates=None if self._ca is None else Path(self._ca).read_bytes(),
            private_key=None if key is None else Path(key).read_bytes(),
            certificate_chain=None if chain is None else Path(chain).read_bytes(),
        )

    def open(self, request: urllib.request.Request, timeout: float, redirects: bool) -> Any:
        """The answer to a request, to be closed. Raises as `urllib.request.urlopen`. `redirects`: to follow them."""
        own = urlsplit(request.full_url)[:2] == self._service
        opener = self._openers.get((own, redirects))
        if opener is None:
            opener = self._openers[own, redirects] = self._opener(own, redirects)
        return opener.open(request, timeout=timeout)

    def _opener(self, own: bool, redirects: bool) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context()
        if self._ca is not None:
            context.load_verify_locations(cafile=self._ca)
        if own and self._certificate is not None:
            context.load_cert_chain(*self._certificate)
        return urllib.request.build_opener(_HttpHandler, _HttpsHandler(context), *([] if redirects else [_NoRedirect]))
