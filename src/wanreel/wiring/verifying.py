"""A video made again and compared with what it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wanreel.core.cancel import CancelToken
from wanreel.core.events import Event
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.storage.digests import Digests

if TYPE_CHECKING:
    from wanreel.worker.verify import Verdict


from wanreel.wiring.recipes import read_request
from wanreel.wiring.runtime import Runtime


def verify_video(runtime: Runtime, video: Path, cancel: CancelToken) -> Verdict:
    """Make a video again into the runtime's results folder and compare. Raises UnreadableRecipe, InvalidRequest."""
    from wanreel.worker.verify import verify
    from wanreel.worker.weights import weight_hashes

    digests = Digests(runtime.settings.data.digests)

    def make(request: ResolvedRequest) -> tuple[Resolution, Iterator[Event]]:
        resolution = runtime.resolve(request.as_request())
        return resolution, runtime.generate(resolution, cancel)

    return verify(
        video, lambda: read_request(video), make, lambda spec: weight_hashes(runtime.weights_folder(spec), digests)
    )
