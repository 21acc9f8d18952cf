"""Reports of `wanreel bench`: their arithmetic, their table, and what of them is shared; operations are counted right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch.utils.flop_counter import FlopCounterMode

from wanreel.core.bench import BenchMachine, BenchReport, Figure, Subject
from wanreel.core.catalog import Catalog
from wanreel.core.vae_work import decode_operations, encode_operations
from wanreel.models.components import VAE_22

MACHINE = BenchMachine("Card", 24.0, 8, 8, "Linux x86_64", "3.12", "2.11", "0.42", "13.0", 91900, "cudnn")
SUBJECT = Subject("t2v-1.3b", "random", "fast", "text", 832, 480, 81, 4, 2, "resident")
FIGURES = (
    Figure("step", 2.0, teraflop=800.0, peak_gib=12.34, ratio=0.5, error=0.0123),
    Figure("load", 0.5, note="from disk"),
)
REPORT = BenchReport("1.0", "2026-01-01T00:00:00+00:00", MACHINE, SUBJECT, 800.0, FIGURES, ("a note",))


def test_rates_and_floors_are_of_the_same_arithmetic() -> None:
    assert FIGURES[0].rate() == 400.0
    assert FIGURES[0].of_floor(800.0) == 2.0
    assert FIGURES[1].rate() is None
    assert FIGURES[1].of_floor(800.0) is None


def test_the_table_leaves_out_columns_that_nobody_fills() -> None:
    head, step, load = REPORT.rows()
    assert head == ["", "s", "TFLOP/s", "of floor", "peak GiB", "error", "of Diffusers", ""]
    assert step == ["step", "2.00", "400", "2.00", "12.3", "0.012", "0.50", ""]
    assert load == ["load", "0.50", "", "", "", "", "", "from disk"]
    plain = BenchReport("1.0", "", MACHINE, SUBJECT, 800.0, (Figure("load", 0.5),))
    assert plain.rows() == [["", "s"], ["load", "0.50"]]


def test_what_is_shared_says_nothing_of_when() -> None:
    shared = REPORT.shared()
    assert shared.keys() == REPORT.to_dict().keys() - {"when"}
    assert "2026" not in json.dumps(shared)


@pytest.mark.parametrize(
    ("name", "config", "stride"),
    [("t2v-1.3b", {}, 8), pytest.param("ti2v-5b", VAE_22, 16, marks=pytest.mark.deep)],
)
def test_the_vaes_operations_are_those_that_torch_counts(name: str, config: Mapping[str, Any], stride: int) -> None:
    spec, width, height, frames = Catalog().get(name), 160, 96, 9
    with torch.device("meta"), torch.no_grad():
        vae = AutoencoderKLWan(**config).eval()
        latents = torch.empty(1, spec.latent_channels, 3, height // stride, width // stride)
        with FlopCounterMode(display=False) as decoding:
            vae.decode(latents)
        with FlopCounterMode(display=False) as encoding:
            vae.encode(torch.empty(1, 3, frames, height, width))
    assert decode_operations(spec, width, height, frames) == pytest.approx(decoding.get_total_flops(), rel=1e-3)
    assert encode_operations(spec, width, height, frames) == pytest.approx(encoding.get_total_flops(), rel=1e-3)
