"""Residual networks in their CIFAR form: a 3x3 stem without pool, four or three stages, the mean over the image, readout.

They differ in what is added: `resnet18` and `resnet19` add currents before the block's last neuron, `preact_resnet18`
adds currents that no neuron follows, `sew_resnet18` adds spikes. Blocks are named `block1_1`, ... by stage and place.
Weights are counted without norms and biases; sizes are those at width 1. All options are told once, in
`spikeprune.zoo.make`.

Reading of the papers
  stated    stages and blocks; the places of neurons and of the additions.
  inferred  projections (1x1) only where channels or size change; readouts with bias; the output is the mean over time.
  differs   images of CIFAR's size throughout, where SEW was first shown on ImageNet with a 7x7 stem.
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from spikeprune.zoo.neurons import LTH, SCA, UPR, Neuron
from spikeprune.zoo.parts import Block, Coding, Image, SpikingNet, check, conv, folded, linear, norm, widened

Build = Callable[[int, int, int], Block]
EIGHTEEN = ((64, 2), (128, 2), (256, 2), (512, 2))


def resnet18(
    *,
    classes: int = 10,
    timesteps: int = 4,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = UPR,
    coding: Coding = "direct",
) -> SpikingNet:
    """Build stages of two blocks, 64-128-256-512 channels: 11,159,232 convolution weights and 512 a class.

    Currents are added before the block's last neuron: y = neuron(norm(conv(...)) + x).

    Source: He, Zhang, Ren, Sun. Deep Residual Learning. CVPR 2016, with neurons for ReLUs; used by SCA (ICML 2024) and SPEAR.

    Example:
        >>> resnet18(width=1 / 16).block2_1.shortcut[0]
        Conv2d(4, 8, kernel_size=(1, 1), stride=(2, 2), bias=False)
    """
    parts, features = _stages(EIGHTEEN, image, classes, width, partial(AddCurrents, neuron=neuron))
    stem = {"conv1": parts.pop("conv1"), "norm1": norm(widened(64, width)), "neuron1": neuron.build()}
    parts = stem | parts | {"fc": nn.Linear(features, classes)}
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def resnet19(
    *,
    classes: int = 10,
    timesteps: int = 4,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = LTH,
    coding: Coding = "direct",
) -> SpikingNet:
    """Build 128x3-256x3-512x2 blocks-FC256-FC: 12,553,600 convolution weights, 131,072 and 256 a class.

    Threshold-dependent batch norm: gains start at the neuron's threshold, and at its 1 / sqrt(2) where two normed currents
    are added, so that the sum has the variance that the threshold asks for.

    Source: Zheng, Wu, Deng, Hu, Li. Going Deeper With Directly-Trained Larger Spiking Neural Networks (tdBN). AAAI 2021. arXiv:2011.05280;
    used by LTH-SNN (tau 4/3, which is the default here), ESL-SNN and NDSNN. Differs: tdBN keeps its factor apart from the
    learned gain; here it is the gain's start, which is the same function but learns at another pace.

    Example:
        >>> resnet19(width=1 / 16).fc1
        Linear(in_features=32, out_features=16, bias=False)
    """
    block = partial(AddCurrents, neuron=neuron, scale=neuron.threshold)
    parts, features = _stages(((128, 3), (256, 3), (512, 2)), image, classes, width, block)
    stem_norm, hidden = norm(widened(128, width), neuron.threshold), widened(256, width)
    stem = {"conv1": parts.pop("conv1"), "norm1": stem_norm, "neuron1": neuron.build()}
    parts = stem | parts | {"fc1": linear(features, hidden), "neuron2": neuron.build(), "fc": nn.Linear(hidden, classes)}
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def preact_resnet18(
    *,
    classes: int = 10,
    timesteps: int = 4,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = SCA,
    coding: Coding = "direct",
) -> SpikingNet:
    """Build `resnet18` with norm and neuron before each convolution: 11,159,232 convolution weights and 512 a class.

    Currents are added, and no neuron follows: y = conv(neuron(norm(...))) + x. A norm and a neuron stand before the mean
    over the image, so that the readout is given spikes.

    Source: He, Zhang, Ren, Sun. Identity Mappings in Deep Residual Networks. ECCV 2016; a variant in the code of SCA (ICML
    2024), whose IF neuron is the default.

    Example:
        >>> preact_resnet18(width=1 / 16).block2_1.shortcut
        Conv2d(4, 8, kernel_size=(1, 1), stride=(2, 2), bias=False)
    """
    parts, features = _stages(EIGHTEEN, image, classes, width, partial(PreActivation, neuron=neuron))
    mean = {name: parts.pop(name) for name in ("pool", "flat")}
    parts |= {"norm1": norm(features), "neuron1": neuron.build(), **mean, "fc": nn.Linear(features, classes)}
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def sew_resnet18(
    *,
    classes: int = 10,
    timesteps: int = 4,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = UPR,
    coding: Coding = "direct",
) -> SpikingNet:
    """Build `resnet18` whose blocks add spikes: 11,159,232 convolution weights and 512 a class.

    y = neuron(norm(conv(...))) + x, and a neuron ends each projection: what a block gives is a count, 0, 1, 2, ...

    Source: Fang, Yu, Chen, Huang, Masquelier, Tian. Deep Residual Learning in Spiking Neural Networks. NeurIPS 2021.
    arXiv:2102.04159 (SEW, ADD); used by UPR on CIFAR-100, whose LIF neuron is the default. Differs: one output a class, where
    UPR has ten that vote if there are few classes.

    Example:
        >>> sew_resnet18(width=1 / 16).block2_1.shortcut[0]
        Conv2d(4, 8, kernel_size=(1, 1), stride=(2, 2), bias=False)
    """
    parts, features = _stages(EIGHTEEN, image, classes, width, partial(AddSpikes, neuron=neuron))
    stem = {"conv1": parts.pop("conv1"), "norm1": norm(widened(64, width)), "neuron1": neuron.build()}
    parts = stem | parts | {"fc": nn.Linear(features, classes)}
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


class AddCurrents(Block):
    """conv, norm, neuron, conv, norm; plus the input, or its projection; then a neuron. Gains start at `scale`."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, neuron: Neuron, scale: float | None = None) -> None:
        super().__init__()
        alone, added = (1.0, 1.0) if scale is None else (scale, scale / math.sqrt(2))
        self.conv1, self.norm1, self.neuron1 = conv(c_in, c_out, stride=stride), norm(c_out, alone), neuron.build()
        self.conv2, self.norm2, self.neuron2 = conv(c_out, c_out), norm(c_out, added), neuron.build()
        self.shortcut = (
            None
            if (c_in, stride) == (c_out, 1)
            else nn.Sequential(conv(c_in, c_out, stride=stride, kernel=1), norm(c_out, added))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run all timesteps, (T, N, C, H, W)."""
        current = folded(self.neuron1(folded(x, self.conv1, self.norm1)), self.conv2, self.norm2)
        spikes: Tensor = self.neuron2(current + (x if self.shortcut is None else folded(x, self.shortcut)))
        return spikes


class AddSpikes(Block):
    """conv, norm, neuron, twice; plus the input, or the spikes of its projection."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, neuron: Neuron) -> None:
        super().__init__()
        self.conv1, self.norm1, self.neuron1 = conv(c_in, c_out, stride=stride), norm(c_out), neuron.build()
        self.conv2, self.norm2, self.neuron2 = conv(c_out, c_out), norm(c_out), neuron.build()
        self.shortcut, self.neuron3 = None, None
        if (c_in, stride) != (c_out, 1):
            self.shortcut, self.neuron3 = nn.Sequential(conv(c_in, c_out, stride=stride, kernel=1), norm(c_out)), neuron.build()

    def forward(self, x: Tensor) -> Tensor:
        """Run all timesteps, (T, N, C, H, W)."""
        spikes: Tensor = self.neuron2(folded(self.neuron1(folded(x, self.conv1, self.norm1)), self.conv2, self.norm2))
        if self.shortcut is None or self.neuron3 is None:
            return spikes + x
        projected: Tensor = self.neuron3(folded(x, self.shortcut))
        return spikes + projected


class PreActivation(Block):
    """norm, neuron, conv, twice; plus the input, or a projection of the first spikes."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, neuron: Neuron) -> None:
        super().__init__()
        self.norm1, self.neuron1, self.conv1 = norm(c_in), neuron.build(), conv(c_in, c_out, stride=stride)
        self.norm2, self.neuron2, self.conv2 = norm(c_out), neuron.build(), conv(c_out, c_out)
        self.shortcut = None if (c_in, stride) == (c_out, 1) else conv(c_in, c_out, stride=stride, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Run all timesteps, (T, N, C, H, W)."""
        spikes = self.neuron1(folded(x, self.norm1))
        current = folded(self.neuron2(folded(spikes, self.conv1, self.norm2)), self.conv2)
        return current + (x if self.shortcut is None else folded(spikes, self.shortcut))


def _stages(
    stages: tuple[tuple[int, int], ...], image: Image, classes: int, width: float, block: Build
) -> tuple[dict[str, nn.Module], int]:
    """Build the stem's convolution, the blocks and the mean over the image; also how many channels come out.

    A stage is (channels, blocks); all but the first halve the image.
    """
    check(image, classes)
    channels = widened(stages[0][0], width)
    parts: dict[str, nn.Module] = {"conv1": conv(image[0], channels)}
    for i, (plain, blocks) in enumerate(stages, start=1):
        for j in range(1, blocks + 1):
            out = widened(plain, width)
            parts[f"block{i}_{j}"] = block(channels, out, 2 if i > 1 and j == 1 else 1)
            channels = out
    return parts | {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}, channels
