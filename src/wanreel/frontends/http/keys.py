"""API keys: who may come in and what they may do. Knows nothing of HTTP.

A key is 256 random bits behind a prefix that secret scanners can find. The file holds SHA-256 digests only, so reading
it lets nobody in; it is read again whenever it changes, so that a revoked key stops working at once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from wanreel.core.errors import InvalidRequest, Problem, SettingsError
from wanreel.host import replace_durably

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "wanreel_"
_VERSION = 1
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request."""

    owner: str  #: whose jobs are his; "" is the machine's own user
    scopes: frozenset[Scope]
    submits_per_minute: int | None = None  #: None is as many as he likes

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or self.is_admin


#: The user at this machine, where no key is asked for.
LOCAL = Caller(owner="", scopes=frozenset(SCOPES))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key."""

    name: str  #: unique, for people
    digest: str  #: SHA-256 of the key, hexadecimal
    owner: str  #: keys of one owner see each other's jobs
    scopes: tuple[Scope, ...]
    created_at: float  #: wall clock, seconds since 1970; for display only
    submits_per_minute: int | None = None

    @property
    def caller(self) -> Caller:
        return Caller(self.owner, frozenset(self.scopes), self.submits_per_minute)


@dataclass
class KeyRing:
    """The keys in one file, and those the operator's settings name. Safe to use from several threads."""

    path: Path
    given: tuple[str, ...] = field(default=(), repr=False)  #: keys from the settings; they may do everything
    _keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    _seen: tuple[int, int, int] | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.given) or bool(self.list())

    def list(self) -> tuple[ApiKey, ...]:
        """The keys in the file. Raises SettingsError when it can't be read: then nobody comes in."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._keys, self._seen = (), None
            return ()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            self._keys = _read(self.path)
            self._seen = seen
        return self._keys

    def find(self, key: str) -> Caller | None:
        """Whose key this is. Compares digests of bytes: no text, however odd, takes longer or fails otherwise."""
        return self.of_digest(digest_of(key))

    def of_digest(self, digest: str) -> Caller | None:
        """Whose key has this digest."""
        found: Caller | None = None
        for known in self.list():
            if hmac.compare_digest(known.digest, digest):
                found = known.caller
        for given in self.given:
            if hmac.compare_digest(digest_of(given), digest):
                found = Caller(owner="", scopes=frozenset(SCOPES))
        return found

    def most_powerful(self) -> str | None:
        """The digest of a key of the operator's: from the settings, else one that may do everything, else any."""
        if self.given:
            return digest_of(self.given[0])
        ranked = sorted(self.list(), key=lambda key: key.caller.is_admin, reverse=True)
        return ranked[0].digest if ranked else None

    def create(
        self,
        name: str,
        scopes: Iterable[str] = ("read", "submit"),
        *,
        owner: str | None = None,
        submits_per_minute: int | None = None,
    ) -> str:
        """Make a key and return it: the only time it is seen. Raises InvalidRequest."""
        wanted = tuple(dict.fromkeys(scopes))
        known = self.list()
        _check(name, wanted, known)
        key = PREFIX + secrets.token_urlsafe(32)
        row = ApiKey(
            name=name,
            digest=digest_of(key),
            owner=owner or name,
            scopes=cast("tuple[Scope, ...]", wanted),
            created_at=time.time(),
            submits_per_minute=submits_per_minute,
        )
        _write(self.path, (*known, row))
        return key

    def revoke(self, name: str) -> None:
        """Forget a key. Raises InvalidRequest when there is none of this name."""
        known = self.list()
        kept = tuple(key for key in known if key.name != name)
        if len(kept) == len(known):
            raise InvalidRequest.of("name", "unknown_key", f"there is no key {name!r}.", "See `wanreel keys list`.")
        _write(self.path, kept)


def digest_of(key: str) -> str:
    """SHA-256 of the key, hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _check(name: str, scopes: tuple[str, ...], known: tuple[ApiKey, ...]) -> None:
    problems: list[Problem] = []
    if not name.isprintable() or not 1 <= len(name) <= _LONGEST_NAME:
        problems.append(Problem("name", "bad_text", f"must have 1 to {_LONGEST_NAME} printable characters."))
    if any(key.name == name for key in known):
        problems.append(
            Problem("name", "taken", f"there is a key {name!r} already.", "Revoke it, or choose another name.")
        )
    for scope in scopes:
        if scope not in SCOPES:
            problems.append(
                Problem("scopes", "unknown_value", f"{scope!r} is not offered.", f"Choose {' | '.join(SCOPES)}.")
            )
    if problems:
        raise InvalidRequest(*problems)


def _read(path: Path) -> tuple[ApiKey, ...]:
    try:
        values = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        if values["version"] != _VERSION:
            raise ValueError("another version")
        return tuple(ApiKey(**(row | {"scopes": tuple(row["scopes"])})) for row in values["keys"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SettingsError(
            f"{path.name}, which holds the API keys, can't be read.", hint="Restore it or delete it."
        ) from exc


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    temporary.touch(mode=0o600)
    temporary.write_text(
        json.dumps({"version": _VERSION, "keys": [asdict(key) for key in keys]}, indent=2), encoding="utf-8"
    )
    replace_durably(temporary, path)
