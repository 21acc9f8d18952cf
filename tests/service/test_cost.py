"""Costs: told where the operator has named a price, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wanreel.core.settings import load_settings
from worker.bench import Bench


def test_a_price_gives_costs_and_none_gives_none(bench: Bench) -> None:
    assert bench.service.cost(3600.0) is None
    priced = replace(bench.service, gpu_price_per_hour=2.0)
    assert priced.cost(1800.0) == 1.0
    assert priced.cost(None) is None
    assert replace(bench.service, gpu_price_per_hour=0.0).cost(60.0) == 0.0


def test_the_setting(tmp_path: Path) -> None:
    assert load_settings(data_dir=tmp_path).gpu_price_per_hour is None
    assert load_settings(data_dir=tmp_path, gpu_price_per_hour=2.5).gpu_price_per_hour == pytest.approx(2.5)
