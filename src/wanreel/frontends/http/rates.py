"""Rates: how often each owner may hand something in. A token bucket per owner, in memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.keys import Caller

_MOST_OWNERS = 10_000


class Rates:
    """Counts submissions. A minute's worth may come at once; then one each 60/n seconds.

    `sharers`: processes that answer for the same address, each of which lets that part of the submissions in.
    """

    def __init__(self, clock: Callable[[], float], per_minute: int | None = None) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self.sharers = 1
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # owner: tokens, when

    def take(self, caller: Caller) -> None:
        """Raises Refused with Retry-After when the caller has used up his share."""
        limit = caller.submits_per_minute or self._per_minute
        if limit is None:
            return
        now, a_second = self._clock(), limit / self.sharers / 60.0
        full = max(1.0, limit / self.sharers)
        tokens, then = self._buckets.pop(caller.owner, (full, now))
        tokens = min(full, tokens + (now - then) * a_second)
        self._buckets[caller.owner] = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        if len(self._buckets) > _MOST_OWNERS:
            self._buckets.popitem(last=False)
        if tokens < 1.0:
            wait = max(1, math.ceil((1.0 - tokens) / a_second))
            text = f"At most {limit} requests a minute; try again in {wait} s."
            raise Refused(429, "rate_limit_exceeded", text, headers={"Retry-After": str(wait)})
