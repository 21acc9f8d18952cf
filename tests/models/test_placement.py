"""Which plan is chosen for which machine."""

from __future__ import annotations

import pytest

from wanreel.models.placement import GIB, choose_placement

A14B = {"text_encoder": 11.4, "vae": 0.5, "transformer": 28.6, "transformer_2": 28.6}
TI2V = {"text_encoder": 11.4, "vae": 2.8, "transformer": 10.0}
SMALL = {"text_encoder": 11.4, "vae": 0.5, "transformer": 2.8}


def sizes(parts: dict[str, float]) -> dict[str, int]:
    return {name: int(gib * GIB) for name, gib in parts.items()}


@pytest.mark.parametrize(
    ("parts", "card", "plan"),
    [
        (A14B, 139, "resident"),
        (A14B, 79, "exclusive"),
        (A14B, 47, "exclusive"),
        (A14B, 23.5, "streamed"),
        (A14B, 15.5, "streamed"),
        (TI2V, 47, "resident"),
        (TI2V, 23.5, "exclusive"),
        (TI2V, 39.5, "exclusive"),  # all of it would fit beside a step, but not beside the decoder
        (SMALL, 47, "resident"),
        (SMALL, 31, "exclusive"),
        (SMALL, 23.5, "exclusive"),
    ],
)
def test_plan_by_card(parts: dict[str, float], card: float, plan: str) -> None:
    assert choose_placement(sizes(parts), int(card * GIB), 64 * GIB).plan == plan


@pytest.mark.parametrize(("host", "pinned"), [(128, True), (64, False)])
def test_blocks_are_pinned_when_the_host_has_room(host: int, pinned: bool) -> None:
    assert choose_placement(sizes(A14B), 23 * GIB, host * GIB).pinned == pinned


@pytest.mark.parametrize(("card", "tiled"), [(23.5, False), (15.5, True), (139, False)])
def test_small_cards_decode_in_tiles(card: float, tiled: bool) -> None:
    assert choose_placement(sizes(A14B), int(card * GIB), 128 * GIB).vae_tiling == tiled
