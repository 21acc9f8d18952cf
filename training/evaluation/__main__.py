"""`python -m training.evaluation`: measure a checkpoint and write a report and contact sheets."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from training.evaluation import rounds
from training.evaluation.cases import chinese_cases, shape_cases
from training.evaluation.clips import ClipMaker, Sampling
from training.evaluation.photos import pictures
from training.evaluation.pipelines import Pipelines
from training.evaluation.rounds import Outcome
from training.evaluation.sheets import write_sheet
from training.evaluation.studio import Studio
from training.scenes import Frame

log = logging.getLogger("training.evaluation")
NAMES = ("shapes", "camera", "free", "chinese", "preview", "lora", "sizes", "steps")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluation", description=__doc__)
    parser.add_argument(
        "--demo", type=Path, required=True, help="the folder with weights/, preview.safetensors and loras/"
    )
    parser.add_argument("--out", type=Path, required=True, help="gets report.json and the sheets")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--through", choices=("wanreel", "diffusers"), default="wanreel", help="whose code makes the clips"
    )
    parser.add_argument("--rounds", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--per-motion", type=int, default=8, help="held-out prompts for each of the 13 motions")
    parser.add_argument("--no-cuts", action="store_true", help="whole photographs only, not their fixed cuts")
    parser.add_argument("--seed", type=int, default=1000)
    return parser.parse_args(argv)


def _rounds(arguments: argparse.Namespace, maker: ClipMaker) -> dict[str, Callable[[], Outcome]]:
    usual, demo, seed = Sampling(), arguments.demo, arguments.seed
    photos = pictures(usual.frame.height, usual.frame.width, cuts=not arguments.no_cuts)
    whole = pictures(usual.frame.height, usual.frame.width, cuts=False)

    def shapes(sampling: Sampling, per_motion: int) -> Outcome:
        return rounds.shapes_round(maker, shape_cases(per_motion, sampling.frame), sampling, seed)

    def camera(height: int, width: int, frames: int) -> Outcome:
        sampling = Sampling(Frame(height, width, frames))
        return rounds.camera_round(maker, pictures(height, width, cuts=False), sampling, seed)

    few = max(1, arguments.per_motion // 4)
    plan: dict[str, Callable[[], Outcome]] = {
        "shapes": lambda: shapes(usual, arguments.per_motion),
        "camera": lambda: rounds.camera_round(maker, photos, usual, seed),
        "free": lambda: rounds.free_round(maker, whole["cat"], usual, seed),
        "chinese": lambda: rounds.shapes_round(maker, chinese_cases(few, usual.frame), usual, seed),
        "preview": lambda: rounds.preview_round(demo / "weights", demo / "preview.safetensors", whole),
        "lora": lambda: rounds.lora_round(maker, demo / "loras" / "gold.safetensors", whole, usual),
    }
    for height, width, frames in ((192, 192, 17), (192, 192, 33), (96, 160, 17), (128, 128, 33)):
        sampling = Sampling(Frame(height, width, frames))
        plan[f"sizes: shapes {width}x{height}x{frames}"] = lambda sampling=sampling: shapes(sampling, few)
        plan[f"sizes: camera {width}x{height}x{frames}"] = lambda h=height, w=width, f=frames: camera(h, w, f)
    for steps, guidance in ((8, 3.0), (20, 3.0), (12, 1.0), (12, 5.0)):
        plan[f"steps: shapes {steps} steps, guidance {guidance}"] = lambda s=steps, g=guidance: shapes(
            Sampling(steps=s, guidance=g), 2 * few
        )
    plan["steps: camera 12 steps, guidance 3.0"] = lambda: rounds.camera_round(
        maker, photos, Sampling(guidance=3.0), seed
    )
    return plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen rounds."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        _measure(arguments, _maker(arguments, Path(scratch)))
    return 0


def _maker(arguments: argparse.Namespace, scratch: Path) -> ClipMaker:
    weights = arguments.demo / "weights"
    if arguments.through == "wanreel":
        return Studio(weights, scratch, arguments.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return Pipelines(weights, arguments.device)


def _measure(arguments: argparse.Namespace, maker: ClipMaker) -> None:
    """The report is written after each round."""
    report: rounds.Figures = {}
    for name, run in _rounds(arguments, maker).items():
        if name.split(":")[0] not in arguments.rounds:
            continue
        start = time.monotonic()
        outcome = run()
        report[name] = outcome.figures
        log.info("%s (%.0f s): %s", name, time.monotonic() - start, json.dumps(outcome.figures, ensure_ascii=False))
        (arguments.out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        sheet = name.replace(":", "").replace(",", "").replace(" ", "_")
        write_sheet(
            outcome.rows, arguments.out / f"{sheet}.jpg", 2 if name == "preview" else 6, max(1, len(outcome.rows) // 27)
        )


if __name__ == "__main__":
    raise SystemExit(main())
