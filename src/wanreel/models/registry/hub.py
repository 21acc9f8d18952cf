"""Hub: what a repository of the model hub holds, and the bytes of its files. Knows nothing of this machine's folders.

Addresses and credentials are huggingface_hub's; requests and retries are ours, because its downloader neither hashes what
it receives nor tries again after a 5xx answer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import requests

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import HubUnavailable, WanreelError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MISSING, _REFUSED = (404, 410), (401, 403)
_LONGEST_WAIT = 300.0  # seconds that a hub may ask us to wait
_CAP = 30.0  # seconds between tries where it does not say
#: What a broken connection raises, whatever the stage.
TRANSPORT = (requests.RequestException, ConnectionError, TimeoutError)


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository."""

    path: str
    size: int  #: bytes
    sha256: str | None  #: of a large file (LFS metadata); None for a small one
    blob: str  #: its git object id: for a small file the SHA-1 of "blob SIZE\\0" and its bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    repo: str
    commit: str  #: 40 hex digits
    files: tuple[HubFile, ...]


class Answered(Exception):
    """An answer other than the one hoped for. `retry_after` is in seconds, where the hub said so."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"it answers {status}")
        self.status, self.retry_after = status, retry_after


@dataclass
class Patience:
    """Failures in a row, and the wait after each. One success forgives them all."""

    hub: Hub
    cancel: CancelToken
    failures: int = 0

    def failed(self, what: str, error: Exception) -> None:
        """Count it and wait. Raises HubUnavailable when it was one too many, or when trying again is no use."""
        status = error.status if isinstance(error, Answered) else None
        if status in (*_MISSING, *_REFUSED) or isinstance(error, requests.TooManyRedirects):
            self._give_up(what, error)
        self.failures += 1
        if self.failures > self.hub.retries:
            self._give_up(what, error)
        asked = error.retry_after if isinstance(error, Answered) else None
        wait = self.hub.base_wait * 2.0 ** (self.failures - 1) if asked is None else asked
        self.cancel.wait(min(wait, _CAP if asked is None else _LONGEST_WAIT))
        self.cancel.check()

    def succeeded(self) -> None:
        self.failures = 0

    def _give_up(self, what: str, error: Exception) -> NoReturn:
        tries = f" after {self.failures} tries" if self.failures > 1 else ""
        status = error.status if isinstance(error, Answered) else None
        if status in _MISSING:
            raise HubUnavailable(f"{what} is not on {self.hub.address}.", hint=_NO_SUCH) from error
        if status in _REFUSED:
            raise HubUnavailable(f"{self.hub.address} refuses {what} ({status}).", hint=_REFUSAL) from error
        raise HubUnavailable(f"{self.hub.address} gives no {what}{tries}: {_reason(error)}.") from error


_NO_SUCH = "Check the repository's name, and that a mirror carries it."
_REFUSAL = "Accept the model's terms on its page and give a token (HF_TOKEN)."


@dataclass(frozen=True)
class Hub:
    """One hub, or a mirror of it."""

    endpoint: str = ""  #: of a mirror; empty for the hub's own
    offline: bool = False
    retries: int = 5  #: failures in a row that are forgiven
    base_wait: float = 1.0  #: seconds after the first failure; doubled after each
    silence: float = 8.0  #: seconds without a byte after which a connection counts as dead, and is made anew
    session: requests.Session = field(default_factory=requests.Session, repr=False)

    @property
    def address(self) -> str:
        """For people."""
        from huggingface_hub import constants

        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def silent(self) -> bool:
        """Whether nothing may be asked for: by our setting, or by huggingface_hub's own."""
        from huggingface_hub import constants

        return self.offline or constants.HF_HUB_OFFLINE

    def check_online(self, what: str) -> None:
        """Raises HubUnavailable when nothing may be asked for."""
        if self.silent:
            raise HubUnavailable(f"{what} is not here, and Wanreel is offline.", hint="Unset `offline` to download it.")

    def listing(self, repo: str, revision: str, cancel: CancelToken, *, patient: bool = True) -> Listing:
        """What `repo` holds at `revision`, a branch or a commit. Raises HubUnavailable."""
        self.check_online(repo)
        address = f"{self.address}/api/models/{repo}/revision/{revision}"
        patience = Patience(self, cancel)
        while True:
            try:
                with self._get(address, {}, params={"blobs": "true"}) as answer:
                    return _listing(repo, answer.json())
            except (*TRANSPORT, Answered) as error:
                if not patient:
                    raise HubUnavailable(f"{self.address} does not answer: {_reason(error)}.") from error
                patience.failed(repo, error)
            except (ValueError, KeyError, TypeError) as error:
                raise HubUnavailable(f"{self.address} gives no list of {repo}'s files that can be read.") from error

    @contextlib.contextmanager
    def open(self, repo: str, commit: str, path: str, start: int) -> Generator[requests.Response]:
        """The answer with the bytes of `path` from `start` on: status 206, or 200 with all of them.

        Raises Answered, and what requests raises. No retry: the caller knows what arrived.
        """
        from huggingface_hub import hf_hub_url

        self.check_online(f"{repo}/{path}")
        address = hf_hub_url(repo, path, revision=commit, endpoint=self.address)
        # Compressed, its length and ranges would be of something else.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self._get(address, headers) as answer:
            yield answer

    @contextlib.contextmanager
    def _get(
        self, address: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Generator[requests.Response]:
        from huggingface_hub.utils import build_hf_headers

        sent = build_hf_headers(library_name="wanreel") | dict(headers)
        with self.session.get(
            address, headers=sent, params=params, stream=True, timeout=(min(10.0, self.silence), self.silence)
        ) as answer:
            if answer.status_code not in (200, 206):
                raise Answered(answer.status_code, _retry_after(answer))
            yield answer


def _listing(repo: str, body: Any) -> Listing:
    """Raises KeyError, TypeError or ValueError for what is no listing."""
    facts = cast("dict[str, Any]", body)
    commit = str(facts["sha"])
    if not _COMMIT.fullmatch(commit):
        raise ValueError(commit)
    return Listing(repo, commit, tuple(_file(row) for row in facts["siblings"]))


def _file(row: dict[str, Any]) -> HubFile:
    large: dict[str, Any] = row.get("lfs") or {}
    sha256 = str(large["sha256"]) if large else None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError(sha256)
    return HubFile(str(row["rfilename"]), int(row["size"]), sha256, str(row.get("blobId", "")))


def _retry_after(answer: requests.Response) -> float | None:
    """Seconds; the form with a date is not used by the hub."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(answer.headers.get("Retry-After", "")))
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, (Answered, WanreelError)):
        return str(error)
    if isinstance(error, requests.TooManyRedirects):
        return "it redirects in circles"
    if isinstance(error, requests.Timeout):
        return "it falls silent"
    if isinstance(error, (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return "the connection breaks"
    return type(error).__name__
