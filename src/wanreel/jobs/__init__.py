"""The durable queue: `JobStore` for everybody, `Leases` for workers. Knows nothing of what a job does."""

from __future__ import annotations

from wanreel.jobs.leased import SharedLiveness
from wanreel.jobs.leases import Leases
from wanreel.jobs.liveness import Liveness
from wanreel.jobs.store import JobStore

__all__ = ["JobStore", "Leases", "Liveness", "SharedLiveness"]
