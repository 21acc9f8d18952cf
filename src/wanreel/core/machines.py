"""Machine: what a plan is made for, in bytes and rates; and what is known of GPUs by name. Asks nothing of the system.

Rates of the H200 are measured (docs/benchmarks.md). Those of other cards are its shares of the datasheet's figures:
dense bf16 matrices, memory bandwidth. They are predictions until runs on such a card have corrected them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 2**30
TERA = 1e12


@dataclass(frozen=True, slots=True)
class Card:
    """One kind of GPU. Datasheet figures; bf16 with fp32 sums, without sparsity (fp16 where a card has no bf16)."""

    name: str
    memory_gib: float
    matrices: float  #: TFLOP/s
    bandwidth: float  #: GB/s
    capability: tuple[int, int]
    bus: float = 24.0  #: GB/s from page-locked memory; PCIe 4.0 x16 gives about that, 5.0 twice
    link: float = 0.0  #: GB/s to another such card, one way, by NVLink; 0: over the bus


CARDS: tuple[Card, ...] = (
    Card("H200", 141, 989, 4800, (9, 0), 55.6, 450.0),
    Card("H100", 80, 989, 3350, (9, 0), 55.0, 450.0),
    Card("B200", 180, 2250, 8000, (10, 0), 55.0, 900.0),
    Card("A100", 80, 312, 2039, (8, 0), link=300.0),
    Card("L40S", 48, 362, 864, (8, 9)),
    Card("RTX 6000 Ada", 48, 364, 960, (8, 9)),
    Card("RTX A6000", 48, 155, 768, (8, 6)),
    Card("RTX 5090", 32, 210, 1792, (12, 0), 50.0),
    Card("RTX 5080", 16, 113, 960, (12, 0), 50.0),
    Card("RTX 4090", 24, 165, 1008, (8, 9)),
    Card("RTX 4080", 16, 98, 717, (8, 9)),
    Card("RTX 4070 Ti", 12, 80, 504, (8, 9)),
    Card("RTX 4070", 12, 58, 504, (8, 9)),
    Card("RTX 4060 Ti", 16, 44, 288, (8, 9), 12.0),
    Card("RTX 4060", 8, 30, 272, (8, 9), 12.0),
    Card("RTX 3090", 24, 71, 936, (8, 6)),
    Card("RTX 3080", 10, 60, 760, (8, 6)),
    Card("RTX 3070", 8, 41, 448, (8, 6)),
    Card("RTX 3060", 12, 26, 360, (8, 6)),
    Card("Tesla T4", 16, 65, 320, (7, 5), 12.0),
    Card("V100", 32, 125, 900, (7, 0), 12.0, 150.0),
)
#: For a card that is not in the table: the smallest of them, so that nothing is promised.
UNKNOWN = Card("", 0, 26, 360, (8, 0), 12.0)

# Shares of a card's figures that the product's own kernels reach on the H200 (docs/benchmarks.md).
LINEAR_SHARE = 0.79
ATTENTION_SHARE = 0.573
ELEMENTWISE_SHARE = 0.52
#: Of NVLink, with what packing and waiting take.
LINK_SHARE = 0.28
#: Nanoseconds that decoding and encoding take for one pixel of one frame, times the card's TFLOP/s.
DECODE_COST = 87.0 * 989
ENCODE_COST = 56.0 * 989


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Memory that may be used now, in bytes, and rates in bytes or operations a second."""

    gpu: str = ""  #: name; empty: it computes on the CPU
    gpu_total: int = 0
    gpu_free: int = 0  #: what this process may have, the operator's cap included
    capability: tuple[int, int] = (0, 0)
    host_free: int = 0  #: what this process may have, a container's limit included
    pinnable: int = 0  #: of that, what may be page-locked
    linear: float = LINEAR_SHARE * UNKNOWN.matrices * TERA
    attention: float = ATTENTION_SHARE * UNKNOWN.matrices * TERA
    elementwise: float = ELEMENTWISE_SHARE * UNKNOWN.bandwidth * 1e9
    decode_ns: float = DECODE_COST / UNKNOWN.matrices  #: for a pixel of a frame
    encode_ns: float = ENCODE_COST / UNKNOWN.matrices
    pinned_rate: float = UNKNOWN.bus * 1e9
    pageable_rate: float = 10.2e9
    disk_rate: float = 1.5e9
    gpus: int = 1  #: such GPUs that one video may have; all figures are of one of them
    link_rate: float = 20e9  #: bytes a second from one of them to another

    @property
    def computes_on_gpu(self) -> bool:
        return bool(self.gpu)

    @property
    def bf16(self) -> bool:
        """Whether the GPU computes in bf16."""
        return self.capability >= (8, 0)

    def with_free(self, gpu_free: int) -> Machine:
        return replace(self, gpu_free=gpu_free)


def card_named(name: str) -> Card:
    """The row whose name is in `name`, "NVIDIA GeForce RTX 4090"; UNKNOWN where none is."""
    wanted = name.lower()
    return max(
        (card for card in CARDS if card.name.lower() in wanted), key=lambda card: len(card.name), default=UNKNOWN
    )


def machine_of(
    name: str, total: int, free: int, capability: tuple[int, int], *, host_free: int, pin_share: float = 0.5
) -> Machine:
    """A machine with one GPU as the driver describes it. `pin_share`: of the host memory, that may be page-locked."""
    card = card_named(name)
    return Machine(
        gpu=name,
        gpu_total=total,
        gpu_free=free,
        capability=capability,
        host_free=host_free,
        pinnable=int(pin_share * host_free),
        linear=LINEAR_SHARE * card.matrices * TERA,
        attention=ATTENTION_SHARE * card.matrices * TERA,
        elementwise=ELEMENTWISE_SHARE * card.bandwidth * 1e9,
        decode_ns=DECODE_COST / card.matrices,
        encode_ns=ENCODE_COST / card.matrices,
        pinned_rate=card.bus * 1e9,
        pageable_rate=min(10.2e9, card.bus * 1e9),
        # Over the bus a card's way to another goes through the host: half of it.
        link_rate=(LINK_SHARE * card.link if card.link else 0.5 * card.bus) * 1e9,
    )


def machine_of_card(card: Card, *, host_gib: float = 32, reserved_gib: float = 1.0) -> Machine:
    """A machine with such a card: its memory but for what system and CUDA context take."""
    free = int((card.memory_gib - reserved_gib) * GIB)
    total = int(card.memory_gib * GIB)
    return machine_of(card.name, total, free, card.capability, host_free=int(host_gib * GIB))
