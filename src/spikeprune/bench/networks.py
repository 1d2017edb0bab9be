"""The networks that are timed, as values: what each is, and how it is built before anything is learned."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeprune import zoo
from spikeprune.kernel.allocate import uniform
from spikeprune.kernel.patterns import Block, Pattern, Unstructured
from spikeprune.methods import Magnitude
from spikeprune.pruner import prune
from spikeprune.recipes.train import draw, seeded
from spikeprune.view.model_view import ModelView, model_view
from spikeprune.zoo.parts import widened

Kind = Literal["mlp", "vgg", "events"]
TIMESTEPS: dict[Kind, int] = {"mlp": 10, "vgg": 4, "events": 10}
IMAGE: dict[Kind, tuple[int, int, int]] = {"mlp": (1, 28, 28), "vgg": (1, 32, 32), "events": (2, 34, 34)}
SAMPLES = 8  # of random input, that rates are set with
HALVINGS = 24  # until a rate is met


@dataclass(frozen=True)
class Network:
    """A network to be timed.

    Attributes:
        kind: "mlp", 784-512-512-10 on drawn spikes; "vgg", VGG11 with max-pools on images as direct current; "events", VGGSNN on
            frames of events.
        width: multiplies the channels, or the hidden neurons.
        timesteps: T.
        sparsity: share of the weights that is pruned.
        blocks: whether they are pruned in blocks of 32 outputs.
        channels: share of the channels that stays; the others are cut out.
        rate: of a network that is not trained: the share of each layer's inputs that fires; None is a trained one.
        seed: of its weights and of all training.

    Example:
        >>> Network("vgg", timesteps=2, sparsity=0.9).name
        'vgg-w1-t2-s0.9-seed0'
    """

    kind: Kind
    width: float = 1.0
    timesteps: int = 10
    sparsity: float = 0.0
    blocks: bool = False
    channels: float = 1.0
    rate: float | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """Name it, for files and reports."""
        told = [self.kind, f"w{self.width:g}", f"t{self.timesteps}"]
        told += [f"c{self.channels:g}"] if self.channels < 1 else []
        told += [f"{'b' if self.blocks else 's'}{self.sparsity:g}"] if self.sparsity else []
        told += [f"untrained-r{self.rate:g}"] if self.rate is not None else []
        return "-".join([*told, f"seed{self.seed}"])

    @property
    def pattern(self) -> Pattern:
        """What is pruned together."""
        return Block(1, 32) if self.blocks else Unstructured()

    @property
    def parent(self) -> "Network | None":
        """The network that this one is made from, one step back; None if it is trained from the first."""
        if self.sparsity:
            return replace(self, sparsity=0.0, blocks=False)
        if self.channels < 1:
            return replace(self, channels=1.0)
        return replace(self, timesteps=usual) if self.timesteps != (usual := TIMESTEPS[self.kind]) else None

    def input(self, samples: int, generator: torch.Generator) -> Tensor:
        """Draw an input as shaped as data, for the view."""
        lead = (samples,) if self.kind == "vgg" else (self.timesteps, samples)
        x = torch.rand(*lead, *IMAGE[self.kind], generator=generator)
        return x if self.kind == "vgg" else (x < 0.1).float()


def build(network: Network) -> nn.Module:
    """Build a network as it is before training, all its channels whole; its weights are drawn from its seed."""
    with seeded(draw(network.seed, "weights")):
        return _mlp(network) if network.kind == "mlp" else _deep(network)


def _mlp(network: Network) -> nn.Module:
    hidden = widened(512, network.width)
    neuron = zoo.Neuron("lif", tau=10.0, reset="soft", decay_input=False)
    parts = {
        "flat": nn.Flatten(), "fc1": nn.Linear(784, hidden), "neuron1": neuron.build(), "fc2": nn.Linear(hidden, hidden),
        "neuron2": neuron.build(), "fc": nn.Linear(hidden, 10),
    }  # fmt: skip
    return zoo.SpikingNet(parts, image=IMAGE["mlp"], timesteps=network.timesteps, coding="events")


def _deep(network: Network) -> nn.Module:
    neuron = zoo.Neuron("lif", tau=2.0, reset="soft", decay_input=False)
    shape = {"timesteps": network.timesteps, "image": IMAGE[network.kind], "width": network.width, "neuron": neuron}
    if network.kind == "events":
        return zoo.make("vggsnn", **shape)
    net = zoo.make("vgg11", coding="direct", norm="batch" if network.rate is None else "none", **shape)
    for name, part in list(net.named_children()):
        if isinstance(part, nn.AvgPool2d):
            setattr(net, name, nn.MaxPool2d(2))  # the largest of spikes is a spike
    return net


def untrained(network: Network) -> tuple[ModelView, nn.Module]:
    """Build a network of random weights, pruned by magnitude layer by layer and then scaled so that layers fire at the wanted rate.

    The first convolution and the readout stay dense. Channels are not cut out but never built.

    Returns:
        a view of it, and the network.
    """
    assert network.rate is not None
    small = replace(network, width=network.width * network.channels)
    net = build(small).eval()
    generator = torch.Generator().manual_seed(draw(network.seed, "input"))
    x = small.input(SAMPLES, generator)
    view = model_view(net, x[..., :1, :, :, :] if small.kind != "vgg" else x[:1])
    inner = [layer.name for layer in view.layers][1:-1]
    if network.sparsity:
        prune(view, Magnitude(uniform, network.pattern), network.sparsity, layers=inner)
    scale_(net, x, network.rate)
    return view, net


@torch.no_grad()
def scale_(net: nn.Module, x: Tensor, rate: float) -> None:
    """Scale each layer that feeds neurons so that the share `rate` of what the next layer reads fires; a pool in between counts.

    Args:
        net: parts in a row without norms, as `zoo.SpikingNet` has them; changed in place.
        x: input, as the network takes it.
        rate: from 0 to 1.
    """
    steps: int = net.timesteps  # type: ignore[assignment]
    parts: list[Any] = list(net.children())
    value = x if net.coding == "direct" else x.flatten(0, 1)
    once = net.coding == "direct"
    for place, part in enumerate(parts):
        if hasattr(part, "step_mode"):
            continue  # neurons come with the layer before them
        follower = parts[place + 1] if place + 1 < len(parts) else None
        value = part(value)
        if not hasattr(follower, "step_mode"):
            continue
        current = value.expand(steps, *value.shape) if once else value.unflatten(0, (steps, -1))
        pool = next((other for other in parts[place + 2 : place + 3] if isinstance(other, nn.MaxPool2d)), nn.Identity())
        factor = _factor(follower, pool, current, rate)
        part.weight.mul_(factor)
        if part.bias is not None:
            part.bias.mul_(factor)
        value, once = _spikes(follower, current * factor).flatten(0, 1), False


def _factor(neuron: Any, pool: nn.Module, current: Tensor, rate: float) -> float:
    low, high = 1e-3, 1e3
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        found = float(pool(_spikes(neuron, current * middle).flatten(0, 1)).mean())
        low, high = (middle, high) if found < rate else (low, middle)
    return float((low * high) ** 0.5)


def _spikes(neuron: Any, current: Tensor) -> Tensor:
    neuron.reset()
    spikes: Tensor = neuron(current)
    neuron.reset()
    return spikes
