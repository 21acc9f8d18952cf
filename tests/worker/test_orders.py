"""Orders to load and unload: each worker obeys each once, and only those given while it lives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wanreel.core.errors import ModelNotInstalled
from wanreel.worker.orders import Order, Orders
from wanreel.worker.worker import Worker
from worker.bench import Bench


def obeying(bench: Bench, obeyed: list[Order]) -> Worker:
    worker = bench.worker()
    worker._shop = replace(worker._shop, obey=obeyed.append)
    return worker


def test_an_order_is_obeyed_once(bench: Bench) -> None:
    obeyed: list[Order] = []
    orders = Orders(bench.data.workers)
    orders.give("load", "old")
    worker = obeying(bench, obeyed)
    worker.run(once=True)
    assert obeyed == []  # given before it lived

    worker = obeying(bench, obeyed)
    order = orders.give("unload", "demo")
    worker.run(once=True)
    assert obeyed == [order]
    worker._looked = float("-inf")
    worker._keep_house()
    assert obeyed == [order]


def test_the_newest_order_counts(bench: Bench) -> None:
    obeyed: list[Order] = []
    worker = obeying(bench, obeyed)
    orders = Orders(bench.data.workers)
    orders.give("load", "demo")
    last = orders.give("unload", "demo")
    worker.run(once=True)
    assert obeyed == [last]


def test_an_order_that_can_not_be_obeyed_ends_nothing(bench: Bench) -> None:
    def refuse(order: Order) -> None:
        raise ModelNotInstalled(f"{order.model} is not here.")

    job = bench.submit()
    worker = bench.worker()
    worker._shop = replace(worker._shop, obey=refuse)
    Orders(bench.data.workers).give("load", "nothing")
    assert worker.run(once=True) == 0
    assert bench.store.get(job.id).ended


def test_a_damaged_file_is_no_order(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text("{")
    assert Orders(tmp_path).newest() is None
