"""Weights that visit the device: what is where, and when."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.architectures import by_name, inputs_for
from wanreel.core.cancel import CancelToken
from wanreel.core.placement import Placement
from wanreel.models.offload import BlockStream, GuestRoom, ModuleGuest, Pace
from wanreel.models.tiny import build_tiny

CPU = torch.device("cpu")


def blocks(count: int) -> list[nn.Sequential]:
    torch.manual_seed(0)
    made = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval() for _ in range(count)]
    made[-1].append(nn.Linear(8, 8, dtype=torch.float64))  # blocks need not be alike
    return made


def addresses(module: nn.Module) -> set[int]:
    return {parameter.data_ptr() for parameter in module.parameters()}


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_walk_yields_each_block_with_its_own_weights(count: int) -> None:
    made = blocks(count)
    before = [{key: value.clone() for key, value in block.state_dict().items()} for block in made]
    stream = BlockStream(made, CPU)
    stream.enter()
    for _ in range(3):
        for block, kept in zip(stream.walk(), before, strict=True):
            state = block.state_dict()
            assert all(torch.equal(state[key], kept[key]) for key in kept)


def test_at_most_two_blocks_are_on_the_device() -> None:
    made = blocks(5)
    home = [addresses(block) for block in made]
    stream = BlockStream(made, CPU)
    stream.enter()
    for index, _ in enumerate(stream.walk()):
        assert addresses(made[index]) != home[index]
        assert sum(addresses(block) != kept for block, kept in zip(made, home, strict=True)) <= 2
    stream.leave()
    assert [addresses(block) for block in made] == home


@pytest.mark.parametrize("stop", [0, 1, 2, 4])
def test_an_abandoned_walk_can_be_walked_again(stop: int) -> None:
    made = blocks(5)
    kept = [block.get_parameter("0.weight").clone() for block in made]
    stream = BlockStream(made, CPU)
    stream.enter()
    for index, _ in enumerate(stream.walk()):
        if index == stop:
            break
    for block, weight in zip(stream.walk(), kept, strict=True):
        assert torch.equal(block.get_parameter("0.weight"), weight)


def test_slots_hold_two_of_the_largest_block() -> None:
    made = blocks(4)
    largest = max(sum(tensor.nbytes for tensor in block.state_dict().values()) for block in made)
    stream = BlockStream(made, CPU)
    assert 2 * largest <= stream.device_bytes < 2 * (largest + 10 * 256)


def test_walking_before_entering_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="enter"):
        next(BlockStream(blocks(2), CPU).walk())


def test_a_module_comes_home_to_the_same_memory() -> None:
    module = nn.Linear(4, 4)
    home, weight = addresses(module), module.weight.detach().clone()
    guest = ModuleGuest(module, CPU)
    guest.enter()
    assert not addresses(module) & home
    assert torch.equal(module.weight, weight)
    module.weight.data.fill_(7.0)  # what is on the device is never copied back
    guest.leave()
    assert addresses(module) == home
    assert torch.equal(module.weight, weight)


class Visitor:
    def __init__(self, name: str, log: list[str], fails: bool = False) -> None:
        self.name, self.log, self.fails = name, log, fails

    def enter(self) -> None:
        self.log.append(f"+{self.name}")
        if self.fails:
            raise torch.OutOfMemoryError("full")

    def leave(self) -> None:
        self.log.append(f"-{self.name}")


def test_a_room_has_one_guest() -> None:
    log: list[str] = []
    room, first, second = GuestRoom(), Visitor("a", log), Visitor("b", log)
    for guest in (first, first, second):
        room.admit(guest)
    room.clear()
    room.clear()
    assert log == ["+a", "-a", "+b", "-b"]


def test_a_guest_that_does_not_fit_leaves_nothing_behind() -> None:
    log: list[str] = []
    room, big, small = GuestRoom(), Visitor("big", log, fails=True), Visitor("small", log)
    with pytest.raises(torch.OutOfMemoryError):
        room.admit(big)
    room.admit(small)
    assert log == ["+big", "-big", "+small"]


def test_parts_take_turns() -> None:
    """With the exclusive plan the text encoder, the experts and the VAE are never there together."""
    model = build_tiny(by_name("t2v-a14b"), placement=Placement("exclusive"))
    log: list[str] = []
    room = model._room
    admit = room.admit

    def noted(guest: object) -> None:
        log.append(type(guest).__name__)
        admit(guest)  # type: ignore[arg-type]

    room.admit = noted  # type: ignore[method-assign]
    given = inputs_for(model)
    with model.resident("text_encoder") as encoder:
        assert encoder is model.text_encoder
        visitor = room._guest
        assert visitor is not None
    assert room._guest is visitor  # it stays until another part comes: the next run may want it too
    for timestep in (900.0, 100.0):
        model.expert_at(timestep).predict(given.latents, given.timestep, given.text, None, CancelToken())
    assert room._guest is model.experts[1].guest
    with model.resident("vae"):
        assert room._guest is not model.experts[1].guest
    model.vacate()
    assert room._guest is None
    assert len(log) == 4


def test_an_absent_part_is_named() -> None:
    model = build_tiny(by_name("t2v-14b"))
    with pytest.raises(ValueError, match="image_encoder"), model.resident("image_encoder"):
        pass


@pytest.mark.parametrize("plan", ["resident", "streamed"])
def test_unload_frees_every_weight(plan: str) -> None:
    model = build_tiny(by_name("i2v-14b-480p"), placement=Placement(plan))  # type: ignore[arg-type]
    given = inputs_for(model)
    model.experts[0].predict(given.latents, given.timestep, given.text, given.image, CancelToken())
    model.unload()
    assert model.image_encoder is not None
    for module in (model.text_encoder, model.image_encoder, model.vae, model.experts[0].transformer):
        assert {parameter.device.type for parameter in module.parameters()} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("plan", ["exclusive", "streamed"])
def test_guests_give_their_gpu_memory_back(plan: str) -> None:
    before = torch.cuda.memory_allocated()
    model = build_tiny(by_name("t2v-a14b"), device="cuda", placement=Placement(plan, pinned=True))  # type: ignore[arg-type]
    assert torch.cuda.memory_allocated() == before
    given = inputs_for(model)
    for expert in model.experts:
        expert.predict(given.latents, given.timestep, given.text, None, CancelToken())
    with model.resident("vae") as vae:
        assert {parameter.device.type for parameter in vae.parameters()} == {"cuda"}
    model.vacate()
    assert torch.cuda.memory_allocated() == before
    model.unload()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_host_stays_two_launches_ahead() -> None:
    device = torch.device("cuda")
    pace, weight = Pace(device), torch.randn(4096, 4096, device=device)
    finished = [torch.cuda.Event() for _ in range(12)]
    for index, event in enumerate(finished):
        for _ in range(8):
            weight = torch.nn.functional.normalize(weight @ weight)
        event.record()
        pace.launched()
        assert all(earlier.query() for earlier in finished[: max(0, index - 1)])
