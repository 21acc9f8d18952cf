"""cuDNN's fp8 attention through the package nvidia-cudnn-frontend. Imports it. On Hopper its result is e4m3 too."""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cudnn
import torch
from torch import Tensor

#: Probabilities, at most 1, are multiplied with this before they are rounded.
_LIFT = 256.0
_PLANS = 32  #: kept; a plan is of one shape


@dataclass(frozen=True, slots=True)
class _Plan:
    """cuDNN's graph for one shape, and the tensors that it is fed with."""

    graph: Any
    given: dict[str, Any]
    out: Any
    spare: dict[Any, Tensor]
    workspace: Tensor
    lift: Tensor
    sink: Tensor


@dataclass
class CudnnEight:
    """Plans by shape, on one device."""

    device: torch.device
    _handle: Any = field(default_factory=cudnn.create_handle)
    _plans: dict[tuple[int, ...], _Plan] = field(default_factory=dict[tuple[int, ...], _Plan])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scales: Tensor) -> Tensor:
        """e4m3 [b, tokens, heads, d], to be multiplied with value's scale. scales: fp32 [4], of query, key and value,
        and one over value's: each row of the result is a mean of rows of value, which bounds it."""
        plan = self._plan(query, key)
        cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream(self.device).cuda_stream)
        out = torch.empty(query.shape, dtype=torch.uint8, device=query.device)
        of_query, of_key, of_value, over_value = (it.reshape(1, 1, 1, 1) for it in scales.unbind())
        given = plan.given
        fed = {given[name]: it.view(torch.uint8) for name, it in (("q", query), ("k", key), ("v", value))}
        fed |= {given["descale_q"]: of_query, given["descale_k"]: of_key, given["descale_v"]: of_value}
        fed |= {given["descale_s"]: plan.sink, given["scale_s"]: plan.lift, given["scale_o"]: over_value}
        plan.graph.execute(fed | {plan.out: out} | plan.spare, plan.workspace, handle=self._handle)
        return out.view(query.dtype)

    def _plan(self, query: Tensor, key: Tensor) -> _Plan:
        batch, queries, heads, width = query.shape
        shape = (batch, queries, heads, width, key.shape[1])
        if shape not in self._plans:
            if len(self._plans) >= _PLANS:
                del self._plans[next(iter(self._plans))]
            try:
                self._plans[shape] = self._build(*shape, largest=2)
            except cudnn.cudnnGraphNotSupportedError:  # some releases give the result's alone
                self._plans[shape] = self._build(*shape, largest=1)
        return self._plans[shape]

    def _build(self, batch: int, queries: int, heads: int, width: int, keys: int, *, largest: int) -> _Plan:
        eight, single = cudnn.data_type.FP8_E4M3, cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            io_data_type=eight, intermediate_data_type=single, compute_data_type=single, handle=self._handle
        )

        def numbers(name: str, rows: int) -> Any:
            strides = [rows * heads * width, width, heads * width, 1]
            return graph.tensor(name=name, dim=[batch, heads, rows, width], stride=strides, data_type=eight)

        def one(name: str) -> Any:
            return graph.tensor(name=name, dim=[1, 1, 1, 1], stride=[1, 1, 1, 1], data_type=single)

        given = {name: numbers(name, rows) for name, rows in (("q", queries), ("k", keys), ("v", keys))}
        given |= {
            name: one(name) for name in ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
        }
        out, _, of_sums, of_out = graph.sdpa_fp8(**given, generate_stats=False, attn_scale=width**-0.5)
        strides = [queries * heads * width, width, heads * width, 1]
        out.set_output(True).set_dim([batch, heads, queries, width]).set_stride(strides).set_data_type(eight)
        written = [of_out, of_sums][:largest]  # the largest numbers, by the kernel; nobody reads them
        for it in written:
            it.set_output(True).set_dim([1, 1, 1, 1]).set_stride([1, 1, 1, 1]).set_data_type(single)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A])
        graph.check_support()
        graph.build_plans()

        def number(value: float) -> Tensor:
            return torch.full((1, 1, 1, 1), value, device=self.device)

        workspace = torch.empty(max(graph.get_workspace_size(), 1), dtype=torch.uint8, device=self.device)
        spare = {it: number(0.0) for it in written}
        return _Plan(graph, given, out, spare, workspace, number(_LIFT), number(1 / _LIFT))
