"""One video on several ranks, over gloo: to the bit what one process makes where that holds, and never a hang."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from generation.factory import ARCHITECTURES, Case, make_case
from models.lora_files import RandomLora
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Mode
from wanreel.core.errors import Cancelled, DeviceFault, OutOfMemory, WanreelError
from wanreel.core.lora import ResolvedLora
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement, Precision
from wanreel.core.settings import load_settings
from wanreel.generation.decode import Decoding
from wanreel.generation.denoise import denoise
from wanreel.generation.environment import environment_of
from wanreel.generation.state import DenoiseState
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.parallel import crew
from wanreel.models.parallel.crew import Crew, Losses
from wanreel.models.parallel.lead import Lead
from wanreel.models.parallel.opening import CrewOpener
from wanreel.models.parallel.rank import Rank
from wanreel.models.parallel.wire import Wire
from wanreel.models.pool import ModelPool
from wanreel.models.ranks.mesh import Meshes, part
from wanreel.models.step.path import Compiler, Manner, StepPath
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear
from wanreel.storage.digests import Digests
from wanreel.testing import build_tiny
from wanreel.wiring.ranks import rank_command, told

#: Of a ring, whose sums are added up in another order; latents are about 1.
ROUNDING = 1e-5
MULTIPLIED = Manner("torch", "torch", eight=True, compiled=False)
SILENCE = 4.0  #: seconds; busy machines starve a process for some


@dataclass
class Ranks:
    """A crew of `count`, its models, and what one process makes of the same requests."""

    crew: Crew
    root: Path
    opener: CrewOpener = field(init=False)
    _models: dict[tuple[str, Placement], WanModel] = field(default_factory=dict[Any, WanModel])
    _alone: dict[Any, torch.Tensor] = field(default_factory=dict[Any, torch.Tensor])

    def __post_init__(self) -> None:
        self.opener = CrewOpener(self.crew, lambda spec, placement: build_tiny(spec, placement=placement))

    @property
    def count(self) -> int:
        return self.crew.size

    def model(self, case: Case, parallel: Parallel, precision: Precision = "native") -> WanModel:
        """Opened on all ranks; again only where another plan needs it."""
        placement = Placement(precision=precision, parallel=parallel)
        key = (case.spec.name, placement.loading)
        if key not in self._models:
            self._models = {held: it for held, it in self._models.items() if held[0] != case.spec.name}
            model = self.opener.open(case.spec, placement)
            assert isinstance(model, WanModel)
            self._models[key] = model
        model = self._models[key]
        model.run_with(replace(model.placement, parallel=parallel))
        return model

    def shared(self, case: Case, parallel: Parallel) -> torch.Tensor:
        model = self.model(case, parallel)
        *_, last = denoise(model, case.encode(model), case.request)
        return last.latents

    def alone(self, case: Case) -> torch.Tensor:
        key = str(case.request)
        if key not in self._alone:
            *_, last = denoise(case.model(), case.encode(), case.request)
            self._alone[key] = last.latents
        return self._alone[key]


def crew_of(count: int, root: Path) -> Crew:
    settings = load_settings(data_dir=root)
    # A test's process may be starved for seconds, and is not to be ended for that.
    silence = SILENCE if count == 2 else 10 * SILENCE  # nobody stops one of four
    losses = Losses(silence=silence, guarded=False, abandon=lambda code: None)
    return Crew([rank_command("cpu")] * (count - 1), torch.device("cpu"), {"settings": told(settings)}, losses)


class Farm:
    """Ranks for all tests of the module, of one number at a time: a process is in one group of processes only."""

    def __init__(self, root: Path) -> None:
        self._root, self._open = root, dict[int, Ranks]()

    def of(self, count: int) -> Ranks:
        if count not in self._open:
            self.close()
            root = self._root / str(count)
            root.mkdir(exist_ok=True)
            self._open[count] = Ranks(crew_of(count, root), root)
        return self._open[count]

    def close(self) -> None:
        for ranks in self._open.values():
            ranks.crew.disband()
            assert ranks.crew.pids == ()
        self._open.clear()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with contextlib.closing(Farm(tmp_path_factory.mktemp("ranks"))) as farm:
        yield farm


@pytest.fixture
def two(farm: Farm) -> Ranks:
    return farm.of(2)


@pytest.fixture
def four(farm: Farm) -> Ranks:
    return farm.of(4)


def short(name: str, mode: Mode = "text", **knobs: Any) -> Case:
    return make_case(name, mode, num_inference_steps=2, **knobs)


def check(ranks: Ranks, case: Case, parallel: Parallel) -> None:
    made, alone = ranks.shared(case, parallel), ranks.alone(case)
    # A CPU adds up products of three rows of a matrix, which are all that a rank has here, otherwise than those of twelve.
    few = case.spec.name.startswith("tiny:ti2v") and parallel.sequence == 4
    if parallel.ring > 1 or few:
        torch.testing.assert_close(made, alone, rtol=0, atol=ROUNDING)
        assert not torch.equal(made, alone), "a ring that rounds like one process was not taken"
    else:
        assert torch.equal(made, alone)


@pytest.mark.parametrize("parallel", [Parallel(cfg=2), Parallel(ulysses=2)], ids=str)
@pytest.mark.parametrize(("name", "mode"), ARCHITECTURES)
def test_two_ranks_make_the_bits_of_one(two: Ranks, name: str, mode: Mode, parallel: Parallel) -> None:
    check(two, short(name, mode), parallel)


@pytest.mark.parametrize(("name", "mode"), [ARCHITECTURES[1], ARCHITECTURES[6]])
def test_a_ring_rounds_and_no_more(two: Ranks, name: str, mode: Mode) -> None:
    check(two, short(name, mode), Parallel(ring=2))


@pytest.mark.parametrize("parallel", [Parallel(cfg=2, fsdp=True), Parallel(ulysses=2, fsdp=True)], ids=str)
def test_shared_out_weights_are_the_same_weights(two: Ranks, parallel: Parallel) -> None:
    case = short("i2v-a14b", "picture")
    check(two, case, parallel)
    model = two.model(case, parallel)
    for expert in model.experts:
        block: Any = expert.transformer.blocks[0]
        whole = sum(it.numel() * it.element_size() for it in block.parameters())
        stream: Any = expert.stream
        held = stream.device_bytes - 2 * stream._nbytes
        assert held < 0.6 * whole * len(stream.blocks), "every rank holds half of each block"


def test_a_step_of_one_pass_takes_all_ranks_for_its_tokens(two: Ranks) -> None:
    """Guidance of one expert alone: its steps have two passes, the other's have one."""
    check(two, make_case("t2v-a14b", num_inference_steps=4, guidance_high=4.0, guidance_low=1.0), Parallel(cfg=2))


def test_portions_of_tokens_too(two: Ranks) -> None:
    case = short("i2v-14b-480p", "picture")
    model = two.model(case, Parallel(ulysses=2))
    plain = two.shared(case, Parallel(ulysses=2))
    model.run_with(replace(model.placement, rows=5))
    assert torch.equal(two.shared(case, Parallel(ulysses=2)), plain)
    assert torch.equal(plain, two.alone(case))


def test_our_own_path_of_a_step(two: Ranks) -> None:
    case = short("t2v-1.3b")
    one, shared = build_tiny(case.spec), two.model(case, Parallel(ulysses=2))
    try:
        for model in (one, shared):
            for expert in model.experts:
                expert.step = StepPath(expert, Manner("torch", "torch", compiled=False))
        *_, alone = denoise(one, case.encode(one), case.request)
        assert torch.equal(two.shared(case, Parallel(ulysses=2)), alone.latents)
    finally:
        for expert in shared.experts:
            expert.step = None


@pytest.mark.deep
@pytest.mark.parametrize("parallel", [Parallel(ulysses=2), Parallel(ring=2), Parallel(ulysses=2, fsdp=True)], ids=str)
def test_compiled_as_a_whole(two: Ranks, parallel: Parallel) -> None:
    """Without a break: exchanges are part of the graph."""
    case = short("t2v-1.3b")
    model = two.model(case, parallel)
    compiler = Compiler("aot_eager")
    for expert in model.experts:
        expert.step = StepPath(expert, Manner("torch", "torch"), compiler)
    try:
        made = two.shared(case, parallel)
    finally:
        for expert in model.experts:
            expert.step = None
    assert compiler.compilations and not compiler.failure
    torch.testing.assert_close(made, two.alone(case), rtol=0, atol=ROUNDING)


def dressed_in(case: Case, root: Path) -> tuple[Case, LoraShelf]:
    """The same request with a LoRA, and the shelf where it lies."""
    shelf = LoraShelf(load_settings(data_dir=root).adapters_dir, Digests(root / "digests.json"))
    RandomLora.of(case.model().experts[0].transformer).save(shelf.root / "style.safetensors")
    lora = ResolvedLora("style", shelf.sha256(shelf.get("style")), 0.8, 0.8, rank=4)
    return Case(case.spec, replace(case.request, loras=(lora,)), case.pictures), shelf


@pytest.mark.parametrize("parallel", [Parallel(cfg=2), Parallel(ulysses=2, fsdp=True)], ids=str)
def test_fp8_and_loras_together(two: Ranks, parallel: Parallel) -> None:
    """Stored in fp8 and multiplied in fp8, as far as a CPU emulates it: a token's scale is its own, whoever has it."""
    case, shelf = dressed_in(short("t2v-1.3b"), two.root)
    one, shared = build_tiny(case.spec, placement=Placement(precision="fp8")), two.model(case, parallel, "fp8")
    made: dict[str, list[torch.Tensor]] = {}
    for way, manner in (("stored", None), ("multiplied", MULTIPLIED), ("apart", replace(MULTIPLIED, middles=True))):
        for model in (one, shared):
            wear(model, case.request.loras, 2, shelf)
            for expert in model.experts:
                expert.step = manner and StepPath(expert, manner)
            *_, last = denoise(model, case.encode(model), case.request)
            made.setdefault(way, []).append(last.latents)
    assert torch.equal(*made["stored"]) and torch.equal(*made["multiplied"])
    assert not torch.equal(made["stored"][0], made["multiplied"][0]), "the inputs are rounded too"
    # What all tokens have in common is what those of a rank have in common there: it is taken out either way.
    alone, split = made["apart"]
    error = float((split - alone).norm() / alone.norm())
    assert error == 0 if parallel.sequence == 1 else 0 < error < 0.02
    wear(shared, (), 2, shelf)


def test_loras_are_worn_by_every_rank(two: Ranks) -> None:
    case = short("t2v-1.3b")
    plain = two.alone(case)
    dressed, shelf = dressed_in(case, two.root)
    one, shared = build_tiny(case.spec), two.model(case, Parallel(ulysses=2))
    for model in (one, shared):
        wear(model, dressed.request.loras, 2, shelf)
    *_, alone = denoise(one, case.encode(one), dressed.request)
    *_, made = denoise(shared, case.encode(shared), dressed.request)
    assert torch.equal(made.latents, alone.latents) and not torch.equal(made.latents, plain)
    wear(shared, (), 2, shelf)
    assert torch.equal(two.shared(case, Parallel(ulysses=2)), plain)


def test_a_cancelled_step_leaves_all_ranks_as_they_were(two: Ranks) -> None:
    case = short("i2v-a14b", "picture")
    model, token = two.model(case, Parallel(ulysses=2)), CancelToken()
    conditioning, told_so = case.encode(model), []
    tell = two.crew.tell

    def cancel_at_the_second_block(message: Any) -> None:
        if "go" in message:
            told_so.append(message["go"])
        tell(message)
        if len(told_so) == 1:
            token.cancel()

    two.crew.tell = cancel_at_the_second_block  # type: ignore[method-assign]
    try:
        with pytest.raises(Cancelled):
            list(denoise(model, conditioning, case.request, cancel=token))
    finally:
        del two.crew.tell
    assert told_so == [True, False], "the second block was not computed"
    assert two.crew.gathered
    check(two, case, Parallel(ulysses=2))


@pytest.mark.parametrize("parallel", [Parallel(cfg=2), Parallel(ulysses=2), Parallel(ring=2)], ids=str)
def test_a_state_goes_on_on_any_number_of_ranks(two: Ranks, parallel: Parallel) -> None:
    case = make_case("t2v-1.3b", num_inference_steps=4)
    states: list[DenoiseState] = list(denoise(case.model(), case.encode(), case.request))
    model = two.model(case, parallel)
    *_, last = denoise(model, case.encode(model), case.request, start=states[1])
    exact = parallel.ring == 1
    assert torch.equal(last.latents, states[-1].latents) == exact
    named = {name for name, value in environment_of(model).items() if environment_of(case.model()).get(name) != value}
    assert named == (set() if parallel.sequence == 1 else {"parallel"}), "what may round otherwise is named"


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", ["t2v-1.3b", "ti2v-5b"])
def test_bands_of_a_frame_are_the_frame(two: Ranks, name: str, lean: bool) -> None:
    case = short(name)
    model = two.model(case, Parallel(ulysses=two.count))
    latents = torch.randn(case.encode().shape, generator=torch.Generator().manual_seed(0))
    alone = np.concatenate(list(Decoding(case.model(), latents, lean=lean)))
    shared = np.concatenate(list(Decoding(model, latents, lean=lean)))
    # Convolutions over another height may add up in another order: at most the last of 255 levels, and seldom.
    difference = np.abs(alone.astype(int) - shared.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert len(np.unique(alone)) > 50, "a picture with something in it"


def test_frames_that_nobody_takes_are_not_decoded(two: Ranks) -> None:
    case = short("t2v-1.3b")
    model = two.model(case, Parallel(ulysses=2))
    latents = torch.randn(case.encode().shape, generator=torch.Generator().manual_seed(0))
    frames = iter(Decoding(model, latents))
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    assert two.crew.gathered
    check(two, case, Parallel(ulysses=2))


def test_bands_need_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other ranks are not told of the plan of a run that is decoded alone, and each waits where it makes a group."""
    monkeypatch.setattr(dist, "new_group", lambda *given, **more: pytest.fail("nobody else makes this group"))
    alone = Crew([[]] * 3, torch.device("cpu"))
    alone._meshes = Meshes(0, 4)
    bands = Lead(alone, "m", Parallel(cfg=2, ulysses=2)).bands(torch.zeros(1, 16, 3, 9, 8))
    assert bands is not None and bands.rows == (3, 2, 2, 2)


@pytest.mark.deep
def test_four_ranks_decode_before_they_predict(four: Ranks) -> None:
    """As for a video that was denoised before; no circle of the plan but everybody's was made yet."""
    case = short("t2v-1.3b")
    model = four.model(case, Parallel(cfg=2, ulysses=2))
    latents = torch.randn(case.encode().shape, generator=torch.Generator().manual_seed(0))
    assert sum(len(chunk) for chunk in Decoding(model, latents)) == case.request.num_frames
    assert [made.parallel for made in four.crew._joined._made.values()] == []
    check(four, case, Parallel(cfg=2, ulysses=2))


@pytest.mark.deep
@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize(
    ("cfg", "ulysses", "ring"), [(2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2), (1, 1, 4)], ids=lambda it: str(it)
)
@pytest.mark.parametrize(("name", "mode"), ARCHITECTURES)
def test_four_ranks(four: Ranks, name: str, mode: Mode, cfg: int, ulysses: int, ring: int, fsdp: bool) -> None:
    """Two heads on four Ulysses ranks are filled up to four; 24 tokens and less divide or do not."""
    check(four, short(name, mode), Parallel(cfg, ulysses, ring, fsdp))


@pytest.mark.deep
@pytest.mark.parametrize("lean", [False, True])
def test_four_bands(four: Ranks, lean: bool) -> None:
    test_bands_of_a_frame_are_the_frame(four, "t2v-1.3b", lean)


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(signal.SIGSTOP, id="SIGSTOP"),
        pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.deep),  # needs another crew
    ],
)
def test_a_lost_rank_is_told_of_in_seconds(two: Ranks, stop: signal.Signals) -> None:
    """Last, as it ends the crew."""
    case = make_case("t2v-1.3b", num_inference_steps=100)
    if not two.crew.gathered:
        two._models.clear()
    model = two.model(case, Parallel(ulysses=2))
    conditioning, (pid,) = case.encode(model), two.crew.pids
    began, lost = threading.Event(), []

    def lose() -> None:
        began.wait()
        lost.append(time.monotonic())
        os.kill(pid, stop)

    threading.Thread(target=lose).start()
    with pytest.raises(DeviceFault, match=r"Rank 1 (gave no sign of life|ended)"):
        for state in denoise(model, conditioning, case.request):
            if state.step == 2:
                began.set()
    assert time.monotonic() - lost[0] < 15
    assert not two.crew.gathered
    two.crew.disband()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_is_stuck_in_an_exchange_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether anybody is seen to wait or not, where NCCL may: its kernels wait for ever for a rank that is gone."""
    monkeypatch.setattr(crew, "_LAST_RESORT", 0.1)
    codes: list[int] = []
    over, ends = threading.Event(), Losses(abandon=codes.append)
    patient = Crew([], torch.device("cpu"), losses=ends)
    with patient.exchanging():
        patient._release(over)
    assert codes == [crew.REPLACE]
    patient._release(over)
    assert codes == [crew.REPLACE], "not where nobody waits"
    lost = Crew([], torch.device("cuda:0"), losses=ends)
    lost._release(over)
    assert codes == [crew.REPLACE] * 2
    over.set()
    lost._release(over)
    assert codes == [crew.REPLACE] * 2, "not where the process ends by itself"
    lost._fault = DeviceFault("Rank 1 ended.")
    with pytest.raises(DeviceFault, match="Another process goes on"):
        lost.gather()


class Standing:
    """A process that stands still."""

    pid, returncode = 0, None

    def poll(self) -> None:
        """It has not ended."""

    def kill(self) -> None:
        self.returncode = -9


def crew_with(*answers: dict[str, Any], losses: Losses | None = None, device: str = "cpu") -> Crew:
    """Whose ranks have answered so."""
    made = Crew([[]] * len(answers), torch.device(device), losses=losses)
    for number, answer in enumerate(answers, 1):
        rank = crew._Rank(number, Standing(), Wire(io.BytesIO(), io.BytesIO()), time.monotonic())  # type: ignore[arg-type]
        rank.answers.put(answer)
        made._ranks.append(rank)
    return made


def test_a_rank_whose_memory_runs_out_while_it_loads_stays() -> None:
    """All answers are taken, so that none is taken for the next one's; an error that ends a rank ends all."""
    no_room = {"error": "no room", "code": "out_of_memory", "goes_on": True}
    made = crew_with({"done": True}, no_room, {"done": True})
    with pytest.raises(OutOfMemory, match="Rank 2: no room"):
        made.answered()
    assert made._fault is None and all(rank.answers.empty() for rank in made._ranks)
    broken = crew_with(no_room, {"error": "a bug", "code": "device_fault"})
    with pytest.raises(OutOfMemory):
        broken.answered()
    assert broken._fault is not None
    opening = Rank(Wire(io.BytesIO(), io.BytesIO()), {}, torch.device("cpu"), lambda name, placement: no_memory())
    opening._models["m"] = build_tiny(short("t2v-1.3b").spec)
    answer = opening._open({"model": "m", "placement": Placement().to_dict()})
    assert answer["goes_on"] and answer["code"] == "out_of_memory" and not opening._models


def no_memory() -> WanModel:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_last_words_say_what_a_rank_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between GPUs nobody awaits the answer of a rank that met an error in an exchange: the exchange never ends."""
    monkeypatch.setattr(crew, "_LAST_RESORT", 0.1)
    words: list[WanreelError] = []
    losses = Losses(guarded=False, last_words=words.append, abandon=lambda code: over.set())
    over = threading.Event()
    lost = crew_with({"done": True}, losses=losses, device="cuda:0")
    lost._ranks[0].said, lost._ranks[0].code, lost._ranks[0].ended = "no room", "out_of_memory", True
    lost._look(over)
    (found,) = words
    assert isinstance(found, OutOfMemory) and found.message == "Rank 1: no room"
    run, planned = object(), list[Any]()
    pool = ModelPool(lambda spec, placement: build_tiny(spec), SimpleNamespace(ran_out=lambda *it: planned.append(it)))  # type: ignore[arg-type]
    pool.last_words()
    pool.trying(run, run, run, lambda: "denoise")  # type: ignore[arg-type]
    assert planned == [], "nothing has happened yet"
    pool.last_words()
    assert planned == [(run, run, run, "denoise")]


def test_what_a_rank_met_is_told_though_nothing_breaks() -> None:
    """Of an exchange over gloo that does not break by itself, as making a group waits at a file and at no connection."""
    lost = crew_with({"done": True})
    (rank,) = lost._ranks
    rank.said, rank.ended = "no such expert", True
    with lost.exchanging():
        assert lost._wrong(rank) is None, "the exchange may still tell it"
        rank.heard -= 2 * crew._TELLING
        fault = lost._wrong(rank)
    assert isinstance(fault, DeviceFault) and fault.message == "Rank 1: no such expert"
    assert lost._wrong(rank) is None, "nobody waits"


def test_a_group_that_does_not_let_go_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", let_go.wait)
    began = time.monotonic()
    part(patience=0.1)
    assert time.monotonic() - began < 5
    let_go.set()


@pytest.mark.deep
def test_what_a_rank_can_t_do_is_told_by_rank_0(two: Ranks) -> None:
    """An error of the rank's, in its own class; then the ranks are started anew."""
    if not two.crew.gathered:
        two.crew.gather()
    with pytest.raises(WanreelError, match="Rank 1: .*nothing"):
        two.crew.ask({"do": "nothing"})
    assert not two.crew.gathered
