"""What the scripts of the page must know before they build a form: the knobs as declared, the models and their facts.

Nothing is decided here: `resolve` decides, and POST /v1/plan tells the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from wanreel import __version__
from wanreel.core.catalog import Catalog, Mode, ModelSpec
from wanreel.core.job import Job
from wanreel.core.picture import PictureRef
from wanreel.core.presets import preset_steps
from wanreel.core.request import KNOBS, Knob, PresetName, VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.settings import Settings
from wanreel.frontends.http.house import House
from wanreel.frontends.http.keys import LOCAL, Caller
from wanreel.frontends.prompt_writer import build_writer
from wanreel.frontends.ui.words import LANGUAGES
from wanreel.models.upscalers import UpscalerShelf
from wanreel.service import request_of
from wanreel.storage.digests import Digests

_PRESETS: tuple[PresetName, ...] = get_args(PresetName)
_MODES: tuple[Mode, ...] = ("text", "picture", "first_last")


def setup_of(house: House, settings: Settings, caller: Caller) -> dict[str, Any]:
    """JSON values. Blocks while it looks which models are installed."""
    models, writer = house.models(), build_writer(settings.prompt_help)
    wanted: dict[Mode, str] = {
        "text": settings.default_text_model,
        "picture": settings.default_picture_model,
        "first_last": settings.default_first_last_model,
    }
    return {
        "version": __version__,
        "languages": LANGUAGES,
        "account": {
            "owner": caller.owner,
            "scopes": sorted(caller.scopes),
            "admin": caller.is_admin,
            "can_submit": caller.may("submit"),
            "signed_in": caller is not LOCAL,
        },
        "knobs": {name: _knob(knob) for name, knob in KNOBS.items()},
        "models": [_model(spec, installed=installed) for spec, installed in models],
        "memory": {
            "choices": settings.memory_choices,
            "fixed": {name: value for name, value in settings.wishes.fixed.items() if value is not None},
            "on_oom": settings.on_oom,
        },
        "prompt_help": {"model": writer is not None, "sees": writer is not None and writer.sees},
        "storage": {"names": list(settings.storage), "default": settings.default_storage},
        "upscalers": [{"name": it.name, "scale": it.scale} for it in _upscalers(settings).list()],
        "defaults": {mode: _default(mode, wanted[mode], models) for mode in _MODES},
    }


def _upscalers(settings: Settings) -> UpscalerShelf:
    return UpscalerShelf(settings.upscalers_dir, Digests(settings.data.digests))


def memory_of(house: House) -> dict[str, Any]:
    """What each model takes of this machine's GPU at its own size and length, by name. JSON values; blocks.

    Asks no hub: a model need not be here. Models of which nothing is predicted are left out: on a CPU that is every one.
    """
    found: dict[str, Any] = {}
    for spec, _ in house.models():
        plan = house.outlook(resolve(_plain(spec), Catalog((spec,)), Defaults({}, frozenset({spec.name})))).plan
        if plan.gpu_bytes:
            found[spec.name] = {"plan": plan.placement.plan, "fits": plan.fits, "gpu_bytes": plan.gpu_bytes}
    return found


def _plain(spec: ModelSpec) -> VideoRequest:
    """A request as the model's authors make them. Of pictures only their shape matters to memory: there is no file."""
    size = spec.sizes[spec.default_size_name(picture="text" not in spec.modes)]
    picture = PictureRef("0" * 64, size.width, size.height)
    return VideoRequest(
        prompt="-",
        model=spec.name,
        image=None if "text" in spec.modes else picture,
        last_image=picture if spec.modes == ("first_last",) else None,
    )


def again(house: House, caller: Caller, job: Job) -> dict[str, Any]:
    """The knobs a job was made with, as POST /v1/videos takes them, its pictures as uploads of the caller's. Blocks."""
    request = request_of(job)
    asked = request.as_request()
    values = {name: getattr(asked, name) for name in KNOBS}
    pictures = {name: values.pop(name) for name in ("image", "last_image")}
    # What another video has yet to make can't be given.
    pictures = {name: None if it is not None and it.pending else it for name, it in pictures.items()}
    uploads = {
        name: house.uploads.add(caller.owner, f"{name}.png", 0, picture)
        for name, picture in pictures.items()
        if picture is not None
    }
    values["loras"] = [asdict(lora) for lora in request.loras]
    sound = values.pop("audio")
    heard = None if sound is None else house.uploads.add(caller.owner, "audio", 0, sound)
    return {
        "mode": request.mode,
        "request": values,
        "pictures": {
            name: {"id": uploads[name].id, "width": picture.width, "height": picture.height}
            for name, picture in pictures.items()
            if picture is not None
        }
        | (
            {"audio": {"id": heard.id, "name": heard.name, "seconds": sound.seconds}}
            if heard is not None and sound is not None
            else {}
        ),
    }


def _knob(knob: Knob) -> dict[str, Any]:
    return {
        "kind": knob.kind,
        "help": knob.help,
        "unit": knob.unit,
        "minimum": knob.minimum,
        "maximum": knob.maximum,
        "choices": list(knob.choices),
        "group": knob.group,
    }


def _default(mode: Mode, wanted: str, models: Sequence[tuple[ModelSpec, bool]]) -> str:
    """The model that a tab opens with: the operator's, else whatever is installed, else the operator's all the same."""
    installed = [spec.name for spec, here in models if here and mode in spec.modes]
    if wanted in installed or not installed:
        return wanted
    return installed[-1]  # the demo model is the last row


def _model(spec: ModelSpec, *, installed: bool) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "parameters": spec.parameters,
        "licence": spec.licence,
        "installed": installed,
        "builtin": spec.builtin,
        "pulled": spec.hub_id is not None and not spec.builtin,
        "modes": list(spec.modes),
        "fps": spec.fps,
        "num_frames": spec.num_frames,
        "max_frames": spec.max_frames,
        "hard_max_frames": spec.hard_max_frames,
        "hard_max_side": spec.hard_max_side,
        "stride": spec.temporal_stride,
        "size_multiple": spec.size_multiple,
        "sizes": {
            name: {
                "width": size.width,
                "height": size.height,
                "shift": size.flow_shift,
                "trained": size.trained,
            }
            for name, size in spec.sizes.items()
        },
        "resolution": {
            "text": spec.default_size_name(picture=False),
            "picture": spec.default_size_name(picture=True),
        },
        "presets": {name: steps for name in _PRESETS if (steps := preset_steps(spec, name)) is not None},
        "steps": spec.steps,
        "few_step": spec.few_step,
        "guidance": {
            "text": spec.default_guidance(picture=False),
            "picture": spec.default_guidance(picture=True),
        },
        "two_experts": spec.two_experts,
        "boundary": spec.boundary_ratio,
        "solver": spec.solver,
        "solvers": list(spec.solvers),
        "negative_prompt": spec.negative_prompt,
    }
