"""WeightFolder: what lies in a folder in Diffusers layout, judged before a weight is read. Loads nothing.

Only safetensors are accepted, names that leave the folder are refused, and every fault found is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.models.components import ENCODER_CONFIGS, MODULES, SCHEDULER, Architecture, architecture
from wanreel.models.formats.assembly import NAME as ASSEMBLY_NAME
from wanreel.models.formats.assembly import Assembly
from wanreel.models.formats.detect import PICKLES
from wanreel.models.formats.single import single_part
from wanreel.models.json_object import read_json
from wanreel.models.parts import VSA_GATE, Part, TensorInfo

__all__ = ["Part", "TensorInfo", "WeightFolder", "meta_encoder", "meta_module", "open_folder", "read_json"]

INDEX_NAME = "model_index.json"
VSA_NOTE = "Trained with sparse attention (VSA); its gates are left out, so dense attention is an approximation."
_IGNORED = ("norm_added_q",)  # as Diffusers does: in converted files, used by nothing
_SHOWN = 3  # of a list of keys


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """A folder that passed every check that needs no weights in memory."""

    path: Path
    parts: Mapping[str, Part]
    scheduler_config: Mapping[str, Any]
    notes: tuple[str, ...]
    tokenizer: Path
    image_processor: Path | None  #: None where none is needed, or CLIP's own has to do


def open_folder(spec: ModelSpec, path: Path) -> WeightFolder:
    """Judge `path` as the weights of `spec`. Raises BrokenWeights naming every fault."""
    wanted = architecture(spec)
    assembly = Assembly.read(path)
    if assembly is not None:
        return _open_assembly(spec, path, assembly, wanted)
    faults: list[str] = []
    if not path.is_dir():
        raise BrokenWeights(f"{path} is not a folder.", hint=_hint(spec))
    faults += _index_faults(path, wanted)
    faults += [f"{name}/ is missing" for name in wanted.extras if not (path / name).is_dir()]
    parts: dict[str, Part] = {}
    for name in wanted.parts:
        try:
            parts[name] = _read_part(path / name, name)
        except BrokenWeights as error:
            faults.append(error.message)
    if "transformer_2" not in wanted.parts and (path / "transformer_2").is_dir():
        faults.append(f"transformer_2/ is there, but {spec.name} has one expert")
    for part in parts.values():
        faults += _architecture_faults(part, wanted)
    if faults:
        raise BrokenWeights(f"{path} does not hold {spec.name}: {'; '.join(faults)}.", hint=_hint(spec))
    notes = (VSA_NOTE,) if any(part.has_vsa_gates for part in parts.values()) else ()
    scheduler = read_json(path / "scheduler" / "scheduler_config.json")
    return WeightFolder(path, parts, scheduler, notes, path / "tokenizer", path / "image_processor")


def _open_assembly(spec: ModelSpec, path: Path, assembly: Assembly, wanted: Architecture) -> WeightFolder:
    """The parts where they lie."""
    faults: list[str] = []
    parts: dict[str, Part] = {}
    places = assembly.parts
    for name in wanted.parts:
        try:
            if name not in places:
                raise BrokenWeights(f"{ASSEMBLY_NAME} names no {name}")
            parts[name] = place_part(spec, name, places[name])
        except BrokenWeights as error:
            faults.append(error.message.removesuffix("."))
    for part in parts.values():
        faults += _architecture_faults(part, wanted)
    if "tokenizer" not in places or not places["tokenizer"].is_dir():
        faults.append(f"{ASSEMBLY_NAME} names no tokenizer, or it is gone")
    if faults:
        raise BrokenWeights(f"{path} does not hold {spec.name}: {'; '.join(faults)}.", hint="Add the model again.")
    scheduler = places.get("scheduler")
    config = dict(SCHEDULER().config) if scheduler is None else read_json(scheduler / "scheduler_config.json")
    notes = tuple(f"{part.folder.name}: {part.origin}" for part in parts.values() if part.origin)
    return WeightFolder(path, parts, config, notes, places["tokenizer"], places.get("image_processor"))


def place_part(spec: ModelSpec, name: str, place: Path) -> Part:
    """One part from wherever it lies: a folder in Diffusers layout, the authors' folder, or a single file."""
    if place.is_dir() and _is_diffusers(place):
        return _read_part(place, name)
    return single_part(spec, name, place)


def _is_diffusers(folder: Path) -> bool:
    """The authors' folders have a config too, in their own words."""
    try:
        return "dim" not in read_json(folder / "config.json")
    except BrokenWeights:
        return False


def meta_module(part: Part) -> Any:
    """The part's Diffusers module with its weights on the meta device (buffers are real), in eval mode."""
    with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
        return MODULES[part.name].from_config(dict(part.config)).eval()


def meta_encoder(part: Part) -> Any:
    """The same for one of transformers' modules."""
    with torch.random.fork_rng(devices=[]), init_empty_weights(include_buffers=False):
        return MODULES[part.name](ENCODER_CONFIGS[part.name](**part.config)).eval()


def _hint(spec: ModelSpec) -> str:
    return f"Download {spec.hub_id} again, or name the model that this folder holds." if spec.hub_id else ""


def _index_faults(path: Path, wanted: Architecture) -> Iterator[str]:
    """What model_index.json contradicts. Class names in it are not looked at; keys it lacks are no fault."""
    try:
        index = read_json(path / INDEX_NAME)
    except BrokenWeights as error:
        yield error.message
        return
    for key, value in wanted.index.items():
        if key in index and index[key] != value:
            yield f"{INDEX_NAME} says {key}={index[key]}, the model has {value}"


def _read_part(folder: Path, name: str) -> Part:
    if not folder.is_dir():
        raise BrokenWeights(f"{name}/ is missing")
    config = read_json(folder / "config.json")
    if "quantization_config" in config or "auto_map" in config:
        raise BrokenWeights(f"{name}/config.json asks for quantised weights or its own code, which is not supported")
    tensors: dict[str, TensorInfo] = {}
    for file in _files(folder, name):
        tensors.update(_header(file, name))
    return Part(name, folder, config, tensors)


def _files(folder: Path, name: str) -> list[Path]:
    """The weight files: the shards named by an index, or the one file there is."""
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        shards = {str(shard) for shard in dict(read_json(indices[0]).get("weight_map", {})).values()}
        foreign = sorted(shard for shard in shards if Path(shard).name != shard)
        if foreign:
            raise BrokenWeights(f"{name}/{indices[0].name} names files outside its folder ({foreign[0]})")
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing or not shards:
            raise BrokenWeights(f"{name}/ lacks {len(missing)} of {len(shards)} files ({_some(missing)})")
        return [folder / shard for shard in sorted(shards)]
    for stem in ("diffusion_pytorch_model", "model"):
        if (folder / f"{stem}.safetensors").is_file():
            return [folder / f"{stem}.safetensors"]
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise BrokenWeights(f"{name}/ holds only {_some(pickles)}; pickles can run code, safetensors are needed")
    raise BrokenWeights(f"{name}/ holds no safetensors file")


def _header(file: Path, name: str) -> Iterator[tuple[str, TensorInfo]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                piece = opened.get_slice(key)
                yield key, TensorInfo(file, tuple(piece.get_shape()), piece.get_dtype())
    except (SafetensorError, OSError) as error:
        raise BrokenWeights(f"{name}/{file.name} is damaged or cut short ({error})") from error


def _architecture_faults(part: Part, wanted: Architecture) -> Iterator[str]:
    """Where config, keys and shapes differ from what the row needs.

    Transformers' modules rename keys while they load, so theirs are checked then; here are those of Diffusers.
    """
    if not part.diffusers:
        return
    try:
        module = meta_module(part)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        yield f"{part.name}/config.json describes no {MODULES[part.name].__name__} ({error})"
        return
    faults = list(_config_faults(part.name, module.config, wanted))
    # With other numbers in the config every key differs as well: the numbers say more.
    yield from faults or _key_faults(part, module.state_dict())


def _config_faults(name: str, config: Mapping[str, Any], wanted: Architecture) -> Iterator[str]:
    for key, value in wanted.fixed.get(name, {}).items():
        found = list(config[key]) if isinstance(config[key], tuple) else config[key]
        if found != value:
            yield f"{name} has {key}={found}, the model has {value}"
    for key, expected in wanted.present.get(name, {}).items():
        if (config[key] is not None) != expected:
            yield f"{name} has {key}={config[key]}, the model has {'one' if expected else 'none'}"


def _key_faults(part: Part, state: Mapping[str, torch.Tensor]) -> Iterator[str]:
    missing = sorted(state.keys() - part.tensors.keys())
    if missing:
        yield f"{part.name} lacks {len(missing)} of {len(state)} tensors ({_some(missing)})"
    unknown = sorted(key for key in part.tensors.keys() - state.keys() if not _ignored(key))
    if unknown:
        yield f"{part.name} has {len(unknown)} tensors of another architecture ({_some(unknown)})"
    for key in sorted(state.keys() & part.tensors.keys()):
        if tuple(state[key].shape) != part.tensors[key].shape:
            yield f"{part.name} {key} has shape {part.tensors[key].shape}, the model has {tuple(state[key].shape)}"
            return


def _ignored(key: str) -> bool:
    return any(piece in key.split(".") for piece in (*_IGNORED, VSA_GATE))


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
