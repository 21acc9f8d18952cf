"""Rates: how often each owner may hand something in. A token bucket per owner, in memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.keys import Caller

_MOST_OWNERS = 10_000


class Rates:
    """Counts submissions. A minute's worth may come at once; then one each 60/n seconds."""

    def __init__(self, clock: Callable[[], float], per_minute: int | None = None) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # owner: tokens, when

    def take(self, caller: Caller) -> None:
        """Raises Refused with Retry-After when the caller has used up his share."""
        limit = caller.submits_per_minute or self._per_minute
        if limit is None:
            return
        now = self._clock()
        tokens, then = self._buckets.pop(caller.owner, (float(limit), now))
        tokens = min(float(limit), tokens + (now - then) * limit / 60.0)
        self._buckets[caller.owner] = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        if len(self._buckets) > _MOST_OWNERS:
            self._buckets.popitem(last=False)
        if tokens < 1.0:
            wait = max(1, math.ceil((1.0 - tokens) * 60.0 / limit))
            text = f"At most {limit} requests a minute; try again in {wait} s."
            raise Refused(429, "rate_limit_exceeded", text, headers={"Retry-After": str(wait)})
