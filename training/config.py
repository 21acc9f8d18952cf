"""Every number of a training run, as frozen dataclasses. Holds no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.scenes import Frame

FLOW_SHIFT = 3.0
TEXT_ROWS = 40  #: tokens of a prompt in training; the last row is always padding


@dataclass(frozen=True)
class Shapes:
    """The networks' sizes, as the constructor arguments of Diffusers and Transformers."""

    vae: dict[str, Any]
    text: dict[str, Any]
    dit: dict[str, Any]


DEMO_SHAPES = Shapes(
    vae={
        "base_dim": 24, "decoder_base_dim": 32, "z_dim": 24, "dim_mult": [1, 2, 2], "num_res_blocks": 2,
        "temperal_downsample": [True, True], "is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12,
        "scale_factor_temporal": 4, "scale_factor_spatial": 8,
    },
    text={"d_model": 96, "d_kv": 24, "d_ff": 192, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0},
    dit={
        "num_attention_heads": 5, "attention_head_dim": 32, "num_layers": 8, "ffn_dim": 640, "in_channels": 24,
        "out_channels": 24, "text_dim": 96, "freq_dim": 256, "rope_max_seq_len": 256,
    },
)  # fmt: skip
TINY_SHAPES = Shapes(
    vae={**DEMO_SHAPES.vae, "base_dim": 8, "decoder_base_dim": 8, "z_dim": 8, "num_res_blocks": 1},
    text={**DEMO_SHAPES.text, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1},
    dit={
        **DEMO_SHAPES.dit, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "ffn_dim": 64,
        "in_channels": 8, "out_channels": 8, "text_dim": 32, "freq_dim": 32,
    },
)  # fmt: skip


@dataclass(frozen=True)
class Bucket:
    """Clips of one size: how many a batch, how many are kept in the pool, and the share of steps that use them."""

    frame: Frame
    batch: int
    pool: int
    share: float = 1.0


@dataclass(frozen=True)
class DataSettings:
    """The stock of textures, and how fast the data is renewed."""

    textures: int = 2048
    texture_size: int = 192
    texture_chunk: int = 256
    chunk: int = 128  #: clips rendered at a time
    renew_every: int = 20  #: steps between two chunks
    chunks_per_texture: int = 8  #: chunks between two renewals of a part of the textures


@dataclass(frozen=True)
class StageSettings:
    """One stage: its data and its optimisation. `muon_rate` is for hidden weights, `adam_rate` for the rest."""

    buckets: tuple[Bucket, ...]
    muon_rate: float
    adam_rate: float = 1e-3
    warmup: int = 100
    level: float = 0.5  #: the part of the time at the full rate, before the cosine
    average: float = 0.999  #: of the moving average of weights
    data: DataSettings = field(default_factory=DataSettings)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    shapes: Shapes
    vae: StageSettings
    decoder: StageSettings
    dit: StageSettings
    preview: StageSettings
    lora: StageSettings
    lora_rank: int = 8
    statistics_batches: int = 16  #: batches of 16 clips for the latents' mean and deviation


def _square(size: int, frames: int, batch: int, pool: int, share: float = 1.0) -> Bucket:
    return Bucket(Frame(size, size, frames), batch, pool, share)


DEMO = Config(
    shapes=DEMO_SHAPES,
    vae=StageSettings(
        (_square(128, 9, 24, 4096, 0.4), _square(128, 1, 96, 16384, 0.35), _square(128, 17, 12, 2048, 0.25)),
        muon_rate=0.012,
        data=DataSettings(renew_every=8),
    ),
    decoder=StageSettings(
        (
            _square(128, 17, 16, 2048, 0.55),
            Bucket(Frame(96, 160, 17), 16, 1024, 0.25),
            _square(192, 9, 12, 1024, 0.2),
        ),
        muon_rate=0.006,
        adam_rate=5e-4,
        level=0.3,
        data=DataSettings(renew_every=12),
    ),
    dit=StageSettings(
        (
            _square(128, 17, 256, 14336, 0.45),
            Bucket(Frame(96, 160, 17), 256, 6144, 0.2),
            Bucket(Frame(160, 96, 17), 256, 3072, 0.1),
            _square(128, 33, 160, 4096, 0.12),
            _square(192, 17, 128, 4096, 0.13),
        ),
        muon_rate=0.012,
        data=DataSettings(renew_every=16),
    ),
    preview=StageSettings((_square(128, 17, 32, 1024),), muon_rate=0.02, adam_rate=3e-3),
    lora=StageSettings(
        (_square(128, 17, 128, 4096, 0.7), Bucket(Frame(96, 160, 17), 128, 1024, 0.3)), muon_rate=0.0, adam_rate=2e-3
    ),
)

_TINY_DATA = DataSettings(textures=8, texture_size=64, texture_chunk=4, chunk=4, renew_every=2, chunks_per_texture=2)


def _tiny_stage(frames: int) -> StageSettings:
    buckets = (_square(32, frames, 2, 8, 0.5), Bucket(Frame(32, 48, frames), 2, 4, 0.5))
    return StageSettings(buckets, muon_rate=0.01, warmup=2, data=_TINY_DATA)


_STAGE = _tiny_stage(5)
TINY = Config(
    TINY_SHAPES, vae=_STAGE, decoder=_STAGE, dit=_STAGE, preview=_STAGE, lora=_STAGE, lora_rank=2, statistics_batches=1
)
