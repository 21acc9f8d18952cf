"""DataDirectory: where everything Wanreel keeps lies. Names alone; nothing is made or read here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wanreel.core.config_file import CONFIG_NAME


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The folder that holds everything Wanreel keeps."""

    root: Path

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def loras(self) -> Path:
        return self.root / "loras"

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def previews(self) -> Path:
        return self.root / "previews"

    @property
    def digests(self) -> Path:
        return self.root / "digests.json"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts"

    @property
    def compiled(self) -> Path:
        """What torch.compile makes, and which attention kernel is the fastest."""
        return self.root / "compiled"

    @property
    def workers(self) -> Path:
        return self.root / "workers"

    @property
    def database(self) -> Path:
        return self.root / "wanreel.db"

    @property
    def keys(self) -> Path:
        return self.root / "keys.json"

    @property
    def webhook_secret(self) -> Path:
        return self.root / "webhook.secret"

    @property
    def session_secret(self) -> Path:
        return self.root / "session.secret"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def config(self) -> Path:
        return self.root / CONFIG_NAME
