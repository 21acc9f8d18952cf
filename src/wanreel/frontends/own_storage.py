"""OwnStorage: storage and keys that come with a request. Knows neither routes nor what is put there.

The keys are taken out of the request before anything else sees it, and live in a Destination, which shows them nowhere.
No problem names a value: what stands in the wrong field may be a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from wanreel.core.destination import Credentials, Destination
from wanreel.core.errors import InvalidRequest, SettingsError
from wanreel.core.settings_groups import OutboundSettings
from wanreel.frontends.addresses import Denied, Target, origins_of
from wanreel.frontends.fetcher import Fetcher
from wanreel.storage.objects import ObjectStorage
from wanreel.storage.pinned import Pins
from wanreel.storage.s3 import S3Storage

#: Fields that it may come in, in requests of any front door.
FIELDS = ("r2", "upload")
#: Cloudflare's own servers, one for each account; with the place by law where there is one.
_R2 = re.compile(r"[0-9a-f]{32}(?:\.eu|\.fedramp)?\.r2\.cloudflarestorage\.com")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
_NAMES: Mapping[str, str] = {
    "endpoint_url": "endpoint",
    "endpoint": "endpoint",
    "bucket_name": "bucket",
    "bucket": "bucket",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
    "region": "region",
}
_NEEDED = ("endpoint", "bucket", "access_key_id", "secret_access_key")
_LONGEST = 4096  # characters of a value


@dataclass(frozen=True)
class OwnStorage:
    """Which storage requests may bring."""

    fetcher: Fetcher  #: whose rules and look-ups hold here too
    allowed: bool
    endpoints: frozenset[str]  #: origins beside Cloudflare's
    prefix: str  #: of every key

    def accept(self, value: object, knob: str) -> Destination | None:
        """The place in a request's field `knob`, None for none. Raises InvalidRequest, whose text holds none of it."""
        if value is None or value == "" or value == {}:
            return None
        if not self.allowed:
            raise InvalidRequest.of(
                knob, "uploads_off", "this server takes no storage of yours.", "Name one of its profiles as storage."
            )
        given = _texts(value, knob)
        target = self._target(given["endpoint"])
        if target is None:
            raise InvalidRequest.of(
                knob,
                "endpoint_not_allowed",
                "the endpoint is none that this server may call.",
                "Give https://<account>.r2.cloudflarestorage.com, or ask its operator for outbound.upload_endpoints.",
            )
        if not _BUCKET.fullmatch(given["bucket"]) or not _REGION.fullmatch(given.get("region", "auto")):
            raise InvalidRequest.of(knob, "bad_value", "bucket_name or region is no such name.")
        keys = Credentials(given["access_key_id"], given["secret_access_key"], given.get("session_token", ""))
        return Destination(
            given["bucket"], keys, endpoint=target.origin, region=given.get("region", "auto"), prefix=self.prefix
        )

    def open(self, destination: Destination) -> ObjectStorage:
        """The storage behind it, called within the rules. Raises nothing until it is used."""
        return S3Storage(destination, Pins(self.fetcher.addresses, lambda: self.fetcher.trust))

    def _target(self, endpoint: str) -> Target | None:
        """Where the endpoint leads, if it may be called and is nothing but a server."""
        try:
            target = self.fetcher.rules.target(endpoint)
        except Denied:
            return None
        known = target.origin in self.endpoints or (
            target.scheme == "https" and target.port == 443 and _R2.fullmatch(target.host) is not None
        )
        return target if known and target.path in ("", "/") else None


def build_own_storage(settings: OutboundSettings, fetcher: Fetcher) -> OwnStorage:
    """Within the operator's settings. Raises SettingsError."""
    try:
        endpoints = origins_of(settings.upload_endpoints)
    except Denied as exc:
        raise SettingsError(
            "outbound.upload_endpoints holds what is no origin.", hint="Write each as https://name:port."
        ) from exc
    return OwnStorage(fetcher, settings.uploads, endpoints, settings.upload_prefix)


def _texts(value: object, knob: str) -> dict[str, str]:
    """The members by one name each. Raises InvalidRequest."""
    if not isinstance(value, Mapping):
        raise InvalidRequest.of(knob, "wrong_type", "must be an object.", f"Give {', '.join(_NEEDED)}.")
    found: dict[str, str] = {}
    for name, text in cast("Mapping[object, object]", value).items():
        known = _NAMES.get(name) if isinstance(name, str) else None
        if known is None:
            raise InvalidRequest.of(
                knob, "unknown_field", "has a member that is not taken.", f"Give {', '.join(_NAMES)}."
            )
        if text is None:
            continue
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _LONGEST:
            raise InvalidRequest.of(knob, "wrong_type", f"{known} must be text.")
        if found.setdefault(known, text) != text:
            raise InvalidRequest.of(knob, "contradiction", f"{known} was given twice.", "Give it once.")
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise InvalidRequest.of(knob, "required", f"{missing[0]} is missing.", f"Give {', '.join(_NEEDED)}.")
    return found
