"""What front doors can ask of the queue. Knows nothing of who renders, and imports no torch."""

from __future__ import annotations

from wanreel.service.estimate import Estimate
from wanreel.service.reducing import make_less, wants_less
from wanreel.service.service import Service, Terms, checkpoints_of, remove_tree
from wanreel.service.stored import adapters_of, blobs_of, pictures_of, request_of, same_generation, text_of, work_of

__all__ = [
    "Estimate",
    "Service",
    "Terms",
    "adapters_of",
    "checkpoints_of",
    "make_less",
    "blobs_of",
    "pictures_of",
    "remove_tree",
    "request_of",
    "same_generation",
    "text_of",
    "wants_less",
    "work_of",
]
