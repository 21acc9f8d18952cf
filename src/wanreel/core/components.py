"""How many numbers each part of a Wan model holds, from its architecture. Knows nothing of modules, files or memory.

A test builds every part without weights and compares to the number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wanreel.core.catalog import ModelSpec

TEXT_DIM = 4096  #: width of UMT5-XXL's embeddings
TIME_FREQUENCIES = 256
CLIP_DIM = 1280
CLIP_TOKENS = 257  #: of one picture: 16 × 16 patches and the class token
MASK_CHANNELS = 4  #: one per frame of a latent frame; they go before the picture's latents (Wan 2.1 image2video.py)
PATCH = 2  #: latent pixels that a token is wide and high


@dataclass(frozen=True, slots=True)
class TransformerSize:
    """The four numbers that fix a Wan transformer. Source: Wan-Video/Wan2.1 and Wan2.2, wan/configs."""

    heads: int
    ffn_dim: int
    layers: int
    head_dim: int = 128

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim


_14B = TransformerSize(heads=40, ffn_dim=13824, layers=40)
#: By `ModelSpec.parameters`.
TRANSFORMERS: Mapping[str, TransformerSize] = {
    "1.3B": TransformerSize(heads=12, ffn_dim=8960, layers=30),
    "5B": TransformerSize(heads=24, ffn_dim=14336, layers=30),
    "14B": _14B,
    "2 × 14B": _14B,
}


@dataclass(frozen=True, slots=True)
class Count:
    """Parameters of one part."""

    plain: int  #: in the dtype that the part runs in
    kept: int = 0  #: always in fp32: norms, time embedder, modulation tables

    def __add__(self, other: Count) -> Count:
        return Count(self.plain + other.plain, self.kept + other.kept)

    def times(self, factor: int) -> Count:
        return Count(factor * self.plain, factor * self.kept)

    @property
    def total(self) -> int:
        return self.plain + self.kept

    def nbytes(self, itemsize: float) -> int:
        """Bytes with `itemsize` bytes for each plain parameter."""
        return int(self.plain * itemsize) + 4 * self.kept


@dataclass(frozen=True, slots=True)
class BlockCount:
    """One transformer block."""

    matrices: int  #: weights of the linear layers, which quantisation makes smaller
    rest: Count  #: biases and norms

    @property
    def total(self) -> int:
        return self.matrices + self.rest.total

    def nbytes(self, matrix_itemsize: float, itemsize: float) -> int:
        return int(self.matrices * matrix_itemsize) + self.rest.nbytes(itemsize)


#: google/umt5-xxl's encoder: its table of 256,384 × 4,096, 24 blocks, and the last norm.
TEXT_TABLE = Count(256_384 * TEXT_DIM)
TEXT_BLOCK = Count(4 * TEXT_DIM**2 + 3 * TEXT_DIM * 10_240 + 32 * 64 + 2 * TEXT_DIM)
TEXT_LAYERS = 24
TEXT_ENCODER = TEXT_TABLE + TEXT_BLOCK.times(TEXT_LAYERS) + Count(TEXT_DIM)
#: CLIP ViT-H/14, as Wan 2.1's picture models use it.
IMAGE_ENCODER = Count(630_766_080)
#: By latent channels: the VAE of Wan 2.1 (and of A14B), and that of TI2V-5B.
VAES: Mapping[int, Count] = {16: Count(126_892_531), 48: Count(704_688_668)}


def transformer_block(spec: ModelSpec) -> BlockCount:
    """One block of `spec`'s transformers (they are alike)."""
    size = TRANSFORMERS[spec.parameters]
    dim = size.dim
    attentions = 8 * dim**2 + (2 * dim**2 if spec.clip else 0)
    biases = 8 * dim + size.ffn_dim + dim + (2 * dim if spec.clip else 0)
    norms = 4 * dim + (dim if spec.clip else 0)  # of queries and keys
    return BlockCount(attentions + 2 * dim * size.ffn_dim, Count(biases + norms, 2 * dim + 6 * dim))


def transformer_ends(spec: ModelSpec) -> Count:
    """All of a transformer but its blocks."""
    dim = TRANSFORMERS[spec.parameters].dim
    patch = PATCH**2
    embed = Count(dim * in_channels(spec) * patch + dim)
    time = Count(0, TIME_FREQUENCIES * dim + dim + dim**2 + dim)
    modulation = Count(6 * dim**2 + 6 * dim)
    text = Count(TEXT_DIM * dim + dim + dim**2 + dim)
    out = Count(dim * spec.latent_channels * patch + spec.latent_channels * patch, 2 * dim)
    image = Count(0)
    if spec.clip:
        image = Count(CLIP_DIM**2 + CLIP_DIM + CLIP_DIM * dim + dim, 2 * CLIP_DIM + 2 * dim)
        if "first_last" in spec.modes:
            image += Count(2 * CLIP_TOKENS * CLIP_DIM)
    return embed + time + modulation + text + out + image


def transformer(spec: ModelSpec) -> Count:
    """One transformer of `spec`, unquantised."""
    block = transformer_block(spec)
    layers = TRANSFORMERS[spec.parameters].layers
    return transformer_ends(spec) + Count(block.matrices + block.rest.plain, block.rest.kept).times(layers)


def in_channels(spec: ModelSpec) -> int:
    """Channels that enter the transformer: latents, and for channel conditioning the mask and the picture's latents."""
    if spec.conditioning == "channels":
        return 2 * spec.latent_channels + MASK_CHANNELS
    return spec.latent_channels


def known(spec: ModelSpec) -> bool:
    """Whether the sizes of `spec` are in these tables: not so for the demo and for tiny models."""
    return spec.parameters in TRANSFORMERS and spec.latent_channels in VAES
