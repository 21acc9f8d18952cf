"""operator_routes: what only the operator may ask for, joined with what it changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fastapi import APIRouter

from wanreel.core.settings import Settings
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.http.keys_api import KeyRoutes
from wanreel.frontends.http.loras import LoraRoutes
from wanreel.frontends.http.settings_api import ROWS, SettingsDesk, SettingsRoutes
from wanreel.frontends.http.upscalers import UpscalerRoutes
from wanreel.service import Service
from wanreel.wiring import Runtime, specs_with_state


def operator_routes(runtime: Runtime, service: Service, keys: KeyRing, entrance: Entrance) -> tuple[APIRouter, ...]:
    """Settings, API keys, LoRAs and upscalers."""
    desk = SettingsDesk(lambda: runtime.settings, _adopter(runtime, service), runtime.catalog, threading.Lock())
    loras = LoraRoutes(runtime.lora_desk, runtime.catalog, lambda: specs_with_state(runtime))
    upscalers = UpscalerRoutes(runtime.upscalers)
    return SettingsRoutes(desk).router(), KeyRoutes(keys, entrance).router(), loras.router(), upscalers.router()


def _adopter(runtime: Runtime, service: Service) -> Callable[[Settings], None]:
    live = tuple(row.name for row in ROWS if row.live)

    def adopt(after: Settings) -> None:
        runtime.settings = runtime.settings.model_copy(update={name: getattr(after, name) for name in live})
        service.store.capacity = runtime.settings.max_queue_size
        service.gpu_price_per_hour = runtime.settings.gpu_price_per_hour

    return adopt
