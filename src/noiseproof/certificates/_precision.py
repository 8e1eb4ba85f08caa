"""Single precision as it is meant: what a certificate says of float32 is not true of TF32 or bfloat16 products."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

backends: Any = torch.backends  # whose settings of precision have no types


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products and convolutions in float32, on CUDA without TF32 and on CPUs without bfloat16; then as before.

    Both of PyTorch's ways to ask for less are closed, the older flags (`allow_tf32`, `set_float32_matmul_precision`) and `fp32_precision`.
    On CUDA a convolution may still be computed by Winograd's way or FFT. It holds for the whole process, not for one thread.
    Also a decorator.

    Source: PyTorch, notes on numerical accuracy and on CUDA semantics (TF32).

    >>> torch.set_float32_matmul_precision("medium")
    >>> with full_precision():
    ...     torch.get_float32_matmul_precision()
    'highest'
    >>> torch.get_float32_matmul_precision()
    'medium'
    >>> torch.set_float32_matmul_precision("highest")
    """
    settings = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [setting.fp32_precision for setting in settings]
    products, convolutions = _older_products(), _older_convolutions()
    try:
        # the older flags set the newer ones too; the other way round PyTorch refuses to read the older ones
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = False
        for setting in settings:
            if setting.fp32_precision not in ("ieee", "none"):  # it follows a setting for all
                setting.fp32_precision = "ieee"
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        backends.cudnn.allow_tf32 = convolutions
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _older_products() -> str:
    """Return what was asked for by the older way; PyTorch refuses to tell where the newer one asks for less, and the older for all."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


def _older_convolutions() -> bool:
    """Return `cudnn.allow_tf32`, which PyTorch refuses to tell where it and the newer setting say different things."""
    try:
        return backends.cudnn.allow_tf32
    except RuntimeError:
        return backends.cudnn.conv.fp32_precision != "tf32"
