"""The world: prompts and pixels agree, chance is seeded, and the held-out combinations never appear."""

from __future__ import annotations

import math
import random

import pytest
import torch
from training.dice import Dice
from training.drawing import SHAPE_NAMES, Camera, Tracks, camera_move, camera_path, draw, exact_clip
from training.scenes import Frame, Scene, held_out, make_shape, sample_free_scene, sample_scene
from training.textures import Bank, make_textures
from training.tokenizer import make_tokenizer
from training.words import CAMERA, CHINESE_CAMERA, CHINESE_COLORS, CHINESE_MOTIONS, CHINESE_SHAPES, COLORS, SHAPES
from training.world import render

CPU = torch.device("cpu")
FRAME = Frame(32, 48, 5)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return Bank(8, 64, 0, CPU, 4)


def test_same_seed_same_scenes_and_pixels(bank: Bank) -> None:
    def once() -> tuple[list[str], torch.Tensor]:
        dice = Dice("same", CPU)
        pairs = [sample_scene(FRAME, dice.pick) for _ in range(6)]
        return [prompt for prompt, _ in pairs], render([scene for _, scene in pairs], bank, FRAME, dice)

    (prompts, clips), (again, same) = once(), once()
    assert prompts == again
    assert torch.equal(clips, same)
    assert clips.shape == (6, 3, 5, 32, 48)
    assert clips.abs().max() <= 1


def test_held_out_combinations_never_appear_in_training() -> None:
    dice = random.Random(0)
    frame = Frame(128, 128, 17)
    seen = 0
    for _ in range(3000):
        prompt, scene = sample_scene(frame, dice)
        if scene.moving and not isinstance(scene.background, str):
            seen_color = [127.5 * (part + 1) for part in scene.background]
            background = min(COLORS, key=lambda name: math.dist(COLORS[name], seen_color))
            for shape in scene.shapes:
                seen += 1
                assert not held_out(shape.name, shape.color, shape.motion, background), prompt
    assert seen > 500


def test_about_a_sixteenth_is_held_out() -> None:
    dice = random.Random(1)
    names = [list(SHAPES), list(COLORS), ["right", "left", "grow", "spin"], list(COLORS)]
    share = sum(held_out(*(dice.choice(options) for options in names)) for _ in range(4000)) / 4000
    assert 0.04 < share < 0.09


@pytest.mark.parametrize("motion", ["right", "up-left", "grow", "bounce", "still"])
def test_shapes_stay_inside_of_the_frame(motion: str) -> None:
    dice = random.Random(2)
    frame = Frame(96, 160, 17)
    for _ in range(50):
        s = make_shape("square", "red", motion, "", 2.0 if motion != "bounce" else 1.0, frame, dice)
        for t in (0, 8, 16):
            radius = s.radius * math.exp(s.grow * t)
            y = s.y + s.vy * t - s.bounce * abs(math.sin(t * math.pi / 8))
            assert radius <= s.x + s.vx * t <= frame.width - radius
            assert radius <= y + 1 and y <= frame.height - radius


def test_the_camera_pans_left_so_the_content_goes_right() -> None:
    picture = torch.full((3, 32, 32), -1.0)
    picture[:, :, 10] = 1.0
    clip = exact_clip(picture, camera_move("left"), 5)
    assert clip[0, :, 16].argmax(1).tolist() == [10, 12, 14, 16, 18]
    assert exact_clip(picture, camera_move("right"), 3)[0, :, 16].argmax(1).tolist() == [10, 8, 6]


def test_a_still_camera_keeps_the_picture() -> None:
    picture, _ = make_textures(1, 32, Dice("t", CPU), leaves=5)
    clip = exact_clip(picture[0], Camera(), 3)
    torch.testing.assert_close(clip, picture[0].unsqueeze(1).expand_as(clip), atol=1e-5, rtol=0)


def test_zoom_and_rotation_have_their_sign() -> None:
    _, scale, _ = camera_path(camera_move("in"), 3)
    assert scale[2] > scale[0]
    picture = torch.full((3, 33, 33), -1.0)
    picture[:, 2:5, 16] = 1.0  # a mark at twelve o'clock
    turned = exact_clip(picture, Camera(rotation=math.pi / 2), 2)[0, 1]
    assert turned[16, 29] > 0  # clockwise: at three o'clock


def test_an_unknown_move_is_refused() -> None:
    with pytest.raises(ValueError, match="sideways"):
        camera_move("sideways")


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_every_shape_covers_its_centre_or_is_a_ring(name: str) -> None:
    kind = torch.tensor([SHAPE_NAMES.index(name)])
    at, none = torch.tensor([[16.0]]), torch.zeros(1, 1)
    tracks = Tracks(kind, torch.ones(1, 3), at, at, torch.tensor([[10.0]]), none)
    mask = draw(torch.zeros(1, 3, 1, 32, 32), tracks)[0, 0, 0]
    assert (mask[16, 16] == 1) == (name != "ring")
    assert mask[0, 0] == 0
    empty = Tracks(kind, torch.ones(1, 3), at, at, none, none)
    assert draw(torch.zeros(1, 3, 1, 32, 32), empty).abs().max() == 0


def test_a_bank_is_a_function_of_seed_and_generation() -> None:
    straight, detour = Bank(8, 32, 5, CPU, 4), Bank(8, 32, 5, CPU, 4)
    detour.at(3)
    detour.at(1)
    straight.at(1)
    cut = straight.crop("any", 16, 16, Dice("c", CPU))
    assert torch.equal(cut, detour.crop("any", 16, 16, Dice("c", CPU)))
    assert not torch.equal(cut, Bank(8, 32, 6, CPU, 4).at(1).crop("any", 16, 16, Dice("c", CPU)))


def test_free_scenes_render(bank: Bank) -> None:
    dice = Dice("free", CPU)
    clips = render([sample_free_scene(FRAME, dice.pick) for _ in range(8)], bank, FRAME, dice)
    assert torch.isfinite(clips).all()


def test_a_flat_scene_has_its_colour(bank: Bank) -> None:
    clip = render([Scene((0.5, -0.5, 0.0))], bank, FRAME, Dice("flat", CPU))
    torch.testing.assert_close(clip[0, :, 2, 10, 10], torch.tensor([0.5, -0.5, 0.0]))


def test_the_tokenizer_knows_every_prompt_of_the_world() -> None:
    tokenizer = make_tokenizer()
    dice = random.Random(4)
    for _ in range(300):
        prompt, _ = sample_scene(FRAME, dice)
        latin = "".join(sign for sign in prompt if sign.isascii())
        assert 2 not in tokenizer(latin).input_ids, latin


def test_chinese_of_the_world_is_known_and_other_signs_are_unknown() -> None:
    tokenizer = make_tokenizer()
    for group in (CHINESE_CAMERA, CHINESE_MOTIONS, CHINESE_SHAPES):
        for phrase in (phrase for phrases in group.values() for phrase in phrases):
            assert 2 not in tokenizer(phrase).input_ids, phrase
    assert all(2 not in tokenizer(word).input_ids for word in CHINESE_COLORS.values())
    assert 2 in tokenizer("猫").input_ids


def test_case_and_punctuation_do_not_matter() -> None:
    tokenizer = make_tokenizer()
    assert tokenizer("The Camera, pans LEFT!").input_ids == tokenizer("the camera pans left").input_ids
    assert set(CAMERA) == set(CHINESE_CAMERA)
