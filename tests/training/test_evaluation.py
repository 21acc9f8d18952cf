"""The evaluation's measures on clips whose truth is known, and every round once through the real pipelines."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from training.config import TINY
from training.dice import Dice
from training.drawing import SHAPE_NAMES
from training.evaluation import rounds
from training.evaluation.cases import MOTIONS, MOVES, chinese_cases, shape_cases
from training.evaluation.clips import ClipMaker, Sampling
from training.evaluation.measure import (
    expected,
    find_blob,
    looks_like,
    moves_as,
    pan_speed,
    pans_the_right_way,
    psnr,
    recognise,
)
from training.evaluation.photos import pictures, to_tensor
from training.evaluation.pipelines import Pipelines
from training.evaluation.studio import Studio
from training.export import save_pipeline, save_tensors
from training.lora_stage import add_branches, lora_tensors
from training.networks import make_networks
from training.preview_stage import PreviewDecoder, preview_notes
from training.scenes import Frame, Scene, color_value, held_out, make_shape
from training.textures import Bank
from training.world import render

from wanreel.demo import weights_path

CPU = torch.device("cpu")
FRAME = Frame(128, 128, 17)


@functools.cache
def _bank() -> Bank:
    return Bank(1, 128, 0, CPU, 1)


def drawn(shape: str, color: str, background: str, motion: str, seed: int = 0) -> torch.Tensor:
    """A perfect model's clip, [t, 3, h, w] in [0, 1]."""
    dice = Dice(f"drawn {seed}", CPU)
    what = make_shape(shape, color, motion, "", 1.0, FRAME, dice.pick)
    scene = Scene(color_value(background, dice.pick), (what,), moving=True)
    return render([scene], _bank(), FRAME, dice)[0].transpose(0, 1) / 2 + 0.5


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_perfect_clip_passes_its_own_motion_and_no_opposite(motion: str) -> None:
    blob = find_blob(drawn("square", "red", "blue", motion), "red", "blue")
    assert blob.there
    assert blob.background > 0.95
    passed = {other for other in MOTIONS if moves_as(blob, other)}
    assert motion in passed
    assert len(passed) <= 2, passed


@pytest.mark.parametrize("shape", SHAPE_NAMES)
def test_shapes_are_told_apart(shape: str) -> None:
    for motion in ("right", "still", "grow"):
        assert recognise(find_blob(drawn(shape, "yellow", "black", motion, 3), "yellow", "black")) == shape


def test_a_wrong_colour_is_not_there() -> None:
    assert not find_blob(drawn("circle", "red", "blue", "right"), "green", "blue").there
    assert find_blob(drawn("circle", "red", "blue", "right"), "red", "white").background < 0.1


@pytest.mark.parametrize("move", MOVES)
def test_an_exact_camera_clip_is_recognised(move: str) -> None:
    photo = (to_tensor(pictures(64, 64, cuts=False)["cat"]) + 1) / 2
    clip = expected(photo, move, 9)
    assert looks_like(clip, photo, MOVES) == move


def test_pans_are_judged_against_the_exact_clip() -> None:
    photo = (to_tensor(pictures(64, 64, cuts=False)["temple"]) + 1) / 2
    left, right = expected(photo, "left", 9), expected(photo, "right", 9)
    assert pans_the_right_way(left, photo, "left")
    assert not pans_the_right_way(right, photo, "left")
    assert not pans_the_right_way(photo.expand_as(left), photo, "left")
    assert pan_speed(left, photo, across=True) == 2.0
    assert pan_speed(expected(photo, "up", 9), photo, across=False) == 2.0


def test_cases_are_held_out_and_fixed() -> None:
    cases = shape_cases(8, FRAME)
    assert len(cases) == 104
    assert cases == shape_cases(8, FRAME)
    assert all(held_out(c.shape, c.color, c.motion, c.background) for c in [*cases, *chinese_cases(2, FRAME)])


def test_pictures_are_of_the_size_asked_for() -> None:
    found = pictures(48, 80)
    assert len(found) == 18
    assert {p.size for p in found.values()} == {(80, 48)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny demo folder."""
    folder = tmp_path_factory.mktemp("demo")
    torch.manual_seed(0)
    networks = make_networks(TINY.shapes)
    save_pipeline(folder / "weights", networks)
    save_tensors(folder / "preview.safetensors", dict(PreviewDecoder(8).named_parameters()), preview_notes())
    branches = add_branches(networks.dit, 2)
    for branch in branches.values():
        torch.nn.init.normal_(branch.up, std=0.05)
    save_tensors(folder / "gold.safetensors", lora_tensors(branches), {"format": "pt"})
    return folder


#: Small, yet of a size that Wanreel takes.
QUICK = Sampling(Frame(64, 64, 5), steps=2)
SHIPPED = weights_path().parent


@pytest.fixture(params=["wanreel", "diffusers"])
def maker(request: pytest.FixtureRequest, demo: Path, tmp_path: Path) -> ClipMaker:
    """Wanreel runs the shipped weights: its row knows their shape."""
    if request.param == "wanreel":
        return Studio(SHIPPED / "weights", tmp_path, "cpu")
    return Pipelines(demo / "weights", "cpu")


@pytest.mark.deep
def test_every_round_runs(maker: ClipMaker) -> None:
    photos = dict(list(pictures(64, 64, cuts=False).items())[:1])
    shapes = rounds.shapes_round(maker, shape_cases(1, QUICK.frame)[-2:], QUICK, 0)
    assert shapes.figures["motion"]["of"] == len(shapes.rows) == 2
    camera = rounds.camera_round(maker, photos, QUICK, 0)
    assert camera.figures["move"]["of"] == 9
    assert camera.figures["pan sign"]["of"] == 4
    assert rounds.free_round(maker, next(iter(photos.values())), QUICK, 0).figures["sensible"]["of"] == 24


def test_the_preview_is_measured(demo: Path) -> None:
    photos = dict(list(pictures(32, 32, cuts=False).items())[:1])
    figures = rounds.preview_round(demo / "weights", demo / "preview.safetensors", photos).figures
    assert figures["lowest"] > 0


def test_wanreels_clips_are_those_of_diffusers_but_for_the_file(tmp_path: Path) -> None:
    """The whole product against the library: same prompts, seeds and knobs, then a video file on one side."""
    makers = (Studio(SHIPPED / "weights", tmp_path, "cpu"), Pipelines(SHIPPED / "weights", "cpu"))
    picture = pictures(64, 64, cuts=False)["cat"]
    for ours, theirs in (
        [m.from_text(["a red circle moves right"], QUICK, 3)[0] for m in makers],
        [m.from_picture(picture, ["pan left"], QUICK, 3)[0] for m in makers],
    ):
        assert ours.shape == theirs.shape == (5, 3, 64, 64)
        assert psnr(ours, theirs) > 30


def test_the_lora_is_worn_for_its_clip_alone(tmp_path: Path) -> None:
    studio = Studio(SHIPPED / "weights", tmp_path, "cpu")
    gold = SHIPPED / "loras" / "gold.safetensors"
    plain, worn, again = (studio.from_text(["a red circle"], QUICK, 3, lora)[0] for lora in (None, gold, None))
    assert not torch.equal(plain, worn)
    assert torch.equal(plain, again)


def test_a_clip_depends_on_its_seed_alone(demo: Path) -> None:
    sampling = Sampling(Frame(32, 32, 5), steps=2)
    together = Pipelines(demo / "weights", "cpu").from_text(["a", "b"], sampling, seed=3)
    apart = Pipelines(demo / "weights", "cpu", batch=1).from_text(["a", "b"], sampling, seed=3)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
