"""What Wanreel ships for testing: tiny random models of every architecture.

Needs torch; import it only where models run.
"""

from wanreel.models.diffusers_pipeline import diffusers_pipeline
from wanreel.models.tiny import build_tiny, save_tiny

__all__ = ["build_tiny", "diffusers_pipeline", "save_tiny"]
