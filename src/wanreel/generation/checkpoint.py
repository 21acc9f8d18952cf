"""Checkpoints: DenoiseStates on disk, so that a killed generation goes on from its last step, to the same bits.

A file is safetensors; its header carries one JSON text that says what the tensors belong to, and the SHA-256 over both.
It appears whole or not at all. The two newest are kept, because the newest may be the one that a dying disk tore.
Knows nothing of models, prompts or when to save (see `cadence`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wanreel.core.errors import CheckpointError, InsufficientStorage
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.state import DenoiseState, SolverState
from wanreel.host import fsync_directory, replace_durably

FORMAT = 1  #: raised when older programs could misread a file
KEPT = 2  #: generations
_KEY = "wanreel"  # of the JSON text in the safetensors header
_DIGEST = "sha256"
_SUFFIX = ".safetensors"
_PARTIAL = ".partial"
_AFTER_LATENTS = ("fps", "export_width", "export_height", "output_format", "quality", "metadata", "finishing")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a checkpoint belongs to. All but `environment` must be equal for a checkpoint to be used."""

    job: str  #: id of the job
    clip: int  #: number of the clip within the job, from 0
    request: str  #: SHA-256 of the resolved request as it steers the latents
    sigmas: tuple[float, ...]  #: the schedule
    conditioning: str  #: Conditioning.fingerprint(); empty before it is known
    environment: Mapping[str, str] = field(default_factory=dict[str, str])  #: what equal bits depend on, by name

    def difference(self, other: Identity) -> str:
        """What makes `other` foreign; empty when it belongs to the same work.

        Another environment may compute other conditioning, so that is foreign only where the environment is the same.
        """
        for name in ("job", "clip", "request", "sigmas"):
            if getattr(self, name) != getattr(other, name):
                return name
        known = self.conditioning and other.conditioning and self.environment == other.environment
        if known and self.conditioning != other.conditioning:
            return "conditioning"
        return ""

    def changes(self, other: Identity) -> tuple[str, ...]:
        """Why going on from `other` can't be exact: "torch: 2.11 → 2.13". Empty when it is."""
        names = sorted({*self.environment, *other.environment})
        then, now = other.environment, self.environment
        return tuple(f"{name}: {then.get(name)} → {now.get(name)}" for name in names if then.get(name) != now.get(name))


@dataclass(frozen=True, slots=True)
class Restored:
    """What `latest` found."""

    state: DenoiseState | None  #: None: begin at the beginning
    inexact: tuple[str, ...] = ()  #: why the result may differ from an uninterrupted run
    refused: tuple[str, ...] = ()  #: checkpoints that were not used, and why


@dataclass(frozen=True, slots=True)
class Finished:
    """What `finished` found."""

    latents: Tensor  #: [1, c, f, h, w], fp32
    inexact: tuple[str, ...] = ()  #: in what the environment that made them was another one


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one job, in a folder of its own."""

    folder: Path

    def save(self, identity: Identity, state: DenoiseState) -> Path:
        """Write `state` durably and drop all but the two newest of its clip. Raises InsufficientStorage.

        A disk that refuses costs this checkpoint only: earlier ones stay.
        """
        header = _header(identity) | {
            "kind": "state",
            "step": state.step,
            "total_steps": state.total_steps,
            "scalars": dict(state.solver.scalars),
            "savings": dict(state.savings.scalars),
        }
        tensors = {f"solver.{name}": tensor for name, tensor in state.solver.tensors.items()}
        tensors |= {f"savings.{name}": tensor for name, tensor in state.savings.tensors.items()}
        path = self.folder / _state_name(identity.clip, state.step)
        _write(path, header, tensors | {"latents": state.latents, "rng": state.rng})
        for old in self._states(identity.clip)[KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def latest(self, identity: Identity, device: torch.device | str = "cpu") -> Restored:
        """The newest usable state of the clip, on `device`. Never raises for a bad file: it says which it refused."""
        refused: list[str] = []
        for path in self._states(identity.clip):
            try:
                header, tensors = _read(path, device)
                found = _checked(identity, header, "state")
                state = _state(header, tensors)
            except CheckpointError as error:
                refused.append(f"{path.name}: {error.message}")
                continue
            return Restored(state, identity.changes(found), tuple(refused))
        return Restored(None, refused=tuple(refused))

    def save_latents(self, identity: Identity, latents: Tensor) -> Path:
        """Keep final latents [1, c, f, h, w], so that decoding and exporting can be done again alone."""
        path = self.latents_path(identity.clip)
        _write(path, _header(identity) | {"kind": "latents"}, {"latents": latents})
        return path

    def finished(self, identity: Identity, device: torch.device | str = "cpu") -> Finished | None:
        """Final latents of this very work, or None where there are none. Raises CheckpointError for a bad file."""
        path = self.latents_path(identity.clip)
        if not path.exists():
            return None
        header, tensors = _read(path, device)
        found = _checked(identity, header, "latents")
        return Finished(tensors["latents"], identity.changes(found))

    def load_latents(self, identity: Identity, device: torch.device | str = "cpu") -> Tensor | None:
        """The same without what changed since."""
        found = self.finished(identity, device)
        return None if found is None else found.latents

    def latents_path(self, clip: int) -> Path:
        return self.folder / f"clip{clip:03}-latents{_SUFFIX}"

    def remove(self, *, keep_latents: bool = False) -> None:
        """Delete what is here. With `keep_latents` final latents stay for exporting again."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            ours = path.name.endswith((_SUFFIX, _PARTIAL))
            if ours and not (keep_latents and path.name.endswith(f"-latents{_SUFFIX}")):
                path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _states(self, clip: int) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob(f"clip{clip:03}-step*{_SUFFIX}"), reverse=True)


def request_fingerprint(request: ResolvedRequest) -> str:
    """SHA-256 of what steers the latents: how they are played, exported or cropped may change afterwards."""
    values = {name: value for name, value in request.to_dict().items() if name not in _AFTER_LATENTS}
    if request.compute == "exact":  # as in checkpoints from before there was a choice
        del values["compute"]
    return hashlib.sha256(_canonical(values)).hexdigest()


def latents_digest(latents: Tensor) -> str:
    """SHA-256 of the latents' bytes as fp32."""
    return hashlib.sha256(latents.detach().float().cpu().contiguous().numpy().data).hexdigest()


def _state_name(clip: int, step: int) -> str:
    return f"clip{clip:03}-step{step:05}{_SUFFIX}"


def _header(identity: Identity) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(identity)}


def _checked(identity: Identity, header: Mapping[str, Any], kind: str) -> Identity:
    """Whose the file is. Raises CheckpointError unless it is of `kind` and of this very work."""
    try:
        if header["format"] > FORMAT:
            raise CheckpointError(f"format {header['format']} is of a newer Wanreel; this one reads {FORMAT}.")
        found = Identity(
            job=header["job"],
            clip=header["clip"],
            request=header["request"],
            sigmas=tuple(header["sigmas"]),
            conditioning=header["conditioning"],
            environment=header["environment"],
        )
        difference = "kind" if header["kind"] != kind else identity.difference(found)
    except (KeyError, TypeError) as exc:
        raise CheckpointError(f"its header is not one of a checkpoint: {exc}.") from exc
    if difference:
        raise CheckpointError(f"it belongs to other work: its {difference} is another.")
    return found


def _memory(prefix: str, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> SolverState:
    """What is kept under names that begin with `prefix`."""
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return SolverState(kept, {name: int(value) for name, value in scalars.items()})


def _state(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DenoiseState:
    try:
        return DenoiseState(
            int(header["step"]),
            int(header["total_steps"]),
            tensors["latents"],
            _memory("solver.", tensors, header["scalars"]),
            tensors["rng"].cpu(),
            savings=_memory("savings.", tensors, header.get("savings", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise CheckpointError(f"its state is incomplete: {exc}.") from exc


def _write(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Whole and durable, or not at all."""
    partial = path.with_name(path.name + _PARTIAL)
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            fsync_directory(path.parent.parent)
        with partial.open("wb") as file:
            file.writelines(_sealed(header, tensors))
        replace_durably(partial, path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InsufficientStorage(f"No room for {path.name}: {exc.strerror}.") from exc
        raise CheckpointError(f"{path.name} can't be written: {exc.strerror}.") from exc


def _read(path: Path, device: torch.device | str) -> tuple[Mapping[str, Any], Mapping[str, Tensor]]:
    """Header and tensors of a file whose digest is right. Raises CheckpointError."""
    try:
        raw = path.read_bytes()
        table, data = _split(raw)
        metadata = table["__metadata__"]
        if metadata.pop(_DIGEST) != _digest(table, data):
            raise CheckpointError("its SHA-256 is wrong: it is damaged.")
        return json.loads(metadata[_KEY]), {name: tensor.to(device) for name, tensor in load(raw).items()}
    except OSError as exc:
        raise CheckpointError(f"it can't be read: {exc.strerror}.") from exc
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, SafetensorError) as exc:
        raise CheckpointError("it is no checkpoint, or a part of one.") from exc


def _sealed(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[bytes, memoryview]:
    """A safetensors file in two parts, the digest of both written into the first."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    table, data = _split(save(plain, metadata={_KEY: json.dumps(header)}))
    digest = _digest(table, data)
    table["__metadata__"][_DIGEST] = digest
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors to 8 bytes
    return struct.pack("<Q", len(text)) + text, data


def _split(raw: bytes) -> tuple[dict[str, Any], memoryview]:
    """The table (JSON: metadata and where each tensor lies) and the tensors' bytes of a safetensors file."""
    (length,) = struct.unpack_from("<Q", raw)
    if length > len(raw) - 8:
        raise ValueError("the table is cut")
    return json.loads(raw[8 : 8 + length]), memoryview(raw)[8 + length :]


def _digest(table: Mapping[str, Any], data: memoryview) -> str:
    digest = hashlib.sha256(_canonical(table))
    digest.update(data)
    return digest.hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
