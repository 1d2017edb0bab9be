"""Plain stacks of 3x3 convolutions: each is conv, batch norm, neuron; spikes are pooled.

Layers are named `conv1`, `norm1`, `neuron1`, ... in order, linear ones `fc1` or, the readout, `fc`. Weights are counted
without norms and biases; sizes are those at width 1. All options are told once, in `spikeprune.zoo.make`.

Reading of the papers
  stated    channels and pools where a function does not say otherwise; weights drawn as in the code of SCA and UPR.
  inferred  the output is the mean over time, on which the losses of both stand; readouts start as torch draws them.
  differs   the readout of vgg16 sees the spikes of each timestep, where SCA averages them before it: the same output.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from spikeprune.errors import RecipeError
from spikeprune.zoo.names import unknown
from spikeprune.zoo.neurons import HYBRID, SCA, UPR, Neuron
from spikeprune.zoo.parts import NORMS, Coding, Gain, Image, Norm, SpikingNet, check, conv, linear, widened
from spikeprune.zoo.parts import dropout as dropped
from spikeprune.zoo.parts import norm as batch_norm


@dataclass(frozen=True)
class _Form:
    """What stands around the convolutions of a plan: pool; "batch", "gain" or no norm; share that is dropped in training."""

    pool: Callable[[int], nn.Module]
    norm: Norm = "batch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise RecipeError(unknown("norm", self.norm, NORMS))

    def convolution(self, i: int, c_in: int, c_out: int, neuron: Neuron) -> dict[str, nn.Module]:
        """Build the i-th convolution with its norm and neuron."""
        norms: dict[Norm, Callable[[], nn.Module]] = {"batch": lambda: batch_norm(c_out), "gain": Gain}
        between = {f"norm{i}": norms[self.norm]()} if self.norm in norms else {}
        return {f"conv{i}": conv(c_in, c_out), **between, f"neuron{i}": neuron.build()}


def vgg9(  # noqa: PLR0913
    *,
    classes: int = 10,
    timesteps: int = 25,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = HYBRID,
    coding: Coding = "poisson",
    norm: Norm = "batch",
    dropout: float = 0.0,
) -> SpikingNet:
    """Build 64-128-P-128-256-P-256-512-P-512-512-P-FC: 7,005,888 convolution weights and 20,480 others.

    Source: Chowdhury, Garg, Roy. Spatio-Temporal Pruning and Quantization for Low-latency Spiking Neural Networks. IJCNN 2021.
    arXiv:2104.12528, CIFAR-10; average pools, whose places are inferred, and one linear layer.

    Differs: by default, batch norm, so that it can be trained from scratch. The paper balances the thresholds of a converted
    network without norm, with dropout: `norm="none"`, or `norm="gain"` to train the thresholds too, and `dropout=0.2`.
    There the readout adds up currents; here it averages them. Where dropout stands is inferred: behind the neuron of each
    convolution that no pool follows.

    Example:
        >>> vgg9(width=1 / 16).fc
        Linear(in_features=128, out_features=10, bias=False)
    """
    parts, features = _features(
        "64 128 P 128 256 P 256 512 P 512 512 P", image, classes, width, neuron, _Form(nn.AvgPool2d, norm, dropout)
    )
    parts["fc"] = nn.Linear(features, classes, bias=False)
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def vgg11(  # noqa: PLR0913
    *,
    classes: int = 10,
    timesteps: int = 25,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = HYBRID,
    coding: Coding = "poisson",
    norm: Norm = "batch",
    dropout: float = 0.0,
) -> SpikingNet:
    """Build 64-P-128-P-256-256-P-512-512-P-512-512-P-FC: 9,217,728 convolution weights and 512 a class.

    Source: the network that the paper of `vgg9` uses on CIFAR-100; the places of its pools and its one linear layer are
    inferred. Differs as `vgg9` does.

    Example:
        >>> vgg11(classes=100, width=1 / 16).fc
        Linear(in_features=32, out_features=100, bias=False)
    """
    parts, features = _features(
        "64 P 128 P 256 256 P 512 512 P 512 512 P", image, classes, width, neuron, _Form(nn.AvgPool2d, norm, dropout)
    )
    parts["fc"] = nn.Linear(features, classes, bias=False)
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def vgg16(
    *,
    classes: int = 10,
    timesteps: int = 4,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = SCA,
    coding: Coding = "direct",
) -> SpikingNet:
    """Build 64x2-P-128x2-P-256x3-P-512x3-P-512x3-P-FC512-FC512-FC: 14,710,464 convolution weights and 529,408 others.

    Source: Li, Xu, Shen, Xu, Chen, Pan. Towards Efficient Deep Spiking Neural Networks Construction with Spiking Activity
    based Pruning (SCA). ICML 2024. arXiv:2406.01072, its code; max-pools, a batch norm after hidden linear layers too, and a
    readout with bias. Differs: the first convolution is computed once, there at every timestep, and hidden linear layers
    are drawn as convolutions are.

    Example:
        >>> vgg16(width=1 / 16).fc
        Linear(in_features=32, out_features=10, bias=True)
    """
    plan = "64 64 P 128 128 P 256 256 256 P 512 512 512 P 512 512 512 P"
    parts, features = _features(plan, image, classes, width, neuron, _Form(nn.MaxPool2d))
    for i in (1, 2):
        hidden = widened(512, width)
        parts |= {f"fc{i}": linear(features, hidden), f"norm{13 + i}": nn.BatchNorm1d(hidden), f"neuron{13 + i}": neuron.build()}
        features = hidden
    parts["fc"] = nn.Linear(features, classes)
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def six_conv_two_fc(
    *,
    classes: int = 10,
    timesteps: int = 8,
    image: Image = (3, 32, 32),
    width: float = 1.0,
    neuron: Neuron = UPR,
    coding: Coding = "direct",
) -> SpikingNet:
    """Build 256x3-P-256x3-P-FC2048-FC100-vote: 2,956,032 convolution weights and 33,759,232 others.

    Ten neurons vote for each class. Dropout of a half stands before each linear layer, one mask for all timesteps.

    Source: the 6Conv2FC of Grad R, STDS and UPR (Shi, Ding, Hao, Yu. Towards Energy Efficient Spiking Neural Networks: An
    Unstructured Pruning Framework. ICLR 2024) on CIFAR-10; max-pools, no biases, no norm after linear layers. A reader of
    single timesteps names `vote` as the readout. In UPR's own code the dropouts are built but not called.

    Example:
        >>> six_conv_two_fc(width=1 / 16).fc1
        Linear(in_features=1024, out_features=128, bias=False)
    """
    parts, features = _features("256 256 256 P 256 256 256 P", image, classes, width, neuron, _Form(nn.MaxPool2d))
    hidden = widened(2048, width)
    parts |= {"drop1": dropped(0.5), "fc1": linear(features, hidden), "neuron7": neuron.build()}
    parts |= {"drop2": dropped(0.5), "fc2": linear(hidden, 10 * classes), "neuron8": neuron.build()}
    parts["vote"] = nn.AvgPool1d(10)
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def vggsnn(
    *,
    classes: int = 10,
    timesteps: int = 10,
    image: Image = (2, 48, 48),
    width: float = 1.0,
    neuron: Neuron = UPR,
    coding: Coding = "events",
) -> SpikingNet:
    """Build 64-128-P-256x2-P-512x2-P-512x2-P-FC100-vote: 9,217,152 convolution weights and 460,800 others.

    Ten outputs vote for each class; they are currents, not spikes.

    Source: VGGSNN as UPR (see `six_conv_two_fc`) uses it on CIFAR10-DVS; average pools, no biases. A reader of single
    timesteps names `vote` as the readout.

    Example:
        >>> vggsnn(width=1 / 16).fc
        Linear(in_features=288, out_features=100, bias=False)
    """
    parts, features = _features("64 128 P 256 256 P 512 512 P 512 512 P", image, classes, width, neuron, _Form(nn.AvgPool2d))
    parts |= {"fc": linear(features, 10 * classes), "vote": nn.AvgPool1d(10)}
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def sca_dvs(
    *,
    classes: int = 10,
    timesteps: int = 20,
    image: Image = (2, 128, 128),
    width: float = 1.0,
    neuron: Neuron = SCA,
    coding: Coding = "events",
) -> SpikingNet:
    """Build 64-P-128-P-128-P-256-P-256-P-FC: 1,107,072 convolution weights and 40,960 others.

    Source: the network of SCA (see `vgg16`) for DVS-CIFAR10, after a fork that imitates the paper; average pools. The bias of
    the readout is inferred.

    Example:
        >>> sca_dvs(width=1 / 16).fc
        Linear(in_features=256, out_features=10, bias=True)
    """
    parts, features = _features("64 P 128 P 128 P 256 P 256 P", image, classes, width, neuron, _Form(nn.AvgPool2d))
    parts["fc"] = nn.Linear(features, classes)
    return SpikingNet(parts, image=image, timesteps=timesteps, coding=coding)


def _features(
    plan: str, image: Image, classes: int, width: float, neuron: Neuron, form: _Form
) -> tuple[dict[str, nn.Module], int]:
    """Build the convolutions of a plan, "P" being a pool, up to and with the flattening; also how many values come out."""
    steps = plan.split()
    check(image, classes, halvings=steps.count("P"))
    parts: dict[str, nn.Module] = {}
    channels, height, area_width = image
    i = pools = 0
    for step, following in zip(steps, [*steps[1:], "end"], strict=True):
        if step == "P":
            pools += 1
            parts[f"pool{pools}"] = form.pool(2)
            height, area_width = height // 2, area_width // 2
        else:
            i += 1
            out = widened(int(step), width)
            parts |= form.convolution(i, channels, out, neuron)
            if form.dropout and following != "P":
                parts[f"drop{i}"] = dropped(form.dropout)
            channels = out
    parts["flat"] = nn.Flatten()
    return parts, channels * height * area_width
