"""Delivery: a message about a job's end to whoever asked to be told. Knows nothing of how it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from wanreel.core.job import JobStatus


class DeliveryState(StrEnum):
    """Where a message stands."""

    WAITING = "waiting"  #: the job has not ended
    PENDING = "pending"  #: it is being sent, or will be again
    DELIVERED = "delivered"  #: the receiver answered with a 2xx status
    GIVEN_UP = "given_up"  #: every attempt failed


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message. It is the same, id included, each time it is sent."""

    id: str  #: "msg_…"; receivers tell repeats by it
    job_id: str  #: or the id of a group
    owner: str  #: of the job: whose secret signs it
    kind: JobStatus  #: how the job ended
    data: Mapping[str, Any]  #: code, message and hint of a failure; `object` of a group: its kind
    url: str  #: where to; may hold a secret, so it is never logged
    created_at: float  #: wall clock, seconds since 1970
    state: DeliveryState
    attempts: int  #: begun so far
    outcome: str  #: how the newest attempt went, in words; "" before the first


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """How the message about a job fares, for its owner."""

    state: DeliveryState
    id: str | None  #: of the newest message; None while the job has not ended
    attempts: int
    outcome: str
