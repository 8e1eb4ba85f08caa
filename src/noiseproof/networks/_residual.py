"""The blocks of residual networks, spiking and plain."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn.functional import pad

from noiseproof.networks._architecture import NeuronArchitecture
from noiseproof.networks._spiking import Residual, SequenceDropout


class PaddedShortcut(nn.Module):
    """The shortcut without parameters ("option A"): every `stride`-th pixel, and zeros for the channels that are new."""

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Tensor) -> Tensor:
        return pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class ImageMean(nn.Module):
    """[B, C, H, W] → [B, C]: the mean over the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1))


def out_shape(shape: tuple[int, ...], channels: int, stride: int) -> tuple[int, ...]:
    """Return the shape after a 3×3 convolution with padding 1."""
    return (channels, *(-(-side // stride) for side in shape[1:]))


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3×3 convolution without bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def post_activated(
    architecture: NeuronArchitecture,
    shape: tuple[int, ...],
    channels: int,
    stride: int,
    *,
    norm: bool,
    option_a: bool,
    dropout: float = 0.0,
) -> Residual:
    """Return conv – (norm) – act – (dropout) – conv – (norm), added to the shortcut, then act. Source: He et al., arXiv:1512.03385."""
    after = out_shape(shape, channels, stride)
    body = OrderedDict[str, nn.Module](conv1=conv3(shape[0], channels, stride))
    if norm:
        body["norm1"] = nn.BatchNorm2d(channels)
    body["act"] = architecture.activation(after)
    if dropout:
        body["dropout"] = SequenceDropout(dropout) if architecture.spiking else nn.Dropout(dropout)
    body["conv2"] = conv3(channels, channels)
    if norm:
        body["norm2"] = nn.BatchNorm2d(channels)
    shortcut: nn.Module = nn.Identity()
    if (channels, stride) != (shape[0], 1):
        new = nn.Conv2d(shape[0], channels, 1, stride, bias=False)
        shortcut = PaddedShortcut(channels - shape[0], stride) if option_a else new
    return Residual(nn.Sequential(body), shortcut, architecture.activation(after))


def pre_activated(architecture: NeuronArchitecture, shape: tuple[int, ...], channels: int, stride: int) -> nn.Sequential:
    """Return norm – act – conv – norm – act – conv, added to the shortcut. Source: Zagoruyko and Komodakis, arXiv:1605.07146.

    Where the shape changes, the first norm and act come before both branches and the shortcut is a 1×1 convolution.
    """
    after, begin = out_shape(shape, channels, stride), [nn.BatchNorm2d(shape[0]), architecture.activation(shape)]
    rest = OrderedDict[str, nn.Module](
        conv1=conv3(shape[0], channels, stride), norm2=nn.BatchNorm2d(channels), act2=architecture.activation(after),
        conv2=conv3(channels, channels),
    )  # fmt: skip
    if (channels, stride) == (shape[0], 1):
        body = nn.Sequential(OrderedDict[str, nn.Module](norm1=begin[0], act1=begin[1], **rest))
        return nn.Sequential(OrderedDict(sum=Residual(body, nn.Identity(), nn.Identity())))
    shortcut = nn.Conv2d(shape[0], channels, 1, stride, bias=False)
    summed = Residual(nn.Sequential(rest), shortcut, nn.Identity())
    return nn.Sequential(OrderedDict[str, nn.Module](norm1=begin[0], act1=begin[1], sum=summed))
