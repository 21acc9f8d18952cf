"""Rank: a process that computes its part of what rank 0 runs. Knows nothing of requests, jobs, files or steps.

It does what it is told, in order; it leaves when rank 0 is gone, whatever it is doing then.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wanreel.core.errors import DeviceFault, OutOfMemory, WanreelError
from wanreel.core.lora import ResolvedLora
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement
from wanreel.models.lean import Rows
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.parallel.crew import BEAT
from wanreel.models.parallel.decoding import BandDecoder
from wanreel.models.parallel.passes import Inputs, predict_part, receive
from wanreel.models.parallel.shards import SharedBlocks
from wanreel.models.parallel.sharing import share_out
from wanreel.models.parallel.wire import Message, Wire
from wanreel.models.ranks.bands import Bands
from wanreel.models.ranks.mesh import Mesh, Meshes, join, part
from wanreel.models.step.path import Manner, StepPath
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear

Open = Callable[[str, Placement], WanModel]


class Stopped(Exception):
    """Rank 0 stops the work at hand. Not an error."""


@dataclass
class Rank:
    """One further rank. `open` loads a model of the catalogue by its name."""

    wire: Wire
    hello: Mapping[str, Any]  #: where to meet whom: "store", "rank", "ranks"
    device: torch.device
    open: Open
    loras: LoraShelf | None = None
    _orders: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue[Any])
    _models: dict[str, WanModel] = field(default_factory=dict[str, WanModel])
    _encoders: dict[str, SharedBlocks] = field(default_factory=dict[str, SharedBlocks])  #: blocks to walk along with
    _inputs: dict[str, Inputs] = field(default_factory=dict[str, Inputs])  #: of the last prediction
    _meshes: Meshes | None = None

    def serve(self) -> int:
        """Do what rank 0 says until it says to leave. The exit code: 1 after an error, which it was told."""
        over = threading.Event()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()
        threading.Thread(target=self._beat, args=(over,), name="beat", daemon=True).start()
        self.wire.send({"done": True})
        try:
            while (order := self._orders.get())["do"] != "leave":
                self._obey(order)
        except WanreelError as error:
            self.wire.send({"error": error.message, "code": error.code})
            return 1
        except torch.OutOfMemoryError as error:
            self.wire.send(_said_of(error))
            return 1
        except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
            self.wire.send({"error": f"{type(error).__name__}: {error}"[:500], "code": DeviceFault.code})
            return 1
        finally:
            over.set()
        part()
        return 0

    def _obey(self, order: Message) -> None:
        match order["do"]:
            case "join":
                self._meshes = join(self.device, Path(self.hello["store"]), self.hello["rank"], self.hello["ranks"])
            case "open":
                self.wire.send(self._open(order))
                return
            case "share":
                model = self._models[order["model"]]
                self._encoders[order["model"]] = share_out(model, self._mesh(order).everybody)
            case "drop":
                self._forget(order["model"])
            case "wear":
                loras = tuple(ResolvedLora.from_dict(values) for values in order["loras"])
                wear(self._models[order["model"]], loras, order["steps"], self.loras)
            case "predict":
                self._predict(order)
                return
            case "decode":
                self._decode(order)
                return
            case "walk":
                for _ in self._encoders[order["model"]].walk():
                    pass
                return
            case _:
                raise ValueError(f"an order that is not known: {order['do']!r}")
        self.wire.send({"done": True})

    def _open(self, order: Message) -> Message:
        """The answer. Nobody waits for this rank meanwhile, so where memory runs out it goes on without the model."""
        self._forget(order["model"])
        placement = Placement.from_dict(order["placement"])
        try:
            self._models[order["model"]] = self.open(order["model"], placement)
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            said = _said_of(error)
        else:
            return {"done": True}
        # Out of the handler, which holds every tensor of the frames that the error came through.
        self._forget(order["model"])
        return {**said, "goes_on": True}

    def _forget(self, name: str) -> None:
        self._encoders.pop(name, None)
        self._inputs.pop(name, None)
        model = self._models.pop(name, None)
        if model is not None:
            model.vacate()
        del model
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _predict(self, order: Message) -> None:
        """Takes part without an answer: what rank 0 gets is the exchange itself."""
        model = self._models[order["model"]]
        expert = model.experts[order["expert"]]
        expert.rows = Rows(*order["rows"]) if order["rows"] else None
        manner = Manner(**order["manner"]) if order["manner"] else None
        if manner is None:
            expert.step = None
        elif expert.step is None or expert.step.manner != manner:
            expert.step = StepPath(expert, manner, model.compiler)
        expert.loras.strengthen(order["strengths"])
        mesh = self._mesh(order)
        kept = self._inputs.get(order["model"]) if order["kept"] else None
        inputs = receive(order["tensors"], mesh.everybody, self.device, kept)
        self._inputs[order["model"]] = inputs
        try:
            predict_part(expert, mesh, inputs, self._go)
        except Stopped:
            return

    def _decode(self, order: Message) -> None:
        """The same for a band of the frames, of which rank 0 gets all."""
        if self._meshes is None:
            raise ValueError("nobody was met")
        dtype, shape = order["form"]
        circle = self._meshes.everybody
        latents = torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
        dist.broadcast(latents, 0, group=circle.group)
        bands = Bands.of(circle, latents.shape[-2])
        if bands is None:
            raise ValueError("fewer rows than ranks")
        with self._models[order["model"]].resident("vae") as vae:
            try:
                for _ in BandDecoder(vae, bands, order["lean"], self._go).chunks(latents):
                    pass
            except Stopped:
                return

    def _mesh(self, order: Message) -> Mesh:
        if self._meshes is None:
            raise ValueError("nobody was met")
        return self._meshes.of(Parallel.from_dict(order["parallel"]))

    def _go(self) -> None:
        """Before each block: whether it is computed."""
        if not self._orders.get()["go"]:
            raise Stopped

    def _listen(self) -> None:
        while (order := self.wire.receive()) is not None:
            self._orders.put(order)
        os._exit(0)  # rank 0 is gone, and no exchange will ever end

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(BEAT):
            try:
                self.wire.send({"beat": True})
            except (OSError, ValueError):
                return


def _said_of(error: OutOfMemory | torch.OutOfMemoryError) -> Message:
    """As rank 0 is told."""
    said = error.message if isinstance(error, OutOfMemory) else str(error).partition(". ")[0]
    return {"error": said, "code": OutOfMemory.code}
