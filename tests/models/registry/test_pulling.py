"""Pulling from a hub on this machine, healthy and in every way ill."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from models.hub_server import Fault, HubServer, Mode, hub_server
from models.registry.place import (
    FILES,
    REPO,
    SPEC,
    WANTED,
    WEIGHTS,
    assert_whole,
    flip,
    installed,
    registry_of,
    run,
    some_bytes,
)
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.errors import (
    BrokenWeights,
    Cancelled,
    HubUnavailable,
    IllegalTransition,
    InsufficientStorage,
    InvalidRequest,
    ModelNotInstalled,
)
from wanreel.models.registry import Pins, Progress, Registry


def test_a_pull_brings_what_is_wanted_and_nothing_else(hub: HubServer, registry: Registry) -> None:
    assert not registry.is_complete(SPEC)

    told, notes = run(registry)

    assert_whole(registry)
    assert registry.is_complete(SPEC)
    assert notes == ()
    assert told[-1] == Progress("complete", sum(len(FILES[name]) for name in WANTED), told[-1].total_bytes)
    assert told[-1].received_bytes == told[-1].total_bytes


def test_the_lock_pins_commit_and_hashes(hub: HubServer, registry: Registry) -> None:
    run(registry)

    pin = Pins(registry.root).of(SPEC.name)
    assert pin is not None
    assert (pin.repo, pin.commit) == (REPO, hub.commit)
    assert set(pin.files) == WANTED
    assert all(file.sha256 and len(file.sha256) == 64 for file in pin.files.values())
    assert json.loads((registry.root / "models.lock").read_text())["version"] == 1


def test_later_runs_use_the_pinned_commit(hub: HubServer, registry: Registry) -> None:
    run(registry)
    (registry.folder(SPEC) / WEIGHTS).unlink()
    hub.requests.clear()

    run(registry)

    assert_whole(registry)
    assert [path for path in hub.requests if path.startswith("/api")] == [f"/api/models/{REPO}/revision/{hub.commit}"]
    assert sum(1 for path in hub.requests if path.startswith("/cdn")) == 1


def test_a_hub_that_rewrites_a_commit_is_not_believed(hub: HubServer, registry: Registry) -> None:
    run(registry)
    hub.repos[REPO][WEIGHTS] = some_bytes(4 * 2**20, 99)

    with pytest.raises(HubUnavailable, match="another transformer/diffusion_pytorch_model.safetensors"):
        run(registry)
    assert registry.faults(SPEC, CancelToken()) == ()


ALWAYS = math.inf
CURED: list[tuple[Mode, float]] = [
    ("truncate", 1),
    ("truncate", 4),
    ("stall", 1),
    ("unavailable", 1),
    ("unavailable", 5),
    ("busy", 1),
    ("busy", 5),
    ("flip", 1),
    ("longer", 1),
    ("etag", 1),
    ("ignore-range", 1),
]


@pytest.mark.parametrize(("mode", "times"), CURED)
def test_what_passes_is_outlasted(hub: HubServer, registry: Registry, mode: Mode, times: float) -> None:
    hub.faults = [Fault("transformer/diff", mode, times)]

    run(registry)

    assert_whole(registry)


@pytest.mark.parametrize("mode", ["truncate", "stall", "unavailable", "busy", "flip", "longer", "etag", "circle"])
def test_what_stays_is_told_and_leaves_nothing_that_looks_installed(
    hub: HubServer, registry: Registry, mode: Mode
) -> None:
    hub.faults = [Fault("vae/diff", mode, ALWAYS)]

    with pytest.raises(HubUnavailable, match="vae/diffusion_pytorch_model.safetensors"):
        run(registry)

    assert "model_index.json" not in installed(registry)
    assert "vae/diffusion_pytorch_model.safetensors" not in installed(registry)
    state = registry.progress(SPEC)
    assert state is not None and state.state == "failed" and "vae" in state.message

    hub.faults = []
    run(registry)
    assert_whole(registry)


def test_a_cut_transfer_goes_on_where_it_ended(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "truncate")]
    run(registry)
    assert f"bytes={len(FILES[WEIGHTS]) // 2}-" in hub.ranges


def test_a_file_replaced_in_the_middle_is_noticed(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "truncate"), Fault("transformer/diff", "etag")]
    run(registry)
    assert_whole(registry)


def test_refusals_are_final(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("LISTING", "forbidden", ALWAYS)]
    with pytest.raises(HubUnavailable, match=r"refuses .* \(401\).*terms"):
        run(registry)
    assert sum(hub.requests.values()) == 1


def test_an_unknown_repository(registry: Registry, hub: HubServer) -> None:
    hub.repos.clear()
    with pytest.raises(HubUnavailable, match="is not on http"):
        run(registry)


@pytest.mark.parametrize("field", ["sha", "lfs"])
def test_a_list_that_makes_no_sense(hub: HubServer, registry: Registry, field: str) -> None:
    def spoilt(body: dict) -> dict:
        if field == "sha":
            return body | {"sha": "../main"}
        return body | {"siblings": [row | {"lfs": {"sha256": "no", "size": 1}} for row in body["siblings"]]}

    hub.listing = spoilt
    with pytest.raises(HubUnavailable, match="no list"):
        run(registry)


def test_single_components(hub: HubServer, registry: Registry) -> None:
    run(registry, "vae", "tokenizer")
    assert set(installed(registry)) == {name for name in WANTED if name.startswith(("vae/", "tokenizer/"))}
    assert not registry.is_complete(SPEC)

    run(registry)
    assert_whole(registry)


def test_an_unknown_component(registry: Registry) -> None:
    with pytest.raises(InvalidRequest, match="has no image_encoder"):
        run(registry, "image_encoder")


def test_a_repository_without_safetensors(hub: HubServer, registry: Registry) -> None:
    hub.repos[REPO] = {name: data for name, data in FILES.items() if not name.startswith("vae/")}
    with pytest.raises(HubUnavailable, match="holds no vae in safetensors"):
        run(registry)


def test_too_little_room_is_said_before_a_byte_is_asked_for(hub: HubServer, tmp_path: Path) -> None:
    registry = registry_of(hub, tmp_path / "models", keep_free=2**60)
    with pytest.raises(InsufficientStorage, match="needs 0.0 GB more"):
        run(registry)
    assert not any("/cdn/" in path for path in hub.requests)


def test_a_disk_that_fills_up(hub: HubServer, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    add = "wanreel.models.registry.transfer._Part.add"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(add, full)
        with pytest.raises(InsufficientStorage, match="The disk is full"):
            run(registry)
    run(registry)
    assert_whole(registry)


# Offline, and when the hub is down


def test_offline_never_dials(hub: HubServer, tmp_path: Path) -> None:
    registry = registry_of(hub, tmp_path / "models", offline=True)
    with pytest.raises(HubUnavailable, match="is offline"):
        run(registry)
    assert not hub.requests


def test_offline_uses_a_verified_copy_and_names_it(hub: HubServer, registry: Registry, tmp_path: Path) -> None:
    run(registry)
    hub.requests.clear()

    told, notes = run(registry_of(hub, registry.root, offline=True))

    assert told[-1].state == "complete"
    assert len(notes) == 1 and hub.commit[:12] in notes[0] and "verified copy" in notes[0]
    assert not hub.requests


def test_a_dead_hub_and_a_verified_copy(hub: HubServer, registry: Registry) -> None:
    run(registry)
    hub.faults = [Fault("LISTING", "unavailable", ALWAYS)]
    _, notes = run(registry)
    assert "verified copy" in notes[0]


def test_a_dead_hub_and_a_damaged_copy(hub: HubServer, registry: Registry) -> None:
    run(registry)
    flip(registry.folder(SPEC) / WEIGHTS, 5)
    hub.faults = [Fault("LISTING", "unavailable", ALWAYS)]
    with pytest.raises(BrokenWeights, match=WEIGHTS):
        run(registry)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(HubUnavailable, match="the connection breaks"):
        run(registry_of("http://127.0.0.1:9", tmp_path / "models"))


# Damage


def test_pause_and_resume(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "stall")]
    pulling = registry.pull(SPEC, CancelToken())
    for progress in pulling:
        if progress.received_bytes > 5 * 2**20:
            break
    with pytest.raises(IllegalTransition, match="being downloaded"):
        registry.remove(SPEC)
    registry.pause(SPEC)
    with pytest.raises(Cancelled, match="paused"):
        list(pulling)
    state = registry.progress(SPEC)
    assert state is not None and state.state == "paused" and state.received_bytes > 5 * 2**20

    run(registry)
    assert_whole(registry)
    assert hub.ranges, "what had arrived was used"


def test_nothing_to_pause(registry: Registry) -> None:
    with pytest.raises(IllegalTransition):
        registry.pause(SPEC)


def test_stopping_keeps_what_arrived(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "stall")]
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        for progress in registry.pull(SPEC, cancel):
            if progress.received_bytes > 5 * 2**20:
                cancel.cancel()
    state = registry.progress(SPEC)
    assert state is not None and state.state == "interrupted"
    run(registry)
    assert_whole(registry)


def test_closing_the_generator_stops_the_threads(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "slow", ALWAYS)]
    pulling = registry.pull(SPEC, CancelToken())
    next(pulling)
    next(pulling)
    pulling.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("download")]
    assert not registry.is_complete(SPEC)


PULL = """
import sys
from pathlib import Path
import huggingface_hub.constants as constants
constants.HF_HUB_OFFLINE = False
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.models.registry import Hub, Registry
from wanreel.storage.digests import Digests
root = Path(sys.argv[2])
registry = Registry(root, Hub(sys.argv[1], base_wait=0.01), Digests(root.parent / f"digests.json"))
for progress in registry.pull(Catalog().get("t2v-1.3b"), CancelToken()):
    print(progress.received_bytes, flush=True)
"""


def start_pull(hub: HubServer, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, hub.url, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_one_download(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "slow", ALWAYS)]
    both = [start_pull(hub, registry.root) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert_whole(registry)
    fetched = {path: times for path, times in hub.requests.items() if path.startswith("/cdn")}
    assert set(fetched.values()) == {1}, fetched
    for process in both:
        process.communicate()


def test_killed_in_the_middle_of_a_file(hub: HubServer, registry: Registry) -> None:
    hub.faults = [Fault("transformer/diff", "stall")]
    process = start_pull(hub, registry.root)
    part = registry.root / ".downloads" / SPEC.name / f"{WEIGHTS.replace('/', '--')}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    state = registry.progress(SPEC)
    assert state is not None and state.state == "interrupted"
    assert not registry.is_complete(SPEC)

    run(registry)

    assert_whole(registry)
    assert hub.ranges


def test_rubbish_in_a_part_is_not_trusted(hub: HubServer, registry: Registry) -> None:
    part = registry.root / ".downloads" / SPEC.name / f"{WEIGHTS.replace('/', '--')}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * len(FILES[WEIGHTS]))
    run(registry)
    assert_whole(registry)


def test_a_token_never_follows_a_redirect(hub: HubServer, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content network is another host."""
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: "hf_secret")
    with hub_server(**{REPO: dict(FILES)}) as network:
        hub.url = network.url.replace("127.0.0.1", "localhost")
        run(registry)
    assert hub.tokens and not network.tokens


def test_a_model_without_a_repository(registry: Registry) -> None:
    with pytest.raises(ModelNotInstalled, match="no repository"):
        next(registry.pull(Catalog().get("demo"), CancelToken()))
