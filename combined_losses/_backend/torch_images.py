"""Images blurred and halved by torch, in the order in memory that they have; their spectra."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from combined_losses._backend import plain
from combined_losses._backend.arrays import Tensor


class _Windowed(torch.autograd.Function):
    """Rows, then columns, of `(batch, channels, height, width)` under a symmetric window.

    If `upright`, columns alone. Torch's own gradient of these convolutions takes up to twice as
    long as the convolutions.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor, window: Tensor, upright: bool) -> Tensor:
        return _windowed(images, window, 0, upright)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.upright = inputs[2]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (window,) = ctx.saved_tensors
        return _windowed(upstream, window, len(window) - 1, ctx.upright), None, None


def _windowed(images: Tensor, window: Tensor, rim: int, upright: bool) -> Tensor:
    """With a rim of zeros around the images."""
    channels = images.shape[1]
    passes = ((1, -1), (0, rim)), ((-1, 1), (rim, 0))
    for shape, padding in passes[upright:]:
        kernel = window.reshape(1, 1, *shape).repeat(channels, 1, 1, 1)
        images = torch.nn.functional.conv2d(images, kernel, padding=padding, groups=channels)
    return images


def blurred(images: Tensor, window: NDArray[np.float64], upright: bool = False) -> Tensor:
    # Keras copies images twice for each convolution.
    if torch.compiler.is_compiling():
        return plain.blurred(images, window, upright)
    kernel = torch.as_tensor(window, dtype=images.dtype, device=images.device)
    return _Windowed.apply(images.movedim(-1, 1), kernel, upright).movedim(1, -1)


class _Halved(torch.autograd.Function):
    """Torch's pool takes several times as long if the channels are last in memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        return _paired(_paired(images, 1), 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        for axis in (2, 1):
            size = ctx.shape[axis]
            half = upstream / 2
            upstream = half.repeat_interleave(2, axis)
            if size % 2:
                upstream = upstream.narrow(axis, 0, size)
                upstream.narrow(axis, size - 1, 1).mul_(2)
        return upstream


def _paired(images: Tensor, axis: int) -> Tensor:
    """Means of two along an axis; the last one alone if their number is odd."""
    size = images.shape[axis]
    index = [slice(None)] * images.ndim
    first, second = list(index), list(index)
    first[axis], second[axis] = slice(0, size - 1, 2), slice(1, size, 2)
    means = (images[tuple(first)] + images[tuple(second)]).div_(2)
    if size % 2:
        means = torch.cat([means, images.narrow(axis, size - 1, 1)], axis)
    return means


def halved(images: Tensor, channels_first: bool) -> Tensor:
    if channels_first or torch.compiler.is_compiling():
        return plain.halved(images, channels_first)
    found: Tensor = _Halved.apply(images)
    return found


def spectrum(planes: Tensor) -> Tensor:
    found = torch.fft.rfft2(planes)
    return found.real.square() + found.imag.square()
