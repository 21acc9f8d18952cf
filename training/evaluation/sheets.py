"""Contact sheets: one clip a row, a few of its frames, a caption above. Knows nothing of what is shown."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor


def write_sheet(rows: list[tuple[str, Tensor]], path: Path, frames: int = 6, columns: int = 1) -> None:
    """`rows` of (caption, clip [t, 3, h, w] in [0, 1]), in `columns` of rows."""
    t, _, h, w = rows[0][1].shape
    at = [round(i * (t - 1) / (frames - 1)) for i in range(frames)]
    lines = -(-len(rows) // columns)
    block = frames * (w + 2) + 6
    sheet = Image.new("RGB", (columns * block, lines * (h + 15)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (caption, clip) in enumerate(rows):
        x, y = index // lines * block, index % lines * (h + 15)
        pen.text((x + 2, y + 1), caption.encode("ascii", "replace").decode()[:150], fill="black")
        for column, frame in enumerate(at):
            pixels = (clip[frame].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().numpy()
            sheet.paste(Image.fromarray(pixels), (x + column * (w + 2), y + 14))
    sheet.save(path, quality=88)
