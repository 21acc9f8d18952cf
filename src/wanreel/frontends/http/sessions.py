"""Sessions: a key exchanged once for a cookie, and links that sign in once. Knows no page.

A session is a signed statement "whoever holds this came with the key of this digest, until then". Nothing is kept of it,
so it outlives the server's restarts; it ends with its time, with its key, and with the secret it is signed with.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.errors import SettingsError
from wanreel.frontends.http.keys import KeyRing, digest_of
from wanreel.host import fsync_directory, fsync_file

#: Seconds that a browser stays signed in.
LIFETIME = 30 * 24 * 3600.0
#: Seconds that a link can be used.
LINK_LIFETIME = 15 * 60.0
LINK_PATH = "/sign-in/link/"
_MARK = "s1."
_MOST_LINKS = 100
_LONGEST = 1024


@dataclass(frozen=True)
class Sessions:
    """Issues and reads sessions."""

    path: Path  #: where the secret is kept; whoever deletes it signs everybody out
    clock: Callable[[], float]  #: seconds since 1970

    def issue(self, digest: str) -> str:
        """A session of the key with this digest."""
        said = json.dumps([digest, int(self.clock() + LIFETIME)]).encode()
        return f"{_MARK}{_text(said)}.{_text(self._sign(said))}"

    def digest_in(self, session: str) -> str | None:
        """The digest of the session's key; None when it is not ours or over. Raises SettingsError."""
        if not session.startswith(_MARK) or len(session) > _LONGEST or not session.isascii():
            return None
        said, _, signature = session.removeprefix(_MARK).partition(".")
        try:
            content = _bytes(said)
            if not hmac.compare_digest(self._sign(content), _bytes(signature)):
                return None
            digest, until = json.loads(content)
        except (binascii.Error, ValueError):
            return None
        return str(digest) if self.clock() < until else None

    def _sign(self, said: bytes) -> bytes:
        return hmac.digest(self._secret(), said, "sha256")

    def _secret(self) -> bytes:
        try:
            with contextlib.suppress(FileNotFoundError):
                return self.path.read_bytes()
            _make(self.path)
            return self.path.read_bytes()
        except OSError as exc:
            raise SettingsError(
                f"{self.path.name}, which sessions are signed with, can't be read.", hint="Restore it or delete it."
            ) from exc


@dataclass
class Links:
    """Links that sign in once. They live in memory: a restart ends them."""

    keys: KeyRing
    clock: Callable[[], float]  #: seconds
    _open: OrderedDict[str, tuple[str, float]] = field(default_factory=OrderedDict[str, tuple[str, float]], repr=False)

    def create(self, key: str | None = None) -> str:
        """The path of a new link that signs in with `key`, or with the most powerful key there is.

        Raises SettingsError when there is no key: then nobody needs to sign in.
        """
        digest = digest_of(key) if key is not None else self.keys.most_powerful()
        if digest is None:
            raise SettingsError("There is no API key to sign in with.", hint="`wanreel keys create NAME`.")
        token = secrets.token_urlsafe(32)
        self._open[digest_of(token)] = (digest, self.clock() + LINK_LIFETIME)
        while len(self._open) > _MOST_LINKS:
            self._open.popitem(last=False)
        return LINK_PATH + token

    def redeem(self, token: str) -> str | None:
        """The digest of the key it stands for; None when there is no such link, any more."""
        digest, until = self._open.pop(digest_of(token), (None, 0.0))
        return digest if self.clock() < until else None


def _make(path: Path) -> None:
    """Whoever links it into place first has made it, so that processes agree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    temporary.touch(mode=0o600)
    try:
        temporary.write_bytes(hashlib.sha256(secrets.token_bytes(32)).hexdigest().encode())
        fsync_file(temporary)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
        fsync_directory(path.parent)
    finally:
        temporary.unlink()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
