"""The doctor names what is wrong and the cure, on machines that are not this one."""

from __future__ import annotations

from pathlib import Path

import pytest

import wanreel.doctor
from wanreel.core.settings import Settings
from wanreel.doctor import Finding, diagnose
from wanreel.models import machine
from wanreel.models.machine import Gpu, MachineFacts

H200 = Gpu(0, "NVIDIA H200", 141 * 10**9, 140 * 10**9, (9, 0))
OLDER = Gpu(0, "NVIDIA A100", 80 * 10**9, 79 * 10**9, (8, 0))


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in diagnose(settings)}


def on(monkeypatch: pytest.MonkeyPatch, torch: str, *gpus: Gpu, cuda: str | None = "13.0") -> None:
    monkeypatch.setattr(machine, "machine_facts", lambda: MachineFacts("3.12", torch, cuda, 91900, gpus))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", device="cpu")


@pytest.mark.parametrize(
    ("torch", "gpu", "warned"),
    [("2.9.1+cu128", H200, True), ("2.10.0", H200, True), ("2.11.0+cu130", H200, False), ("2.9.1", OLDER, False)],
)
def test_slow_attention_on_hopper(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, torch: str, gpu: Gpu, warned: bool
) -> None:
    on(monkeypatch, torch, gpu)
    found = findings(settings)
    assert ("attention" in found) == warned
    if warned:
        assert "2.11" in found["attention"].cure


def test_a_driver_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    on(monkeypatch, "2.11.0+cu130")
    assert findings(settings)["GPU"].cure == "Check the NVIDIA driver."
    on(monkeypatch, "2.11.0+cpu", cuda=None)
    assert "CUDA build" in findings(settings)["GPU"].cure


def test_a_device_that_is_not_there(settings: Settings) -> None:
    found = findings(settings.model_copy(update={"device": "cuda:7"}))
    assert found["device"].status == "broken"
    assert "cuda:7" in found["device"].text


def test_a_full_disk_and_a_network_disk(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(wanreel.doctor, "free_bytes", lambda path: 10**9)
    monkeypatch.setattr(wanreel.doctor, "is_network_filesystem", lambda path: True)
    told = [finding for finding in diagnose(settings) if finding.subject == "data"]
    assert [finding.status for finding in told] == ["warning", "warning"]
    assert any("local disk" in finding.cure for finding in told)


def test_a_sound_machine_has_nothing_broken(settings: Settings) -> None:
    assert not [finding for finding in diagnose(settings) if finding.status == "broken"]
