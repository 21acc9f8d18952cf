"""Supply: how a model's weights come here. Knows which may be downloaded; how they come is the registry's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import ModelNotInstalled
from wanreel.core.events import Downloading, Event
from wanreel.core.resolved import Adjustment
from wanreel.core.settings import Settings
from wanreel.core.work import AnySpec
from wanreel.models.formats.assembly import Assembly
from wanreel.models.shelf import Shelf
from wanreel.storage.digests import Digests

if TYPE_CHECKING:
    from wanreel.models.registry import Registry


@dataclass
class Supply:
    """Weights from the hub, where the settings allow it."""

    settings: Settings
    shelf: Shelf
    _registry: Registry | None = field(default=None, repr=False)

    @property
    def registry(self) -> Registry:
        """What brings weights from the hub."""
        if self._registry is None:
            from wanreel.models.registry import Hub, Registry

            self._registry = Registry(
                root=self.settings.weights_dir,
                hub=Hub(self.settings.hub_endpoint, offline=self.settings.offline),
                digests=Digests(self.settings.data.digests),
                keep_free=int(self.settings.min_free_gb * 2**30),
            )
        return self._registry

    def downloads(self, spec: AnySpec) -> bool:
        """Whether the weights of `spec` are downloaded when they are needed and not here."""
        pulled = spec.hub_id is not None and not spec.builtin and spec.name not in self.shelf.own_folders
        return pulled and self.settings.download and not self.registry.hub.silent

    def fetch(self, spec: AnySpec, cancel: CancelToken) -> Iterator[Event]:
        """Bring the weights of `spec` if they are not here and may be downloaded."""
        if self.shelf.has(spec) or not self.downloads(spec):
            return
        for progress in self.registry.pull(spec, cancel):
            yield Downloading(spec.name, progress.received_bytes, progress.total_bytes)

    def check(self, spec: AnySpec) -> None:
        """Before weights are read: that those that were downloaded are what they were. Raises BrokenWeights."""
        folder = self.shelf.folder(spec)
        assembly = Assembly.read(folder)
        if assembly is not None:
            self.registry.check_paths(path for _, path in assembly.files())
        elif folder == self.registry.folder(spec):
            self.registry.check(spec)

    def note(self, spec: AnySpec) -> Adjustment:
        """That the model's weights are downloaded first. Raises ModelNotInstalled where that may not be."""
        if not self.downloads(spec):
            if spec.hub_id is not None and not self.settings.download:
                raise ModelNotInstalled(
                    f"{spec.name} is not installed, and downloads are off.", hint=f"`wanreel models pull {spec.name}`."
                )
            self.shelf.folder(spec)  # raises, saying where it looked
        size = self.registry.size(spec)
        amount = "of a size that the hub does not tell now" if size is None else f"{size / 1e9:.1f} GB"
        return Adjustment("model", None, spec.name, f"downloaded first: {amount}, {spec.licence}, from {spec.hub_id}")
