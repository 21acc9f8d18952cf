"""Weights from the hub to this machine: pinned, resumed, hashed. Imports no torch; knows nothing of loading."""

from wanreel.models.registry.hub import Hub
from wanreel.models.registry.pins import Pin, Pins
from wanreel.models.registry.registry import Fault, Registry
from wanreel.models.registry.state import Download, Progress

__all__ = ["Download", "Fault", "Hub", "Pin", "Pins", "Progress", "Registry"]
