"""What the server tells of itself, its workers and the last minutes; figures and plans that follow from real runs."""

from __future__ import annotations

import re
import time

import psutil
import pytest

from frontends.http.places import Open, Place
from wanreel.core.job import Job
from wanreel.core.measures import Measures
from wanreel.core.sample import GpuSample, Sample
from wanreel.frontends.http import pulse as pulses
from wanreel.frontends.http.metrics import Metrics
from wanreel.jobs import Liveness

GIB = 2**30
GPU = GpuSample("NVIDIA Test", "570.1", 55.0, 79 * GIB, 80 * GIB, 41)
RUN = Measures("cuda:0 NVIDIA Test", 4, 10.0, 1.0, 8.0, 1.5, 0.5)
QUICK = {"num_inference_steps": 4, "num_frames": 5, "seed": 1}


def sample(at: float | None = None, model: str = "") -> Sample:
    when = time.time() if at is None else at
    return Sample(when, 12.5, 4 * GIB, 16 * GIB, GIB, 100 * GIB, 200 * GIB, "cuda:0", model, GPU)


def run(place: Place, measures: Measures = RUN) -> Job:
    place.submit(**QUICK)
    job = place.hand.claim()
    place.app.house.pulse.look()
    for step in range(1, measures.steps + 1):
        place.hand.step(job, step, measures.steps)
    place.hand.leases.measure(job.id, job.attempt, measures)
    place.hand.leases.complete(job.id, job.attempt, "00", seconds=21.0)
    return job


def forget(place: Place) -> None:
    """Let the estimator read its history anew at once, and not after some seconds."""
    place.service.estimator.__init__(place.service.store)


def figure(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found)


@pytest.fixture
def quiet(open_place: Open, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place that looks only when it is told to."""

    async def never(_pulse: object) -> None:
        return

    monkeypatch.setattr(pulses.Pulse, "run", never)
    return open_place()


def test_the_host_is_what_psutil_says(place: Place) -> None:
    until = time.monotonic() + 30
    while not (system := place.client.get("/v1/system").json())["history"] and time.monotonic() < until:
        time.sleep(0.02)
    memory = psutil.virtual_memory()
    assert system["host"]["ram_total_bytes"] == memory.total
    assert system["host"]["ram_used_bytes"] == pytest.approx(memory.total - memory.available, rel=0.2)
    assert system["host"]["disk_free_bytes"] == pytest.approx(system["free_bytes"], rel=0.05)
    assert system["host"]["process_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.3)
    assert 0 <= system["host"]["cpu_percent"] <= 100 and system["refresh_seconds"] == 5.0
    assert system["history"][0]["at"] == system["host"]["at"] == pytest.approx(time.time(), abs=60)


def test_a_worker_tells_of_its_machine(quiet: Place) -> None:
    name, lock = Liveness(quiet.service.data.workers).new_worker("cuda-0")
    leases = quiet.service.store.leases
    leases.register(name, "cuda:0")
    (before,) = [row for row in quiet.client.get("/v1/system").json()["workers"] if row["name"] == name]
    assert before["alive"] and before["host"] is before["gpu"] is before["model"] is None
    leases.report(name, sample(model="demo"))
    (row,) = [row for row in quiet.client.get("/v1/system").json()["workers"] if row["name"] == name]
    assert (row["description"], row["model"], row["host"]["cpu_percent"]) == ("cuda:0", "demo", 12.5)
    assert row["gpu"]["name"] == "NVIDIA Test" and row["gpu"]["driver"] == "570.1"
    assert (row["gpu"]["utilisation_percent"], row["gpu"]["memory_used_bytes"]) == (55.0, 79 * GIB)
    full = "GPU memory is nearly full: 79.0 of 80.0 GiB"
    assert row["warnings"] == [full] and full in quiet.client.get("/v1/system").json()["warnings"]
    assert figure(quiet.client.get("/metrics").text, 'wanreel_gpu_memory_used_bytes{device="cuda:0"}') == 79 * GIB
    leases.report(name, sample(at=time.time() - 100))
    (old,) = [row for row in quiet.client.get("/v1/system").json()["workers"] if row["name"] == name]
    assert re.fullmatch(r"its figures are \d+ s old", old["warnings"][0])
    lock.release()
    (dead,) = [row for row in quiet.client.get("/v1/system").json()["workers"] if row["name"] == name]
    assert not dead["alive"] and dead["warnings"] == []


def test_the_last_minutes_are_remembered_and_no_more(quiet: Place) -> None:
    pulse = quiet.app.house.pulse
    pulse.look()
    run(quiet)
    pulse.look()
    quiet.submit(**QUICK)
    pulse.look()
    first, began, ended, last = quiet.client.get("/v1/system").json()["history"]
    assert (first["completed"], first["steps_per_second"]) == (0, 0.0)
    assert (began["in_progress"], ended["completed"], last["completed"], last["queued"]) == (1, 1, 0, 1)
    assert ended["steps_per_second"] > 0 and last["steps_per_second"] == 0.0
    assert pulse.moments[2].steps == 4
    for _ in range(pulses.REMEMBERED):
        pulse.look()
    assert len(pulse.moments) == pulses.REMEMBERED


def test_what_a_resumed_job_had_done_is_no_throughput(quiet: Place) -> None:
    pulse = quiet.app.house.pulse
    pulse.look()
    quiet.submit(**QUICK)
    job = quiet.hand.claim()
    quiet.hand.leases.record(job.id, job.attempt, "resumed", {"step": 3})
    quiet.hand.step(job, 4, 4)
    pulse.look()
    assert pulse.moments[-1].steps == 1


def test_figures_of_stages_steps_and_predictions(quiet: Place) -> None:
    quiet.service.store.leases.report("hand", sample())
    quiet.app.house.pulse.look()
    run(quiet)
    quiet.app.house.pulse.look()
    forget(quiet)
    text = quiet.client.get("/metrics").text
    assert figure(text, 'wanreel_stage_seconds_sum{model="demo",stage="denoise"}') == 8.0
    assert figure(text, 'wanreel_stage_seconds_bucket{le="1.0",model="demo",stage="encode"}') == 1
    assert figure(text, 'wanreel_steps_total{model="demo"}') == 4
    assert figure(text, 'wanreel_jobs_ended_total{status="completed"}') == 1
    assert figure(text, "wanreel_real_over_predicted_count") == 0
    run(quiet, Measures(RUN.device, 4, 10.0, 1.0, 18.5, 1.5, 0.5))
    quiet.app.house.pulse.look()
    text = quiet.client.get("/metrics").text
    assert figure(text, "wanreel_predicted_seconds_total") == 21.0
    assert figure(text, "wanreel_real_seconds_total") == 31.5
    assert figure(text, 'wanreel_real_over_predicted_bucket{le="1.2"}') == 0
    assert figure(text, 'wanreel_real_over_predicted_bucket{le="1.5"}') == 1
    assert figure(text, "wanreel_steps_per_second") > 0
    assert figure(text, 'wanreel_webhook_deliveries{state="pending"}') == 0


def test_the_number_of_series_is_bounded(quiet: Place) -> None:
    run(quiet)
    quiet.app.house.pulse.look()
    quiet.client.get("/metrics")
    before = quiet.client.get("/metrics").text.count("\n")
    for number in range(20):
        quiet.client.get(f"/nowhere/{number}")
        quiet.service.store.leases.register(f"worker-{number}", "cpu")
    run(quiet)
    quiet.app.house.pulse.look()
    # One more: the status 404 of no route.
    assert quiet.client.get("/metrics").text.count("\n") <= before + 20
    assert not re.search(r"worker-\d|nowhere", quiet.client.get("/metrics").text)


def test_predictions_that_never_end_are_forgotten(quiet: Place) -> None:
    metrics = Metrics(quiet.app.house)
    quiet.service.store.leases.report("hand", sample())
    run(quiet)
    forget(quiet)
    metrics._predicted.update({str(number): 1.0 for number in range(1000)})
    job = quiet.submit(**QUICK)
    metrics._predict(job["id"])
    assert len(metrics._predicted) == 1000 and "0" not in metrics._predicted


def test_a_plan_says_how_long_and_by_what(quiet: Place) -> None:
    quiet.service.store.leases.report("hand", sample())
    body = {"prompt": "x", "model": "demo", **QUICK}
    unknown = quiet.client.post("/v1/plan", json=body).json()["estimate"]
    assert unknown == {"starts_in": 0.0, "seconds": None, "basis": "no finished run of demo yet"}
    run(quiet)
    forget(quiet)
    known = quiet.client.post("/v1/plan", json=body).json()["estimate"]
    assert known == {"starts_in": 0.0, "seconds": 21.0, "basis": "1 run of this size on NVIDIA Test"}
    first, second = quiet.submit(**QUICK), quiet.submit(**QUICK)
    assert (first["wanreel"]["starts_in"], second["wanreel"]["starts_in"]) == (0.0, 21.0)
    assert quiet.client.post("/v1/plan", json=body).json()["estimate"]["starts_in"] == 42.0
    quiet.client.post("/v1/queue/pause", json={"reason": "x"})
    assert quiet.client.post("/v1/plan", json=body).json()["estimate"]["starts_in"] is None


def test_only_the_operator_sees_the_machine(open_place: Open) -> None:
    place = open_place(keys={"boss": ("admin",)})
    headers = place.as_key("user")
    assert place.client.get("/v1/system", headers=headers).status_code == 403
    assert place.client.get("/metrics", headers=headers).status_code == 403
