"""A chat model of the operator's from a local folder: one question, one answer. Never goes online, runs no code of it.

`python -m wanreel.models.chat` answers one JSON question from standard input and ends, so that whoever asks needs no
torch, and gets all memory back. Knows nothing of prompts.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from wanreel.core.errors import BrokenWeights, WanreelError
from wanreel.models.components import quiet
from wanreel.models.edit_processor import IMAGE, EditProcessor
from wanreel.models.folder import read_json
from wanreel.models.pretrained import read_module, read_tokenizer

SEEING = "qwen2_5_vl"  #: model_type of the one kind that is shown pictures
_SIDE = 768  # px at most of the picture that is shown


@dataclass(frozen=True)
class Chat:
    """A loaded chat model."""

    module: Any
    tokenizer: Any
    images: Any | None  #: its image processor, where it sees

    @torch.no_grad()
    def answer(self, told: str, prompt: str, png: bytes | None = None, most_tokens: int = 400) -> str:
        """The likeliest answer, word by word; the same for the same question."""
        seen = f"<|vision_start|>{IMAGE}<|vision_end|>" if png is not None and self.images is not None else ""
        turns = [{"role": "system", "content": told}, {"role": "user", "content": seen + prompt.replace("<|", "< |")}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        if seen and png is not None:
            read: Any = EditProcessor(self.tokenizer, self.images)(text=[text], images=[_small(png)])
        else:
            read = self.tokenizer([text], return_tensors="pt", return_token_type_ids=False)
        read = read.to(self.module.device)
        with quiet():
            made = self.module.generate(**read, max_new_tokens=most_tokens, do_sample=False)
        return self.tokenizer.decode(made[0, read["input_ids"].shape[1] :], skip_special_tokens=True)


def load_chat(folder: Path, device: torch.device | str = "cpu") -> Chat:
    """The model in `folder`. Raises BrokenWeights when it can't be read as safetensors of a known architecture."""
    device = torch.device(device)
    sees = read_json(folder / "config.json").get("model_type") == SEEING
    kind: Any = Qwen2_5_VLForConditionalGeneration if sees else AutoModelForCausalLM
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    module = read_module(kind, folder, folder.name, torch_dtype=dtype, trust_remote_code=False)
    tokenizer = read_tokenizer(folder, folder.name)
    if not tokenizer.chat_template:
        raise BrokenWeights(f"{folder.name} is no chat model: its tokenizer has no template.")
    images = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True) if sees else None
    return Chat(module.to(device), tokenizer, images)


def _small(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    return picture


def _answered(asked: Mapping[str, Any]) -> dict[str, str]:
    png = base64.b64decode(asked["png"]) if asked.get("png") else None
    try:
        chat = load_chat(Path(asked["folder"]), asked["device"])
        return {"answer": chat.answer(asked["told"], asked["prompt"], png)}
    except WanreelError as error:
        return {"error": error.message}
    except (torch.OutOfMemoryError, MemoryError):
        return {"error": "Memory ran out."}


if __name__ == "__main__":
    json.dump(_answered(json.load(sys.stdin)), sys.stdout)
