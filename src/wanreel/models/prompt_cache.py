"""PromptCache: embeddings of prompts and pictures on disk, so that what was seen before needs no encoder.

Knows nothing of prompts as text: what counts are the tokens, the encoder's weights, and where and how it computes.
Losing an entry, or the whole folder, costs the time to encode again; a damaged one is never used.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wanreel.core.errors import BrokenWeights
from wanreel.models.safetensors_header import read_header

_SUFFIX = ".safetensors"
_NAME = "embeds"
_LARGEST = 2**27  # bytes of one entry; a picture's latents for 161 frames of 1080p take 89 MB


@dataclass(frozen=True, slots=True)
class PromptCache:
    """At most `limit` bytes in `root`; the entries used longest ago go first."""

    root: Path
    limit: int

    def get(self, key: str) -> Tensor | None:
        """The rows kept under `key`, on the CPU in their own dtype; None when there are none, or damaged ones."""
        path = self._path(key)
        try:
            if read_header(path).size > _LARGEST:
                return None
            with safe_open(path, framework="pt") as opened:
                rows, said = opened.get_tensor(_NAME).clone(), (opened.metadata() or {}).get("sha256")
        except FileNotFoundError:
            return None
        except (BrokenWeights, SafetensorError, OSError):
            rows, said = None, None
        if rows is None or _digest(rows) != said:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(path)  # used just now
        return rows

    def put(self, key: str, rows: Tensor) -> None:
        """Keep `rows` under `key`. A disk that refuses is no reason to fail: it is a cache."""
        rows = rows.detach().cpu().contiguous()
        data = save({_NAME: rows}, metadata={"sha256": _digest(rows)})
        if len(data) > min(self.limit, _LARGEST):
            return
        path = self._path(key)
        temporary = path.with_name(f".{key}.{os.getpid()}.tmp")
        with suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
            self._shrink()

    def _shrink(self) -> None:
        """Forget entries until the rest is within the limit."""
        entries = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in self.root.glob(f"*{_SUFFIX}"))
        over = sum(size for _, size, _ in entries) - self.limit
        for _, size, path in entries:
            if over <= 0:
                return
            path.unlink(missing_ok=True)
            over -= size

    def _path(self, key: str) -> Path:
        return self.root / f"{key}{_SUFFIX}"


@dataclass(frozen=True, slots=True)
class PromptMemory:
    """The cache as one model's text encoder sees it."""

    cache: PromptCache
    encoder: str  #: what its weights are: their SHA-256, or how their files look
    computes: str  #: device and dtype, as other ones give other bits

    def get(self, tokens: Sequence[int]) -> Tensor | None:
        return self.cache.get(self._key(tokens))

    def put(self, tokens: Sequence[int], rows: Tensor) -> None:
        self.cache.put(self._key(tokens), rows)

    def _key(self, tokens: Sequence[int]) -> str:
        facts = "\n".join((self.encoder, self.computes, torch.__version__))
        return hashlib.sha256(facts.encode() + b"\0" + struct.pack(f"<{len(tokens)}q", *tokens)).hexdigest()


@dataclass(frozen=True, slots=True)
class SightMemory:
    """What encoders made of pictures, in the same cache, as one model's encoders see it."""

    cache: PromptCache
    encoders: str  #: what their weights are
    computes: str  #: device and dtype

    def get(self, facts: str, pictures: bytes) -> Tensor | None:
        """On the CPU. `facts`: in what way `pictures` are encoded."""
        return self.cache.get(self._key(facts, pictures))

    def put(self, facts: str, pictures: bytes, encoded: Tensor) -> None:
        self.cache.put(self._key(facts, pictures), encoded)

    def _key(self, facts: str, pictures: bytes) -> str:
        known = "\n".join((self.encoders, self.computes, torch.__version__, facts))
        return hashlib.sha256(known.encode() + b"\0" + pictures).hexdigest()


def _digest(rows: Tensor) -> str:
    digest = hashlib.sha256(f"{rows.dtype} {tuple(rows.shape)}".encode())
    digest.update(rows.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
