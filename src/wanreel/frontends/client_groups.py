"""Sweeps and storyboards of a Wanreel somewhere else. Knows their routes, and not how they are reached."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from wanreel.core.errors import InvalidRequest

Kind = Literal["sweeps", "storyboards"]


class Ask(Protocol):
    """Asks the server. Raises what the answer says."""

    def __call__(self, method: str, path: str, **more: Any) -> Any: ...


class Fetch(Protocol):
    """Saves what the server answers. Raises what the answer says."""

    def __call__(self, path: str, to: Path, variant: str) -> Path: ...


@dataclass(frozen=True, slots=True)
class RemoteGroups:
    """The sweeps, or the storyboards, of one server. Each answer is the server's own, as a mapping."""

    kind: Kind
    ask: Ask
    fetch: Fetch

    def create(self, values: Mapping[str, Any], *, idempotency_key: str | None = None) -> Mapping[str, Any]:
        """Queue one. Pictures in it are ids of uploads. Raises InvalidRequest, QueueFull, IdempotencyConflict."""
        headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
        return self.ask("POST", f"/v1/{self.kind}", json=dict(values), headers=headers)

    def get(self, group_id: str) -> Mapping[str, Any]:
        """How one stands. Raises GroupNotFound."""
        return self.ask("GET", self._one(group_id))

    def list(self, *, limit: int = 20, after: str | None = None) -> builtins.list[Mapping[str, Any]]:
        """Yours, newest first; `after` is the last id of the page before."""
        query = {"limit": limit} if after is None else {"limit": limit, "after": after}
        return self.ask("GET", f"/v1/{self.kind}", params=query)["data"]

    def replace(self, group_id: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take another storyboard in its place. Raises GroupNotFound, InvalidRequest."""
        return self.ask("PUT", self._one(group_id), json=dict(values))

    def redo(self, group_id: str, scene: int, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a storyboard's scene, counted from 1, and those that depend on it again. Raises GroupNotFound."""
        return self.ask("POST", f"{self._one(group_id)}/scenes/{scene}/redo", json=dict(changes))

    def cancel(self, group_id: str) -> Mapping[str, Any]:
        """Stop what has not ended. Raises GroupNotFound."""
        return self.ask("POST", self._one(group_id) + "/cancel")

    def retry(self, group_id: str) -> Mapping[str, Any]:
        """Queue again what failed or was cancelled. Raises GroupNotFound, IllegalTransition."""
        return self.ask("POST", self._one(group_id) + "/retry")

    def delete(self, group_id: str) -> Mapping[str, Any]:
        """Stop and forget one with its videos and files. Raises GroupNotFound, IllegalTransition."""
        return self.ask("DELETE", self._one(group_id))

    def download(self, group_id: str, to: str | Path, variant: str = "") -> Path:
        """Save what was made of the videos: the film; or a sweep's sheet, video, csv or json."""
        return self.fetch(self._one(group_id) + "/content", Path(to), variant)

    def _one(self, group_id: str) -> str:
        """Its address. The id becomes part of one, so it must be able to be one."""
        if not group_id.isalnum():
            raise InvalidRequest.of("id", "bad_id", f"{group_id!r} is no id of a {self.kind[:-1]}.")
        return f"/v1/{self.kind}/{group_id}"
