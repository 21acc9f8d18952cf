"""Shared by all tests: hypothesis must not fail because the machine is busy, and no test may reach a model hub."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("wanreel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wanreel")
