"""Workshop: what the attempts of one worker share. Knows nothing of any one job."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.data_directory import DataDirectory
from wanreel.core.failpoints import Failpoints
from wanreel.core.work import AnySpec
from wanreel.jobs import JobStore
from wanreel.service.uploader import Uploader
from wanreel.storage.shared import SharedStates
from wanreel.worker.gathering import Gatherer
from wanreel.worker.orders import Order
from wanreel.worker.space import Reserve
from wanreel.worker.taking import Taking
from wanreel.worker.task import Render


@dataclass(frozen=True)
class Workshop:
    """What attempts of one worker share."""

    store: JobStore
    render: Render
    spec_of: Callable[[str], AnySpec]  #: raises UnknownModel
    weights_of: Callable[[AnySpec], Mapping[str, str]]  #: hashes by file name; raises BrokenWeights
    data: DataDirectory
    results: Path
    reserve: Reserve
    failpoints: Failpoints
    taking: Taking
    gatherer: Gatherer | None = None  #: makes what groups of jobs result in; None where there are no groups
    keep_free: int = 0  #: bytes of disk that no job may use
    checkpoints: bool = True  #: whether states are saved while denoising
    held: Callable[[], str | None] = lambda: None  #: name of the model in memory
    all_held: Callable[[], tuple[str, ...]] = lambda: ()  #: names of all models in memory
    warm_up: Callable[[], None] = lambda: None  #: loads the model that the operator wants held; raises WanreelError
    obey: Callable[[Order], None] = lambda order: None  #: loads or unloads a model; raises WanreelError
    sample_seconds: float = 5.0  #: between two looks at the machine
    uploader: Uploader | None = None  #: copies results to object storage while the worker lives
    clock: Callable[[], float] = time.monotonic
    reduce: Callable[[str], None] = lambda job_id: None  #: queues a smaller job in the place of a failed one
    states: SharedStates | None = None  #: where workers on other machines find saved states
    batch: int = 1  #: jobs that may be begun at a time, where parts of a model take turns on the device
    only: tuple[str, ...] = ()  #: names of the models whose jobs are taken; empty for all
