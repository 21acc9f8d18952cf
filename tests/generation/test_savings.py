"""Turbo leaves out steps that the steps before foretell, the same ones after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from generation.factory import Case, make_case
from wanreel.generation.checkpoint import CheckpointStore, Identity, request_fingerprint
from wanreel.generation.denoise import denoise
from wanreel.generation.savings import FEWEST, IN_A_ROW, Savings

A, B = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])


def at(sigma: float) -> Tensor:
    """A velocity on a line."""
    return A + sigma * B


def run(savings: Savings, velocity: object = at, kinds: tuple[int, ...] = (0,) * 20) -> str:
    """A step each, "c" for computed and "f" for foretold."""
    said = ""
    for index in range(savings.total):
        sigma = 1 - index / savings.total
        found = savings.foretold(index, sigma, kinds[index])
        said += "c" if found is None else "f"
        if found is None:
            savings.learn(sigma, velocity(sigma), kinds[index])  # type: ignore[operator]
        else:
            torch.testing.assert_close(found, at(sigma))
    return said


def test_a_line_is_foretold_but_for_the_first_steps_and_the_last() -> None:
    said = run(Savings(20))
    assert said == "ccccfffcfffcfffcfffc"
    assert "f" * (IN_A_ROW + 1) not in said


def test_what_bends_is_computed() -> None:
    draw = torch.Generator().manual_seed(0)
    assert run(Savings(20), lambda sigma: torch.randn(2, generator=draw)) == "c" * 20


def test_after_a_change_of_expert_everything_is_learnt_anew() -> None:
    assert run(Savings(20), kinds=(0,) * 10 + (1,) * 10) == "ccccfffcffcccfffcffc"


def test_few_steps_are_all_computed() -> None:
    assert run(Savings(FEWEST - 1)) == "c" * (FEWEST - 1)


def turbo(steps: int = 20) -> Case:
    case = make_case("t2v-14b", num_inference_steps=steps)
    return replace(case, request=replace(case.request, compute="turbo"))


def test_a_resumed_run_leaves_out_the_same_steps(tmp_path: Path) -> None:
    case, store = turbo(), CheckpointStore(tmp_path)
    identity = Identity("job", 0, request_fingerprint(case.request), (1.0, 0.0), "")
    conditioning = case.encode()
    states = list(denoise(case.model(), conditioning, case.request))
    left_out = [state.foretold for state in states]
    assert 4 <= sum(left_out) == states[-1].savings.scalars["left_out"]
    for at_step in (6, 9, 14):
        store.save(identity, states[at_step - 1])
        restored = store.latest(identity).state
        assert restored is not None and restored.step == at_step
        rest = list(denoise(case.fresh_model(), conditioning, case.request, restored))
        assert [state.foretold for state in rest] == left_out[at_step:]
        assert torch.equal(rest[-1].latents, states[-1].latents)
        moved = states[at_step - 1].to(torch.device("cpu"))
        again = list(denoise(case.model(), conditioning, case.request, moved))
        assert torch.equal(again[-1].latents, states[-1].latents)


def test_exact_leaves_out_nothing_and_is_known_as_before() -> None:
    case = turbo(10)
    exact = replace(case.request, compute="exact")
    states = list(denoise(case.model(), case.encode(), exact))
    assert not any(state.foretold for state in states)
    assert states[-1].savings.tensors == {}
    assert request_fingerprint(exact) != request_fingerprint(case.request)


@pytest.mark.deep
def test_turbo_on_trained_weights() -> None:
    """The demo model, 20 steps: at least 0.4 of them left out, final latents within 0.10 (docs/speed.md)."""
    from wanreel import demo
    from wanreel.core.cancel import CancelToken
    from wanreel.core.catalog import Catalog
    from wanreel.core.request import VideoRequest
    from wanreel.core.resolve import Defaults, resolve
    from wanreel.generation.encode import Pictures, encode
    from wanreel.models.load import load_model

    catalog = Catalog()
    asked = VideoRequest(prompt="a red ball bounces", model="demo", seed=3, num_inference_steps=20)
    request = resolve(asked, catalog, Defaults({}, frozenset({"demo"}))).request
    model = load_model(catalog.get("demo"), demo.weights_path())
    conditioning = encode(model, request, Pictures(None, None), CancelToken())
    whole, short = (
        list(denoise(model, conditioning, replace(request, compute=compute)))[-1] for compute in ("exact", "turbo")
    )
    assert short.savings.scalars["left_out"] >= 8
    assert torch.linalg.vector_norm(short.latents - whole.latents) < 0.10 * torch.linalg.vector_norm(whole.latents)
