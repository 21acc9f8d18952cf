"""A small model on a hub of this machine, and a registry that pulls it."""

from __future__ import annotations

from pathlib import Path

from models.hub_server import HubServer
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.models.registry import Hub, Progress, Registry
from wanreel.storage.digests import Digests

SPEC = Catalog().get("t2v-1.3b")
REPO = SPEC.hub_id or ""
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def some_bytes(size: int, seed: int) -> bytes:
    return b"".join((seed * 1000 + i).to_bytes(8, "little") for i in range(size // 8))


FILES = {
    "model_index.json": b'{"_class_name": "WanPipeline"}',
    "README.md": b"not wanted",
    "run.py": b"import os",
    "scheduler/scheduler_config.json": b"{}",
    "tokenizer/tokenizer.json": some_bytes(8192, 1),
    "tokenizer/tokenizer_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": some_bytes(3 * 2**20, 2),
    "text_encoder/pytorch_model.bin": b"a pickle",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": some_bytes(65536, 3),
    "vae/../../evil.safetensors": b"outside",
    "transformer/config.json": b"{}",
    WEIGHTS: some_bytes(4 * 2**20, 4),
}
WANTED = {name for name in FILES if not name.endswith((".md", ".py", ".bin")) and ".." not in name}


def registry_of(hub: HubServer | str, root: Path, *, offline: bool = False, keep_free: int = 0) -> Registry:
    url = hub if isinstance(hub, str) else hub.url
    client = Hub(url, offline=offline, base_wait=0.001, silence=0.4)
    return Registry(root, client, Digests(root.parent / "digests.json"), keep_free)


def run(registry: Registry, *only: str, cancel: CancelToken | None = None) -> tuple[list[Progress], tuple[str, ...]]:
    """Pulls to the end: what it told, and its notes."""
    pulling, told = registry.pull(SPEC, cancel or CancelToken(), only), list[Progress]()
    while True:
        try:
            told.append(next(pulling))
        except StopIteration as end:
            return told, end.value


def installed(registry: Registry) -> dict[str, bytes]:
    folder = registry.folder(SPEC)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(registry: Registry) -> None:
    assert installed(registry) == {name: FILES[name] for name in WANTED}
    assert not (registry.root / ".downloads" / SPEC.name).exists()
    assert registry.faults(SPEC, CancelToken()) == ()
    state = registry.progress(SPEC)
    assert state is not None and state.state == "complete"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
