"""Ring attention: keys and values go round while queries stay (arXiv 2310.01889). Knows nothing of heads or blocks.

What the kernel returns beside its output, the logarithm of the sum of exponentials, is enough to join the attention over
parts of the keys into that over all of them, in fp32 (the online softmax, arXiv 1805.02867). While one part is attended
to, the next one travels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d


def attend_around(query: Tensor, key: Tensor, value: Tensor, ring: str, padding: int) -> Tensor:
    """Attention of this rank's queries over the keys of every rank of the group `ring`, the last `padding` aside.

    [b, part, heads, d] each. Every rank begins with its own keys and goes on with those of the rank before, so ranks add
    up in different orders: results differ between ranks' tokens by fp32 rounding of the same sums.
    """
    return _around(query, key, value, ring, padding)


@torch.library.custom_op("wanreel::attend_around", mutates_args=())
def _around(query: Tensor, key: Tensor, value: Tensor, ring: str, padding: int) -> Tensor:
    library: Any = distributed_c10d  # the only door from a group's name, which compiled code holds
    group = library._resolve_process_group(ring)
    ranks, place = dist.get_process_group_ranks(group), dist.get_rank(group)
    part = key.shape[1]
    tokens = part * len(ranks) - padding
    held = torch.stack([key, value])
    out: Tensor | None = None
    sums: Tensor | None = None
    for turn in range(len(ranks)):
        last = turn == len(ranks) - 1
        coming, transfers = (held, []) if last else _pass_on(held, group, ranks, place)
        count = min(part, max(0, tokens - (place - turn) % len(ranks) * part))
        if count:
            keys, values = held[:, :, :count].unbind(0)
            more, more_sums = attend_with_sums(query, keys, values)
            out, sums = _joined(out, sums, more.float(), more_sums.float())
        for transfer in transfers:
            transfer.wait()
        held = coming
    if out is None:
        raise ValueError("There are no tokens to attend to.")
    return out.to(query.dtype).contiguous()


@_around.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, ring: str, padding: int) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _pass_on(held: Tensor, group: Any, ranks: list[int], place: int) -> tuple[Tensor, list[Any]]:
    """Begin to hand `held` on and to take what the rank before has."""
    coming = torch.empty_like(held)
    operations = [
        dist.P2POp(dist.isend, held, ranks[(place + 1) % len(ranks)], group),
        dist.P2POp(dist.irecv, coming, ranks[place - 1], group),
    ]
    return coming, dist.batch_isend_irecv(operations)


def _joined(out: Tensor | None, sums: Tensor | None, part: Tensor, part_sums: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys from that over each."""
    if out is None or sums is None:
        return part, part_sums
    both = torch.logaddexp(sums, part_sums)
    before, now = torch.exp(sums - both), torch.exp(part_sums - both)
    # [b, heads, tokens] beside [b, tokens, heads, d]
    out = out * before.transpose(1, 2).unsqueeze(-1) + part * now.transpose(1, 2).unsqueeze(-1)
    return out, both


def attend_with_sums(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """torch's own attention with its log-sum-exp; [b, tokens, heads, d] and [b, heads, tokens] fp32.

    scaled_dot_product_attention hides the sums, the operators below it do not: flash attention on CPUs and GPUs, cuDNN
    where it is the faster one (see attention.py).
    """
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    aten = torch.ops.aten
    if query.device.type == "cpu":
        out, sums = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif torch.cuda.get_device_capability(query.device) == (9, 0) and torch.backends.cuda.cudnn_sdp_enabled():
        out, sums = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True)[:2]
        sums = sums.view(out.shape[:3])
    else:
        out, sums = aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    return out.transpose(1, 2), sums
