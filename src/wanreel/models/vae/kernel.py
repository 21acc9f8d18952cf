"""The Triton kernel behind `norm`. Importing it needs Triton."""
# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false, reportUnknownParameterType=false
# pyright: reportMissingParameterType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# ruff: noqa: ANN001, PLR0913

import triton
import triton.language as tl


@triton.jit
def sum_norm_silu(
    value,
    bias,
    residual,
    total,
    gamma,
    out,
    rows,
    scale,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    HEIGHT: tl.constexpr,
    BIASED: tl.constexpr,
    RESIDUAL: tl.constexpr,
) -> None:
    """One program: HEIGHT rows of CHANNELS numbers, WIDTH of them (a power of two) with the padding."""
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    column = tl.arange(0, WIDTH)
    here = (row[:, None] < rows) & (column[None, :] < CHANNELS)
    place = row.to(tl.int64)[:, None] * CHANNELS + column[None, :]
    known = column < CHANNELS
    numbers = tl.load(value + place, mask=here, other=0.0).to(tl.float32)
    if BIASED:
        numbers += tl.load(bias + column, mask=known, other=0.0).to(tl.float32)[None, :]
    if RESIDUAL:
        numbers += tl.load(residual + place, mask=here, other=0.0).to(tl.float32)
    if BIASED or RESIDUAL:
        rounded = numbers.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=here)
        numbers = rounded.to(tl.float32)
    length = tl.sqrt(tl.sum(numbers * numbers, axis=1))
    factor = tl.load(gamma + column, mask=known, other=0.0).to(tl.float32) * scale
    unit = numbers / tl.maximum(length, 1e-12)[:, None] * factor[None, :]
    tl.store(out + place, (unit * tl.sigmoid(unit)).to(out.dtype.element_ty), mask=here)
