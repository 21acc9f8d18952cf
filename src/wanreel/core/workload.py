"""Workload: what one request asks of a machine, in operations and bytes. Pure arithmetic; knows no plans.

Formulas of memory count the tensors that are alive at the highest point of each stage, in the order in which the code
makes them; a test runs the code at real shapes without memory and compares. What kernels take beside their tensors is
measured (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wanreel.core.catalog import ModelSpec
from wanreel.core.components import CLIP_TOKENS, PATCH, TRANSFORMERS, in_channels
from wanreel.core.compute import EAGER, Compute, Rates
from wanreel.core.lora import bucket_for
from wanreel.core.machines import Machine
from wanreel.core.placement import Tile
from wanreel.core.resolved import ResolvedRequest

GIB = 2**30
HALF = 2  #: bytes of a bf16 or fp16 number

#: fp32 numbers alive for each pixel of a frame, or of a tile, at the VAE's highest point, by latent channels. Counted:
#: 4,864 and 5,376 to decode, 3,520 and (one frame) 623 to encode; the rest is what convolutions take.
DECODE_FLOATS: Mapping[int, int] = {16: 5640, 48: 5905}
ENCODE_FLOATS: Mapping[int, int] = {16: 4300, 48: 640}
#: What the VAE takes beside that: latents, chunks on their way out.
VAE_REST = int(0.06 * GIB)
TEXT_ACTIVATIONS = int(0.22 * GIB)
IMAGE_ACTIVATIONS = int(0.10 * GIB)
#: What elementwise passes read and write beside those of `Rates`, with a modulation [tokens, 6, dim] for each token,
#: counted: it is widened to fp32 (6 + 12), added to the block's table (12 + 12), read by norms and gates (12), and its
#: two scales are made one larger (8).
MODULATION_PASSES = 62


@dataclass(frozen=True, slots=True)
class Workload:
    """One request for one model."""

    spec: ModelSpec
    width: int
    height: int
    frames: int
    steps: int
    passes: int  #: forwards a step: 2 with guidance
    pictures: int = 0
    lora_rank: int = 0  #: of the LoRAs that one expert carries, rounded up as their branches are
    compute: Compute = "exact"

    @classmethod
    def of(cls, spec: ModelSpec, request: ResolvedRequest) -> Workload:
        guided = request.guidance_high > 1.0 or request.guidance_low > 1.0
        pictures = {"text": 0, "picture": 1, "first_last": 2}[request.mode]
        size = (request.width, request.height, request.num_frames)
        guided = guided or request.guided_steps > 0
        rank = bucket_for(request.loras)
        return cls(spec, *size, request.num_inference_steps, 2 if guided else 1, pictures, rank, request.compute)

    def __str__(self) -> str:
        return f"{self.spec.name} {self.width}×{self.height}×{self.frames}"

    @property
    def lora_block(self) -> int:
        """Bytes of the LoRAs' branches in one transformer block."""
        size = TRANSFORMERS[self.spec.parameters]
        attention = (10 if self.spec.clip else 8) * 2 * size.dim
        return HALF * self.lora_rank * (attention + 2 * (size.dim + size.ffn_dim))

    @property
    def tokens(self) -> int:
        stride = self.spec.spatial_stride * PATCH
        return self.spec.latent_frames(self.frames) * (self.height // stride) * (self.width // stride)

    @property
    def hidden(self) -> int:
        """Bytes of one activation [tokens, dim] in 16 bits: the unit of the transformer's memory."""
        return self.tokens * TRANSFORMERS[self.spec.parameters].dim * HALF

    @property
    def time_per_token(self) -> bool:
        """Whether blocks hold a modulation for each token: TI2V from a picture."""
        return self.spec.conditioning == "first_frame" and self.pictures > 0

    def forward_activations(self, rows: int, feed_forward_rows: int, *, fp8: bool = False) -> int:
        """Bytes alive in one forward, weights aside. `rows`, `feed_forward_rows` as in Placement."""
        size = TRANSFORMERS[self.spec.parameters]
        widening = size.ffn_dim / size.dim
        hidden, tokens = self.hidden, self.tokens
        if not rows:
            # Modulation and norm in fp32 hold ten times the input; the feed-forward and its GELU twice its width.
            units = 1 + max(10.0, 3 + 2 * widening) + (12 if self.time_per_token else 0)
        else:
            wide = widening * min(1.0, feed_forward_rows / tokens if feed_forward_rows else 1.0)
            some = min(rows, tokens) * size.ffn_dim / hidden  # one byte for each number of some widened rows
            widest = wide + max(1.0, HALF * some)
            if fp8:  # the widened input once more in fp8, and some of its rows in fp32 on the way there
                widest = 1.5 * wide + max(1.0, 8 * some)
            passes = 2 * hidden + 5 * min(rows, tokens) * size.dim * 4
            units = max(1 + max(4.0, widest), passes / hidden)
        embedding = 0.0
        if self.spec.conditioning == "first_frame":
            units += 7 if self.time_per_token else 0
            embedding = 11.0  # a timestep embedding for each token, before equal ones are taken together
        return int(max(units, embedding) * hidden) + self.carried()

    def carried(self) -> int:
        """Bytes that live through all steps: latents, the solver's memory, picture channels, rotary tables."""
        spec = self.spec
        latents = PATCH**2 * (in_channels(spec) * 6 + spec.latent_channels * 4 * 8)
        return self.tokens * (latents + 2 * 128 * 4) + 64 * 2**20

    @property
    def kept_keys(self) -> int:
        """Bytes of all blocks' keys and values of text and picture, for each prompt of a step and each expert."""
        size, spec = TRANSFORMERS[self.spec.parameters], self.spec
        rows = spec.prompt_tokens + (CLIP_TOKENS * self.pictures if spec.clip else 0)
        return self.passes * spec.experts * size.layers * 2 * rows * size.dim * HALF

    def decode_activations(self, tile: Tile | None) -> int:
        return self._vae(DECODE_FLOATS, tile)

    def encode_activations(self, tile: Tile | None) -> int:
        return self._vae(ENCODE_FLOATS, tile) if self.pictures else 0

    def _vae(self, floats: Mapping[int, int], tile: Tile | None) -> int:
        height, width = self.tile_size(tile)
        return floats[self.spec.latent_channels] * 4 * height * width + VAE_REST

    def tile_size(self, tile: Tile | None) -> tuple[int, int]:
        """Pixels that the VAE works on at a time."""
        if tile is None:
            return self.height, self.width
        unit = self.spec.spatial_stride
        return tile.window(self.height, tile.height, unit), tile.window(self.width, tile.width, unit)

    def canvas(self, tile: Tile | None) -> int:
        """Host memory in which tiles are put together."""
        return 0 if tile is None else 3 * 4 * self.height * self.width * self.frames

    def forward_seconds(self, machine: Machine, rates: Rates = EAGER) -> float:
        """Of one forward whose weights are there, as Diffusers' own blocks compute unless `rates` says otherwise."""
        linear, attention = self.forward_operations()
        size = TRANSFORMERS[self.spec.parameters]
        passes = rates.passes + (MODULATION_PASSES if self.time_per_token else 0)
        elementwise = passes * self.hidden * size.layers
        linear, attention = linear / machine.linear / rates.linear, attention / machine.attention / rates.attention
        return linear + attention + elementwise / machine.elementwise

    def forward_operations(self) -> tuple[float, float]:
        """Floating-point operations of the linear layers and of attention; a multiply-add counts two."""
        size = TRANSFORMERS[self.spec.parameters]
        tokens, dim, layers = self.tokens, size.dim, size.layers
        context = self.spec.prompt_tokens + (CLIP_TOKENS * self.pictures if self.spec.clip else 0)
        linear = layers * tokens * (12 * dim**2 + 4 * dim * size.ffn_dim) + layers * context * 4 * dim**2
        ends = tokens * 2 * dim * PATCH**2 * (in_channels(self.spec) + self.spec.latent_channels)
        if self.spec.conditioning == "first_frame":
            ends += tokens * 2 * (256 * dim + 7 * dim**2)
        attention = layers * 4 * tokens * (tokens + context) * dim
        return float(linear + ends), float(attention)

    def decode_seconds(self, machine: Machine, overhead: float = 1.0) -> float:
        """`overhead`: pixels worked on over pixels shown, with tiles that share some."""
        return overhead * machine.decode_ns * 1e-9 * self.width * self.height * self.frames

    def encode_seconds(self, machine: Machine, overhead: float = 1.0) -> float:
        frames = 1 if self.spec.conditioning == "first_frame" else self.frames
        if not self.pictures:
            return 0.0
        return overhead * machine.encode_ns * 1e-9 * self.width * self.height * frames
