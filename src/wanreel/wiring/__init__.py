"""The only place where parts are joined; front doors take what they need from here."""

from wanreel.wiring.queue import (
    build_liveness,
    build_service,
    build_store,
    build_worker,
    check_store,
    copy_store,
    look_at_queue,
    migrate_store,
)
from wanreel.wiring.recipes import read_request, read_work, request_in
from wanreel.wiring.runtime import Runtime, build_runtime, picture_specs_with_state, specs_with_state
from wanreel.wiring.verifying import verify_video

__all__ = [
    "Runtime",
    "build_liveness",
    "build_runtime",
    "build_service",
    "build_store",
    "build_worker",
    "check_store",
    "copy_store",
    "look_at_queue",
    "migrate_store",
    "picture_specs_with_state",
    "read_request",
    "read_work",
    "request_in",
    "specs_with_state",
    "verify_video",
]
