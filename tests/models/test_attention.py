"""What is said of attention kernels."""

from __future__ import annotations

import pytest

from wanreel.models.attention import attention_facts, hopper_warning, torch_release


@pytest.mark.parametrize(
    ("capability", "release", "warned"),
    [((9, 0), (2, 10), True), ((9, 0), (2, 11), False), ((9, 0), (3, 0), False), ((8, 9), (2, 9), False)],
)
def test_only_an_old_torch_on_hopper_is_warned_of(
    capability: tuple[int, int], release: tuple[int, int], warned: bool
) -> None:
    assert bool(hopper_warning(capability, release)) == warned


def test_facts_without_a_gpu() -> None:
    facts = attention_facts("cpu")
    assert (facts.device, facts.expected, facts.warning) == ("cpu", "cpu", "")
    assert facts.to_dict()["torch"].startswith("{}.{}.".format(*torch_release()))
