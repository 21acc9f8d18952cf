"""Pinned: sends botocore's requests to addresses that were checked, and nowhere else. Knows nothing of S3.

The name is looked up for each request, and the connection goes to one of the very addresses that were found fit. TLS
and the header Host keep the name. No proxy; a redirect is an answer like any other and is not followed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from wanreel.core.errors import RemoteError

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Pins:
    """Who may be called, and who is believed to be who he says."""

    addresses: Callable[
        [str], list[str]
    ]  #: of an origin (https://name:port); raises RemoteError where it is not called
    trust: Callable[[], ssl.SSLContext]


@dataclass(frozen=True, slots=True)
class Pinned:
    """The way to one server. `send` is for botocore's event before-send."""

    endpoint: SplitResult
    pins: Pins
    timeout: urllib3.Timeout

    def send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """The answer. Raises what botocore's own way of sending raises."""
        from botocore import exceptions
        from botocore.awsrequest import AWSResponse

        url = urlsplit(request.url)
        try:
            answer = self._ask(url, request)
            response = AWSResponse(request.url, answer.status, answer.headers, answer)
            if not request.stream_output:
                _read_all(response)
        except (ConnectTimeoutError, ReadTimeoutError) as exc:
            raise exceptions.ReadTimeoutError(endpoint_url=request.url, error=exc) from exc
        except (RemoteError, HTTPError, OSError) as exc:
            raise exceptions.EndpointConnectionError(endpoint_url=request.url, error=exc) from exc
        return response

    def _ask(self, url: SplitResult, request: AWSPreparedRequest) -> urllib3.BaseHTTPResponse:
        if (url.scheme, url.netloc) != (self.endpoint.scheme, self.endpoint.netloc):
            raise RemoteError("Another server than the one that was named.")
        *others, last = self.pins.addresses(f"{url.scheme}://{url.netloc}")
        for address in others:
            try:
                return self._ask_at(address, url, request)
            except (ConnectTimeoutError, NewConnectionError):
                continue
        return self._ask_at(last, url, request)

    def _ask_at(self, address: str, url: SplitResult, request: AWSPreparedRequest) -> urllib3.BaseHTTPResponse:
        port = url.port or _PORTS[url.scheme]
        headers = dict(request.headers.items()) | {"Host": url.netloc, "Connection": "close"}
        headers.pop("Expect", None)
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        pool: urllib3.HTTPConnectionPool
        if url.scheme == "https":
            host = url.hostname or ""
            pool = urllib3.HTTPSConnectionPool(
                address, port, ssl_context=self.pins.trust(), assert_hostname=host, server_hostname=host
            )
        else:
            pool = urllib3.HTTPConnectionPool(address, port)
        return pool.urlopen(
            request.method,
            target,
            body=request.body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=self.timeout,
            preload_content=False,
            decode_content=False,
        )


def _read_all(response: AWSResponse) -> bytes:
    """botocore keeps what is read first."""
    content: bytes = response.content
    return content
