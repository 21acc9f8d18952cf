"""The built-in demo model's files. Knows where they lie, not how they are loaded or what they can do.

See `docs/demo_model.md` for what the weights were trained on and how well they do.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["lora_paths", "preview_path", "weights_path"]


def weights_path() -> Path:
    """The folder of the demo model in Diffusers layout (`model_index.json` and one folder a part)."""
    return Path(__file__).parent / "weights"


def preview_path() -> Path:
    """The decoder from the demo model's latents to small pictures."""
    return Path(__file__).parent / "preview.safetensors"


def lora_paths() -> dict[str, Path]:
    """The LoRAs for the demo model, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "loras").glob("*.safetensors"))}
