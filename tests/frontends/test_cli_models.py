"""`wanreel models` against a hub on this machine: the commands as people type them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.hub_server import HubServer, hub_server
from wanreel.core.catalog import Catalog
from wanreel.frontends.cli.app import main
from wanreel.models.tiny import save_tiny

NAME = "t2v-1.3b"
SPEC = Catalog().get(NAME)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
Wanreel = Callable[..., "Answer"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(Catalog().get(f"tiny:{NAME}"), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def hub(weights: Path) -> Generator[HubServer]:
    with hub_server() as server:
        server.add_folder(SPEC.hub_id or "", weights)
        yield server


@dataclass(frozen=True)
class Answer:
    returncode: object
    stdout: str
    stderr: str


@pytest.fixture
def wanreel(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Wanreel:
    """Runs a command in this process: starting one costs seconds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    settings = {
        "DATA_DIR": str(tmp_path / "data"),
        "HUB_ENDPOINT": hub.url,
        "MIN_FREE_GB": "0",
        "DEVICE": "cpu",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"WANREEL_{name}", value)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, **more: str) -> Answer:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            for name, value in more.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                main(list(words))
        said = capfd.readouterr()
        return Answer(left.value.code or 0, said.out, said.err)

    return run


def test_from_absent_to_removed(wanreel: Wanreel, hub: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "models" / NAME
    pulled = wanreel("models", "pull", NAME)
    assert pulled.returncode == 0, pulled.stderr
    assert "Apache-2.0" in pulled.stderr and hub.commit[:12] in pulled.stderr
    assert wanreel("models", "path", NAME).stdout.strip() == str(folder)

    listed = {row["name"]: row for row in json.loads(wanreel("models", "list", "--json").stdout)}
    assert listed[NAME]["installed"] and listed[NAME]["size_bytes"] > 0 and not listed["t2v-14b"]["installed"]

    verified = wanreel("models", "verify")
    assert verified.returncode == 0 and "every file is what was received" in verified.stderr
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    damaged = wanreel("models", "verify", NAME, "--json")
    assert damaged.returncode == 3
    assert json.loads(damaged.stdout)["faults"] == [f"{NAME}/{WEIGHTS} has changed since it was received"]
    refused = wanreel("generate", "a cat", "--model", NAME, "--steps", "1")
    assert refused.returncode == 3 and f"{NAME}/{WEIGHTS} has changed" in refused.stderr

    assert wanreel("models", "pull", NAME).returncode == 0
    assert wanreel("models", "verify").returncode == 0
    removed = wanreel("models", "remove", NAME)
    assert removed.returncode == 0 and not folder.exists()
    assert wanreel("models", "remove", NAME).returncode == 3


def test_generate_downloads_first(wanreel: Wanreel, hub: HubServer, tmp_path: Path) -> None:
    words = (
        "generate",
        "a cat",
        "--model",
        NAME,
        "--steps",
        "1",
        "--width",
        "64",
        "--height",
        "64",
        "--num-frames",
        "5",
    )
    refused = wanreel(*words, "--no-download")
    assert refused.returncode == 3 and "downloads are off" in refused.stderr
    offline = wanreel(*words, WANREEL_OFFLINE="1")
    assert offline.returncode == 3 and "is not installed" in offline.stderr
    assert not hub.requests

    made = wanreel(*words)

    assert made.returncode == 3  # the tiny weights are not those of 1.3B: they came, and were judged
    assert "downloaded first: 0.0 GB" in made.stderr
    assert "does not hold t2v-1.3b" in made.stderr
    assert (tmp_path / "data" / "models" / NAME / "model_index.json").exists()


def test_components(wanreel: Wanreel, tmp_path: Path) -> None:
    pulled = wanreel("models", "pull", NAME, "--component", "vae", "--component", "tokenizer", "--json")
    assert json.loads(pulled.stdout)["repository"] == SPEC.hub_id
    assert sorted(path.name for path in (tmp_path / "data" / "models" / NAME).iterdir()) == ["tokenizer", "vae"]
    assert "partly" in wanreel("models").stdout
    assert "has no nonsense" in wanreel("models", "pull", NAME, "--component", "nonsense").stderr


def test_what_has_no_files(wanreel: Wanreel) -> None:
    assert wanreel("models", "path", f"tiny:{NAME}").returncode == 2
    assert wanreel("models", "verify", "demo").returncode == 3
    assert wanreel("models", "pull", "demo").returncode == 3
