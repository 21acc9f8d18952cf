"""The rounds of the evaluation: each asks for clips, measures them, and gives figures and a sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan  # pyright: ignore[reportPrivateImportUsage]
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from training.evaluation.cases import FREE_PROMPTS, MOVES, SAY_MOVE, ShapeCase
from training.evaluation.clips import ClipMaker, Sampling
from training.evaluation.measure import (
    OPPOSITE,
    expected,
    find_blob,
    frame_change,
    grain,
    looks_like,
    moves_as,
    pan_speed,
    pans_the_right_way,
    psnr,
    recognise,
)  # fmt: skip
from training.evaluation.photos import to_tensor
from training.lora_stage import gild
from training.preview_stage import PreviewDecoder

Figures = dict[str, Any]


@dataclass
class Outcome:
    """What a round found: figures for the report, and rows for a sheet."""

    figures: Figures
    rows: list[tuple[str, Tensor]] = field(default_factory=list[tuple[str, Tensor]])


def _share(marks: list[bool]) -> Figures:
    return {"right": sum(marks), "of": len(marks), "percent": round(100 * sum(marks) / max(1, len(marks)), 1)}


def shapes_round(maker: ClipMaker, cases: list[ShapeCase], sampling: Sampling, seed: int) -> Outcome:
    """Text to video: is the shape there in its colour, over its background, and does it move as told?"""
    clips = maker.from_text([case.prompt for case in cases], sampling, seed)
    outcome = Outcome({})
    marks: dict[str, list[bool]] = {"motion": [], "direction": [], "colour": [], "background": [], "shape": []}
    wrong: list[str] = []
    still: list[float] = []
    for case, clip in zip(cases, clips, strict=True):
        blob = find_blob(clip, case.color, case.background)
        found = {
            "motion": blob.there and moves_as(blob, case.motion), "colour": blob.there,
            "background": blob.background > 0.8, "shape": blob.there and recognise(blob) == case.shape,
        }  # fmt: skip
        for name, good in found.items():
            marks[name].append(good)
        if case.motion not in ("grow", "shrink", "spin", "bounce", "still"):
            marks["direction"].append(found["motion"])
        if case.motion == "still":
            still.append(frame_change(clip))
        faults = [name for name, good in found.items() if not good]
        if faults:
            wrong.append(f"{case.prompt} [{case.shape}, {case.motion}]: {', '.join(faults)}")
        outcome.rows.append((f"{'NO ' + ','.join(faults) if faults else 'ok'}: {case.prompt}", clip))
    outcome.figures = {name: _share(values) for name, values in marks.items()}
    outcome.figures |= {
        "still: frame change /255, mean": round(mean(still), 2),
        "still: worst": round(max(still), 2),
        "wrong": wrong,
    }
    return outcome


def camera_round(maker: ClipMaker, pictures: dict[str, Image.Image], sampling: Sampling, seed: int) -> Outcome:
    """Image to video: does the first frame keep the picture, and is the clip the move that was asked for?"""
    outcome = Outcome({})
    marks: dict[str, list[bool]] = {"move": [], "pan sign": []}
    values: dict[str, list[float]] = {"first": [], "exact": [], "copy": [], "still": [], "speed error": []}
    wrong: list[str] = []
    for index, (name, picture) in enumerate(pictures.items()):
        photo = (to_tensor(picture) + 1) / 2
        clips = maker.from_picture(picture, [SAY_MOVE[move] for move in MOVES], sampling, seed + 100 * index)
        for move, clip in zip(MOVES, clips, strict=True):
            seen = looks_like(clip, photo, MOVES)
            marks["move"].append(seen == move)
            values["first"].append(psnr(clip[0], photo))
            if move == "still":
                values["still"].append(frame_change(clip))
            else:
                answer = expected(photo, move, len(clip))
                values["exact"].append(psnr(clip, answer))
                values["copy"].append(psnr(photo.expand_as(answer), answer))
            if move in OPPOSITE:
                marks["pan sign"].append(pans_the_right_way(clip, photo, move))
                speed = pan_speed(clip, photo, move in ("left", "right"))
                values["speed error"].append(abs(speed - (2.0 if move in ("left", "up") else -2.0)))
            if seen != move:
                wrong.append(f"{name}: asked {move}, looks like {seen}")
            outcome.rows.append((f"{'ok' if seen == move else 'NO'}: {name}: {SAY_MOVE[move]}", clip))
    outcome.figures = {name: _share(found) for name, found in marks.items()} | {
        "first frame dB, mean": round(mean(values["first"]), 2), "first frame dB, lowest": round(min(values["first"]), 2),
        "to the exact clip dB": round(mean(values["exact"]), 2), "a still copy to it dB": round(mean(values["copy"]), 2),
        "pan speed error px/frame, mean": round(mean(values["speed error"]), 2),
        "still: frame change /255, mean": round(mean(values["still"]), 2), "still: worst": round(max(values["still"]), 2),
        "wrong": wrong,
    }  # fmt: skip
    return outcome


def free_round(maker: ClipMaker, picture: Image.Image, sampling: Sampling, seed: int) -> Outcome:
    """Prompts outside of the world, in several languages: is the clip still a calm picture rather than noise?"""
    prompts: list[str] = list(FREE_PROMPTS)
    outcome, marks, photo = Outcome({}), list[bool](), (to_tensor(picture) + 1) / 2
    drawn = [("text", p, c) for p, c in zip(prompts, maker.from_text(prompts, sampling, seed), strict=True)]
    drawn += [
        ("photo", p, c) for p, c in zip(prompts, maker.from_picture(picture, prompts, sampling, seed), strict=True)
    ]
    worst = {"frame change": 0.0, "grain": 0.0}
    for kind, prompt, clip in drawn:
        change, noise = frame_change(clip), grain(clip)
        contrast = clip.std().item() * 255
        good = (
            bool(torch.isfinite(clip).all())
            and change < 16
            and noise < 16
            and (kind == "text" or psnr(clip[0], photo) > 20)
        )
        marks.append(good and contrast > 1)
        worst = {"frame change": max(worst["frame change"], change), "grain": max(worst["grain"], noise)}
        outcome.rows.append((f"{kind}: {prompt} (change {change:.1f}, grain {noise:.1f})", clip))
    outcome.figures = {"sensible": _share(marks), **{f"worst {k} /255": round(v, 1) for k, v in worst.items()}}
    return outcome


def preview_round(weights: Path, file: Path, pictures: dict[str, Image.Image]) -> Outcome:
    """The preview decoder against the VAE's own picture at half size."""
    vae: Any = AutoencoderKLWan.from_pretrained(str(weights / "vae"))
    decoder = PreviewDecoder(int(vae.config.z_dim))
    decoder.load_state_dict({k: v.float() for k, v in load_file(file).items()})
    x = torch.stack([to_tensor(p) for p in pictures.values()]).unsqueeze(2)
    with torch.no_grad():
        latents = vae.encode(x).latent_dist.mode()
        full = vae.decode(latents).sample[:, :, 0]
        mean_, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
        shown = decoder((latents[:, :, 0] - mean_) / std).clamp(-1, 1)
    small = F.avg_pool2d(full, 2)
    scores = [psnr((a + 1) / 2, (b + 1) / 2) for a, b in zip(shown, small, strict=True)]
    pairs = torch.stack((small, shown), 1) / 2 + 0.5
    rows = [(f"{n} {s:.1f} dB", pair) for n, s, pair in zip(pictures, scores, pairs, strict=True)]
    return Outcome({"preview dB, mean": round(mean(scores), 2), "lowest": round(min(scores), 2)}, rows)


def lora_round(maker: ClipMaker, file: Path, pictures: dict[str, Image.Image], sampling: Sampling) -> Outcome:
    """The LoRA on: is the clip nearer to its gilded self than without? And is the next clip without it as before?"""
    prompts = ["a blue circle moves right over a white background", "a green star grows over a purple background"]
    moves = ["the camera pans left", "a static shot"]
    without = maker.from_text(prompts, sampling, 5)
    clips = maker.from_text(prompts, sampling, 5, lora=file)
    rows = [(f"gold: {p}", c) for p, c in zip(prompts, clips, strict=True)]
    scores: list[float] = []
    plain = [psnr(gild(c.transpose(0, 1)[None] * 2 - 1)[0, :, -1] / 2 + 0.5, c[-1]) for c in without]
    for name, picture in pictures.items():
        photo = (to_tensor(picture) + 1) / 2
        for move, clip in zip(("left", "still"), maker.from_picture(picture, moves, sampling, 5, file), strict=True):
            wanted = gild(expected(photo, move, len(clip)).transpose(0, 1)[None] * 2 - 1)[0].transpose(0, 1) / 2 + 0.5
            scores.append(psnr(clip[-1], wanted[-1]))
            rows.append((f"gold: {name}, {SAY_MOVE[move]}: last frame {scores[-1]:.1f} dB to the gilded move", clip))
    again = maker.from_text(prompts, sampling, 5)
    same = all(torch.equal(a, b) for a, b in zip(without, again, strict=True))
    figures: Figures = {
        "last frame to the gilded move dB, mean": round(mean(scores), 2), "plain clips to their gilded selves dB": round(mean(plain), 2),
        "the same clips after unloading": same,
    }  # fmt: skip
    return Outcome(figures, rows)
