"""Muon and AdamW, the rate's course, the moving average, and steps captured as CUDA graphs. Knows nothing of the losses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

#: One launch for many tensors. Read by name, because torch's stubs don't export these functions.
_each: Any = SimpleNamespace(
    **{name: getattr(torch, f"_foreach_{name}") for name in ("lerp_", "lerp", "mul_", "add_", "zero_")}
)
_ADAM_PARTS = (
    "shared", "embed_tokens", "encoder.block.", "bias", "gamma", "scale_shift_table", "patch_embedding", "proj_out", "norm",
)  # fmt: skip


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by five Newton-Schulz steps, batched over weights of one shape.

    The coefficients are Keller Jordan's (https://kellerjordan.github.io/posts/muon/).
    """

    def __init__(
        self, params: Sequence[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), parameters in by_shape.items():
                self._step_shape(parameters, rows, columns, group)

    def _step_shape(self, parameters: list[nn.Parameter], rows: int, columns: int, group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.state[p].setdefault("m", torch.zeros_like(p)) for p in parameters]
        _each.lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = _each.lerp(gradients, momenta, group["momentum"])
        x = torch.stack([v.reshape(rows, columns) for v in nesterov])
        x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
        x = x.mT if rows > columns else x
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):
            a = x @ x.mT
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        x = (x.mT if rows > columns else x).float() * (-group["lr"] * max(1, rows / columns) ** 0.5)
        _each.mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        _each.add_(parameters, [u.reshape(p.shape) for p, u in zip(parameters, x, strict=True)])


class Optimizers:
    """Muon for hidden weights; AdamW for embeddings, norms, biases, tables and the transformer's ends."""

    def __init__(self, modules: Sequence[nn.Module], muon_rate: float, adam_rate: float) -> None:
        named = {id(p): (n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad}.values()
        hidden = [p for n, p in named if _is_hidden(n, p)]
        rest = [p for n, p in named if not _is_hidden(n, p)]
        self.parameters = hidden + rest
        self._parts: list[torch.optim.Optimizer] = []
        self._rates: list[float] = []
        if hidden:
            self._parts.append(Muon(hidden, muon_rate))
            self._rates.append(muon_rate)
        if rest:
            fused = rest[0].is_cuda
            self._parts.append(torch.optim.AdamW(rest, adam_rate, (0.9, 0.95), weight_decay=0.0, fused=fused))
            self._rates.append(adam_rate)

    def step(self, factor: float) -> Tensor:
        """Clip to norm 1 and update at `factor` of the base rates. -> the gradients' norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, rate in zip(self._parts, self._rates, strict=True):
            part.param_groups[0]["lr"] = rate * factor
            part.step()
        return norm

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() >= 2 and not any(part in name for part in _ADAM_PARTS)


def rate_factor(step: int, done: float, warmup: int, level: float) -> float:
    """Up over `warmup` steps, level until `level` of the time is done, then a cosine down to 2 %."""
    rise = min(1.0, (step + 1) / warmup)
    if done < level:
        return rise
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - level) / (1 - level)))))


class Average:
    """An exponential moving average of modules' weights; short-sighted at first."""

    def __init__(self, modules: Sequence[nn.Module], decay: float) -> None:
        self.modules = [copy.deepcopy(m).requires_grad_(False) for m in modules]
        self._decay = decay
        self._live = [p for m in modules for p in m.parameters()]
        self._mean = [p for m in self.modules for p in m.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        _each.lerp_(self._mean, self._live, 1 - min(self._decay, (1 + step) / (10 + step)))


Loss = Callable[..., tuple[Tensor, ...]]


class GradientStep:
    """Computes a loss and its gradients, on CUDA as one graph for each input shape (capture once, then replay).

    `loss` takes tensors and returns (loss, figures…). Gradients go into the parameters' `.grad`; when
    `into_first`, also into the first input, whose gradient is returned by `first_gradient`.
    """

    def __init__(self, loss: Loss, parameters: Sequence[nn.Parameter], into_first: bool, capture: bool) -> None:
        self._loss, self._parameters, self._into_first = loss, parameters, into_first
        self._capture = capture
        self._graphs: dict[tuple[torch.Size, ...], tuple[Any, list[Tensor], tuple[Tensor, ...]]] = {}
        self._memory: Any = None
        self.first_gradient: Tensor | None = None
        for p in parameters:
            p.grad = torch.zeros_like(p)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """-> what `loss` returned, detached."""
        if not self._capture:
            static = self._own(inputs)
            return self._run(static)
        key = tuple(x.shape for x in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._record(inputs)
        graph, static, outputs = self._graphs[key]
        with torch.no_grad():
            for own, given in zip(static, inputs, strict=True):
                own.copy_(given)
        graph.replay()
        self.first_gradient = static[0].grad
        return tuple(x.clone() for x in outputs)

    def _own(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        static = [x.detach().clone() for x in inputs]
        if self._into_first:
            static[0].requires_grad_()
            static[0].grad = torch.zeros_like(static[0])
        return static

    def _run(self, static: list[Tensor]) -> tuple[Tensor, ...]:
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self._into_first and static[0].grad is not None:
            gradients.append(static[0].grad)
        _each.zero_(gradients)
        outputs = self._loss(*static)
        outputs[0].backward()
        self.first_gradient = static[0].grad
        return tuple(x.detach() for x in outputs)

    def _record(self, inputs: Sequence[Tensor]) -> tuple[Any, list[Tensor], tuple[Tensor, ...]]:
        static = self._own(inputs)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._run(static)
        torch.cuda.current_stream().wait_stream(aside)
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            outputs = self._run(static)
        return graph, static, outputs
