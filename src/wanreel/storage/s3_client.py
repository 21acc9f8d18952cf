"""The client of one S3 server: how it is asked, and what its failures mean. Knows nothing of keys and files.

Only what every S3 server takes: Signature Version 4 over the body's SHA-256, so that whatever is damaged on the way is
refused there, and none of the checksums that newer clients add by themselves and other servers refuse.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import urllib3

from wanreel.core.destination import Credentials, Destination
from wanreel.core.errors import MissingDependency, RemoteError, StorageDamaged, StorageRefused, StorageUnavailable
from wanreel.storage.pinned import Pinned, Pins

#: Places of botocore's settings, in its form: (name in a file, variable, default, conversion).
_UNSET = (None, None, None, None)
_NO_FILE = (None, None, os.devnull, None)
_CONNECT, _READ = 10.0, 60.0  # seconds
_TRIES = 3  # of one request, before the whole put is tried again later
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: The server found other bytes than were signed.
_DAMAGED = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"})
_BUSY = frozenset(
    {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling", "RequestLimitExceeded"}
)
_HINTS = {
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "InvalidAccessKeyId": "Check access_key_id.",
    "SignatureDoesNotMatch": "Check secret_access_key and region.",
    "ExpiredToken": "The keys have run out; make new ones.",
    "AuthorizationHeaderMalformed": "Check region.",
    "NoSuchBucket": "Make the bucket, or correct its name.",
    "PermanentRedirect": "Check endpoint and region.",
    "AccessDenied": "The keys need leave to get, put and delete objects in the bucket.",
    "InvalidBucketName": "Check bucket.",
}


def open_client(destination: Destination, pins: Pins | None = None) -> Any:
    """A client for the destination. With `pins` it calls what they allow, and nothing else.

    Raises MissingDependency, StorageRefused.
    """
    try:
        import boto3.session
        import botocore.session
        from botocore.exceptions import BotoCoreError
    except ImportError as exc:
        raise MissingDependency("S3 storage needs boto3.", hint="pip install 'wanreel[s3]'.") from exc
    _quieten()
    keys = destination.credentials
    # Nothing of this machine's own: whoever brings keys is not to act with anybody else's.
    own = {} if keys is None else {"profile": _UNSET, "config_file": _NO_FILE, "credentials_file": _NO_FILE}
    try:
        session = boto3.session.Session(botocore_session=botocore.session.Session(session_vars=own))
        client = session.client(
            "s3",
            region_name=destination.region,
            endpoint_url=destination.endpoint or None,
            config=_config(destination, alone=pins is not None),
            **({} if keys is None else _arguments(keys)),
        )
    except (BotoCoreError, ValueError) as exc:
        raise StorageRefused(
            "The storage's address or region can't be used.", hint="Check endpoint and region."
        ) from exc
    if pins is not None:
        way = Pinned(urlsplit(client.meta.endpoint_url), pins, urllib3.Timeout(connect=_CONNECT, read=_READ))
        client.meta.events.register("before-send.s3", way.send)
    return client


def _config(destination: Destination, *, alone: bool) -> Any:
    from botocore.config import Config

    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if destination.path_style else "virtual", "payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        connect_timeout=_CONNECT,
        read_timeout=_READ,
        ignore_configured_endpoint_urls=True,
        proxies={} if alone else None,
    )


def _arguments(keys: Credentials) -> dict[str, Any]:
    given = {"aws_access_key_id": keys.access_key_id, "aws_secret_access_key": keys.secret_access_key}
    return given | ({"aws_session_token": keys.session_token} if keys.session_token else {})


def _quieten() -> None:
    """Lines of level DEBUG hold signatures and session tokens."""
    for name in ("boto3", "botocore", "urllib3.connectionpool"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.INFO))


@contextlib.contextmanager
def meanings() -> Generator[None]:
    """Within the block, errors of boto3 become ours."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as exc:
        raise meaning_of(exc.response) from exc
    except (BotoCoreError, Boto3Error, HTTPError, OSError) as exc:
        raise _transport_meaning(exc) from exc


def meaning_of(response: Any) -> RemoteError:
    """What an answer that is no success means. Only its code is repeated: the rest is whatever the server likes."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    shown = code if _CODE.fullmatch(code) else ""
    said = f"{shown or 'no reason'}, status {status}"
    if code in _DAMAGED:
        return StorageDamaged(f"The bytes were damaged on their way to the storage ({said}).")
    if status >= 500 or status == 429 or code in _BUSY:
        return StorageUnavailable(f"The storage is too busy or broken now ({said}).")
    return StorageRefused(f"The storage refused the request ({said}).", hint=_HINTS.get(code, ""))


def status_of(error: Exception) -> int:
    """The HTTP status of a ClientError; 0 for none."""
    response: dict[str, Any] = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _transport_meaning(error: Exception) -> RemoteError:
    """What it means that there was no whole answer. The words say the kind and never an address."""
    from botocore import exceptions as kinds

    if isinstance(error, (kinds.NoCredentialsError, kinds.PartialCredentialsError, kinds.CredentialRetrievalError)):
        return StorageRefused(
            "There are no keys for the storage.", hint="Set access_key_id and secret_access_key in its profile."
        )
    if isinstance(
        error, (kinds.ParamValidationError, kinds.InvalidRegionError, kinds.UnsupportedSignatureVersionError)
    ):
        return StorageRefused("The storage's settings can't be used.", hint="Check bucket, endpoint and region.")
    if isinstance(error, (kinds.ConnectTimeoutError, kinds.ReadTimeoutError)):
        return StorageUnavailable("The storage did not answer in time.")
    if isinstance(error, kinds.SSLError):
        return StorageUnavailable(
            "The storage's certificate is not believed.", hint="Set AWS_CA_BUNDLE to its issuer's."
        )
    return StorageUnavailable("The storage can't be reached, or broke the connection.")
