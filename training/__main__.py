"""`python -m training`: train the demo model's stages one after another and write what they made."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from training.config import DEMO, TINY
from training.decoder_stage import train_decoder
from training.dit_stage import train_dit
from training.export import save_pipeline
from training.lora_stage import train_lora
from training.networks import make_networks, start_from
from training.preview_stage import train_preview
from training.progress import Limits, log
from training.vae_stage import train_vae

STAGES = ("vae", "decoder", "dit", "preview", "lora")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="gets weights/, preview.safetensors and loras/gold.safetensors"
    )
    parser.add_argument("--state", type=Path, help="where stages keep what they need to go on (default: OUT/state)")
    parser.add_argument("--init", type=Path, help="an earlier checkpoint's folder to start from")
    parser.add_argument("--config", choices=["demo", "tiny"], default="demo")
    parser.add_argument("--seed", type=int, default=0)
    for stage, seconds in zip(STAGES, (540, 150, 1080, 30, 90), strict=True):
        parser.add_argument(
            f"--{stage}-seconds", type=float, help=f"time for this stage, 0 to skip it (default {seconds})"
        )
        parser.add_argument(f"--{stage}-steps", type=int, help="the same in steps, which makes it repeatable")
        parser.set_defaults(**{f"{stage}_default": seconds})
    parser.add_argument(
        "--pause-after", type=float, help="pause the vae or dit stage after so many seconds; the same command goes on"
    )
    return parser.parse_args(argv)


def _limits(arguments: argparse.Namespace, stage: str) -> Limits | None:
    """The stage's limits, or None when it is to be skipped."""
    steps, seconds = getattr(arguments, f"{stage}_steps"), getattr(arguments, f"{stage}_seconds")
    if steps is not None:
        return Limits(steps=steps, pause_after=arguments.pause_after) if steps else None
    seconds = getattr(arguments, f"{stage}_default") if seconds is None else seconds
    return Limits(seconds=seconds, pause_after=arguments.pause_after) if seconds else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages that are asked for. -> 0 when all are finished, 3 when one was paused."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(arguments.seed)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    config = DEMO if arguments.config == "demo" else TINY
    out: Path = arguments.out
    state: Path = arguments.state or out / "state"
    state.mkdir(parents=True, exist_ok=True)
    networks = make_networks(config.shapes)
    if arguments.init:
        log.info("starting from %s: %s", arguments.init, "; ".join(start_from(arguments.init, networks)))
    networks.to(device)
    for stage, train in (("vae", train_vae), ("decoder", train_decoder), ("dit", train_dit)):
        limits = _limits(arguments, stage)
        if limits:
            finished = train(networks, config, limits, arguments.seed, device, state / f"{stage}.pt")
            save_pipeline(out / "weights", networks)
            log.info("%s: %s", stage, "finished" if finished else "paused")
            if not finished:
                return 3
    if limits := _limits(arguments, "preview"):
        train_preview(networks, config, limits, arguments.seed, device, out / "preview.safetensors")
    if limits := _limits(arguments, "lora"):
        train_lora(networks, config, limits, arguments.seed, device, out / "loras" / "gold.safetensors")
    if device.type == "cuda":
        log.info("peak GPU memory %.1f GiB", torch.cuda.max_memory_allocated() / 2**30)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
