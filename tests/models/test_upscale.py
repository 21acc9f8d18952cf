"""Networks that enlarge: tiny random ones of the architecture that is read, saved as users have them."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Swin2SRForImageSuperResolution

from models.upscaler_files import tiny_upscaler
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import BrokenWeights, Cancelled, InvalidRequest, OutOfMemory
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.settings import load_settings
from wanreel.frontends.cli import main
from wanreel.frontends.http.upscalers import UpscalerRoutes
from wanreel.models.upscale import Upscaler
from wanreel.models.upscalers import UpscalerShelf
from wanreel.storage.digests import Digests
from wanreel.wiring import build_runtime

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_upscaler(tmp_path_factory.mktemp("networks") / "tiny")


@pytest.fixture
def shelf(tmp_path: Path) -> UpscalerShelf:
    return UpscalerShelf(tmp_path / "upscalers", Digests(tmp_path / "digests.json"))


FRAME = np.random.default_rng(0).integers(0, 255, (70, 91, 3), dtype=np.uint8)


def test_tiles_make_what_the_whole_frame_makes(network: Path) -> None:
    whole, tiled = (Upscaler(network, CPU, CancelToken(), tile)(FRAME) for tile in (256, 32))
    assert whole.shape == (140, 182, 3) and whole.std() > 5
    assert np.abs(whole.astype(int) - tiled.astype(int)).max() <= 1
    module: Any = Swin2SRForImageSuperResolution.from_pretrained(network)
    with torch.inference_mode():
        pixels = torch.from_numpy(FRAME[:68, :88]).permute(2, 0, 1)[None] / 255
        plain = (module(pixel_values=pixels).reconstruction[0].permute(1, 2, 0).clamp(0, 1) * 255).round()
    inner = slice(0, 100)  # elsewhere the network sees how the edge goes on
    assert np.abs(plain.numpy()[inner, inner] - whole[inner, inner]).max() <= 1


def test_where_memory_runs_out_it_goes_on_in_smaller_tiles(network: Path) -> None:
    upscaler = Upscaler(network, CPU, CancelToken())
    wide = np.tile(FRAME, (1, 4, 1))
    plain = upscaler(wide)
    inside = upscaler._module

    def module(pixel_values: torch.Tensor) -> Any:
        if max(pixel_values.shape) > limit:
            raise torch.OutOfMemoryError("none left")
        return inside(pixel_values=pixel_values)

    upscaler._module = module
    limit = 128 + 64  # px of the largest tile that fits, with its margins
    again = upscaler(wide)
    assert np.abs(again.astype(int) - plain.astype(int)).max() <= 1 and upscaler._tile == 128
    limit = 100
    with pytest.raises(OutOfMemory, match="64 px"):
        upscaler(np.zeros((128, 128, 3), np.uint8))


def test_it_stops_between_tiles(network: Path) -> None:
    token = CancelToken()
    upscaler = Upscaler(network, CPU, token, 32)
    token.cancel("stop")
    with pytest.raises(Cancelled):
        upscaler(FRAME)


def test_a_shelf_takes_in_knows_and_forgets(shelf: UpscalerShelf, network: Path) -> None:
    assert shelf.names() == ()
    taken = shelf.add(network)
    assert (taken.name, taken.scale, shelf.names(), shelf.get("tiny"), shelf.add(network)) == (
        *("tiny", 2, ("tiny",), taken),
        taken,
    )
    assert shelf.check(taken) == shelf.root / "tiny"
    with pytest.raises(InvalidRequest, match="another upscaler"):
        shelf.add(tiny_upscaler(shelf.root.parent / "other", seed=1), "tiny")
    tiny_upscaler(shelf.root / "tiny", seed=1)
    with pytest.raises(BrokenWeights, match="another one"):
        shelf.check(taken)
    shelf.remove("tiny")
    with pytest.raises(BrokenWeights, match="gone"):
        shelf.check(taken)
    assert [path.name for path in shelf.root.iterdir()] == []


@pytest.mark.parametrize("name", ["../tiny", "none", "", ".hidden", "a/b"])
def test_only_names_of_what_is_there_are_taken(shelf: UpscalerShelf, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shelf.get(name)
    assert refused.value.problems[0].field == "upscaler"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "swinir"}, "swinir"),
        ({"upscale": 1}, "1 times"),
        ({"upsampler": "pixelshuffle_aux"}, "aux"),
        ({"window_size": 7}, "windows of 7"),
    ],
)
def test_other_networks_are_refused(
    shelf: UpscalerShelf, network: Path, changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes((network / "model.safetensors").read_bytes())
    (other / "config.json").write_text(json.dumps(json.loads((network / "config.json").read_text()) | changed))
    with pytest.raises(BrokenWeights, match=said):
        shelf.add(other)


def test_numbers_and_nonsense_of_a_config(network: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((network / "model.safetensors").read_bytes())
    facts = json.loads((network / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(facts | {"mlp_ratio": 2}))
    assert Upscaler(tmp_path, CPU, CancelToken()).scale == 2
    (tmp_path / "config.json").write_text(json.dumps(facts | {"embed_dim": "many"}))
    with pytest.raises(BrokenWeights, match="can't be read"):
        Upscaler(tmp_path, CPU, CancelToken())


def test_weights_that_lack_a_tensor_are_broken(network: Path, tmp_path: Path) -> None:
    tensors = load_file(network / "model.safetensors")
    del tensors[min(tensors)]
    (tmp_path / "config.json").write_bytes((network / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BrokenWeights, match="lacks 1 tensor"):
        Upscaler(tmp_path, CPU, CancelToken())


def test_a_request_names_it_and_records_what_it_was(network: Path, tmp_path: Path) -> None:
    runtime = build_runtime(load_settings(data_dir=tmp_path, device="cpu"))

    def resolved(**finishing: Any) -> ResolvedRequest:
        return runtime.resolve(VideoRequest(prompt="a", model="demo", seed=1, **finishing)).request

    with pytest.raises(InvalidRequest, match="no upscaler 'tiny'"):
        resolved(upscaler="tiny")
    found = runtime.upscalers.add(network)
    request = resolved(upscaler="tiny")
    assert (request.finishing.upscaler, request.finishing.upscale) == (found, 2.0)
    assert request.finished.width == 2 * request.export_width
    assert ResolvedRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    assert runtime.resolve(request.as_request()).request == request
    assert resolved(upscaler="tiny", upscale=3).finishing.upscale == 3
    for plain in ({"upscaler": "lanczos", "upscale": 2}, {"upscaler": "tiny", "upscale": 1}):
        assert resolved(**plain).finishing.upscaler is None
    runtime.close()


def test_the_command_line_and_the_api_list_them(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path))

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["upscalers", *words])
        assert not ended.value.code
        return capsys.readouterr().out

    assert "There is none" in run("list")
    added = json.loads(run("add", str(network), "--name", "fine", "--json"))
    shelf = UpscalerShelf(load_settings(data_dir=tmp_path).upscalers_dir, Digests(tmp_path / "digests.json"))
    (shelf.root / "broken").mkdir()
    (shelf.root / "broken" / "model.safetensors").write_bytes(b"-")
    listed = asyncio.run(UpscalerRoutes(shelf).list()).data
    assert [one.model_dump() for one in listed] == [{"name": "fine", "scale": 2, "sha256": added["sha256"]}]
    shutil.rmtree(shelf.root / "broken")
    assert "fine  2×  sha256" in run("list")
    run("remove", "fine")
    assert shelf.list() == ()
