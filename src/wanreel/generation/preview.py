"""Previews: small RGB frames straight from latents, by one linear map. Knows nothing of picture files or events.

Wan's latents are nearly linear in colour, so 3 x c numbers show what a video is becoming for the price of a matrix
product. The numbers for the two released VAEs are published (Comfy-Org/ComfyUI: comfy/latent_formats.py, Wan21 and
Wan22, latent_rgb_factors and latent_rgb_factors_bias, for normalised latents). Any other VAE is asked itself: it
encodes pictures of soft colours, and the map is the least-squares fit from its latents to the colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor

from wanreel.generation.encode import latent_statistics
from wanreel.models.wan_model import WanModel

LONGEST_SIDE = 256  #: px of a preview
_FIT_SIDE = 8  # latent px of the picture that a map is fitted on


@dataclass(frozen=True, eq=False, slots=True)
class PreviewMap:
    """RGB in -1 to 1 is latents @ factors + bias."""

    factors: Tensor  #: [c, 3]
    bias: Tensor  #: [3]

    @classmethod
    def of(cls, model: WanModel) -> PreviewMap:
        """The published map of the model's VAE, or one fitted on it (some milliseconds for small VAEs)."""
        published = _PUBLISHED.get(tuple(model.vae.config.latents_mean[:4]))
        if published is not None and len(published[0]) == model.spec.latent_channels:
            return cls(torch.tensor(published[0]), torch.tensor(published[1]))
        with model.resident("vae") as vae:
            return cls(*_fitted(vae))

    @torch.no_grad()
    def frames(self, latents: Tensor) -> NDArray[np.uint8]:
        """[f, h, w, 3] RGB, one frame a latent frame, at most LONGEST_SIDE px wide or high, from [1, c, f, h, w].

        Twice the latents' resolution when that fits: nothing sharper can be known without the VAE.
        """
        rgb = torch.einsum("cfhw,cr->frhw", latents[0].float(), self.factors.to(latents.device))
        rgb = rgb + self.bias.to(latents.device).view(1, 3, 1, 1)
        scale = LONGEST_SIDE / max(rgb.shape[-2:])
        size = [max(1, round(side * scale)) for side in rgb.shape[-2:]]
        rgb = functional.interpolate(rgb, size=size, mode="bilinear", antialias=scale < 1)
        pixels = ((rgb * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@torch.no_grad()
def _fitted(vae: Any) -> tuple[Tensor, Tensor]:
    """Factors [c, 3] and bias [3] by least squares over the first latent frame of soft random colours."""
    stride = vae.config.scale_factor_spatial
    generator = torch.Generator("cpu").manual_seed(0)
    coarse = torch.rand(8, 3, 5, 5, generator=generator) * 2 - 1
    size = _FIT_SIDE * stride
    colours = functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)
    given = colours.to(vae.device, vae.dtype).unsqueeze(2)
    latents = torch.cat([vae.encode(one).latent_dist.mode() for one in given.split(1)]).float()
    mean, inverse_std = latent_statistics(vae, latents)
    latents = ((latents - mean) * inverse_std)[:, :, 0].cpu()
    rows = latents.permute(0, 2, 3, 1).flatten(0, 2)
    wanted = functional.avg_pool2d(colours, stride).permute(0, 2, 3, 1).flatten(0, 2)
    design = torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
    solution = torch.linalg.lstsq(design, wanted.double(), driver="gelsd").solution.float()
    return solution[:-1], solution[-1]


Rows = tuple[tuple[float, float, float], ...]

# fmt: off
_WAN_21: Rows = (
    (-0.1299, -0.1692, 0.2932), (0.0671, 0.0406, 0.0442), (0.3568, 0.2548, 0.1747), (0.0372, 0.2344, 0.1420),
    (0.0313, 0.0189, -0.0328), (0.0296, -0.0956, -0.0665), (-0.3477, -0.4059, -0.2925), (0.0166, 0.1902, 0.1975),
    (-0.0412, 0.0267, -0.1364), (-0.1293, 0.0740, 0.1636), (0.0680, 0.3019, 0.1128), (0.0032, 0.0581, 0.0639),
    (-0.1251, 0.0927, 0.1699), (0.0060, -0.0633, 0.0005), (0.3477, 0.2275, 0.2950), (0.1984, 0.0913, 0.1861),
)
_WAN_22: Rows = (
    (0.0119, 0.0103, 0.0046), (-0.1062, -0.0504, 0.0165), (0.0140, 0.0409, 0.0491), (-0.0813, -0.0677, 0.0607),
    (0.0656, 0.0851, 0.0808), (0.0264, 0.0463, 0.0912), (0.0295, 0.0326, 0.0590), (-0.0244, -0.0270, 0.0025),
    (0.0443, -0.0102, 0.0288), (-0.0465, -0.0090, -0.0205), (0.0359, 0.0236, 0.0082), (-0.0776, 0.0854, 0.1048),
    (0.0564, 0.0264, 0.0561), (0.0006, 0.0594, 0.0418), (-0.0319, -0.0542, -0.0637), (-0.0268, 0.0024, 0.0260),
    (0.0539, 0.0265, 0.0358), (-0.0359, -0.0312, -0.0287), (-0.0285, -0.1032, -0.1237), (0.1041, 0.0537, 0.0622),
    (-0.0086, -0.0374, -0.0051), (0.0390, 0.0670, 0.2863), (0.0069, 0.0144, 0.0082), (0.0006, -0.0167, 0.0079),
    (0.0313, -0.0574, -0.0232), (-0.1454, -0.0902, -0.0481), (0.0714, 0.0827, 0.0447), (-0.0304, -0.0574, -0.0196),
    (0.0401, 0.0384, 0.0204), (-0.0758, -0.0297, -0.0014), (0.0568, 0.1307, 0.1372), (-0.0055, -0.0310, -0.0380),
    (0.0239, -0.0305, 0.0325), (-0.0663, -0.0673, -0.0140), (-0.0416, -0.0047, -0.0023), (0.0166, 0.0112, -0.0093),
    (-0.0211, 0.0011, 0.0331), (0.1833, 0.1466, 0.2250), (-0.0368, 0.0370, 0.0295), (-0.3441, -0.3543, -0.2008),
    (-0.0479, -0.0489, -0.0420), (-0.0660, -0.0153, 0.0800), (-0.0101, 0.0068, 0.0156), (-0.0690, -0.0452, -0.0927),
    (-0.0145, 0.0041, 0.0015), (0.0421, 0.0451, 0.0373), (0.0504, -0.0483, -0.0356), (-0.0837, 0.0168, 0.0055),
)
# fmt: on
#: By the first four latent means in the VAE's config, which tell the released VAEs from others of the same shape.
_PUBLISHED: dict[tuple[float, ...], tuple[Rows, tuple[float, float, float]]] = {
    (-0.7571, -0.7089, -0.9113, 0.1075): (_WAN_21, (-0.1835, -0.0868, -0.3360)),
    (-0.2289, -0.0052, -0.1323, -0.2339): (_WAN_22, (0.0317, -0.0878, -0.1388)),
}
