"""Networks drawn at random, their channels pruned at random: what shrink makes is compared with the silenced network."""

import pytest
import snntorch
import torch
from hypothesis import Phase, event, given, reject, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from same_spikes import assert_same_spikes, parameters
from spikeprune import Masks, channel_masks, model_view, patterns, prune, shrink
from spikeprune.errors import SparsityError
from spikeprune.methods import Magnitude, Random

SIDE = 4
FORMS = ("snntorch", "jelly s", "jelly m")
# A failing network is told as it was drawn: making it smaller takes minutes.
MANY = settings(max_examples=70, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])

kinds = st.sampled_from(["plain", "currents", "spikes", "gate", "before", "depthwise", "both", "dense"])
stages = st.lists(st.tuples(kinds, st.integers(2, 5), st.booleans(), st.booleans()), min_size=1, max_size=3)
networks = st.fixed_dictionaries({
    "images": stages | st.just([]),  # kind, channels, whether there are norms, and one more choice of the stage
    "pool": st.sampled_from([None, "max", "mean"]),
    "flat norm": st.booleans(),
    "vectors": stages | st.just([]),
    "fires": st.booleans(),  # whether a neuron ends it
    "constants": st.booleans(),  # of snnTorch's neurons, one a channel
    "timesteps": st.integers(1, 2),
    "samples": st.integers(1, 2),
    "seed": st.integers(0, 10**6),
})  # fmt: skip
prunings = st.fixed_dictionaries({
    "single": st.sampled_from([0.0, 0.0, 0.3, 0.8]),  # sparsity of single weights, before the channels
    "channels": st.sampled_from([0.3, 0.5, 0.7]),
    "by hand": st.booleans(),  # one family alone, with masks of a vector
})  # fmt: skip


class Parts:
    """Makes the parts of one network, in one framework's form; `images` says whether they are for (N, C, H, W)."""

    def __init__(self, form, spec):
        self.form, self.spec, self.images = form, spec, True
        self.draw = torch.Generator().manual_seed(spec["seed"])

    def coin(self):
        return bool(torch.rand((), generator=self.draw) < 0.5)

    def synapses(self, inputs, outputs, *, bias, groups=1):
        mode = {"step_mode": "m"} if self.form == "jelly m" else {}
        made_by = layer if mode else nn
        if not self.images:
            return made_by.Linear(inputs, outputs, bias=bias, **mode)
        kernel = 3 if groups > 1 or self.coin() else 1
        return made_by.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias, groups=groups, **mode)

    def norm(self, channels):
        made_by = layer if self.form == "jelly m" else nn
        norm = (made_by.BatchNorm2d if self.images else made_by.BatchNorm1d)(channels)
        norm.step_mode = "m" if self.form == "jelly m" else "s"
        return norm

    def unit(self, inputs, outputs, *, norm, groups=1):
        """Synapses, and a norm; a bias for sure where there is none."""
        synapses = self.synapses(inputs, outputs, bias=not norm or self.coin(), groups=groups)
        return nn.Sequential(synapses, self.norm(outputs)) if norm else nn.Sequential(synapses)

    def neuron(self, channels):
        if self.form == "snntorch":
            return snntorch.Leaky(
                beta=self.constant(channels, 0.3, 0.95),
                threshold=self.constant(channels, 0.3, 0.8),
                learn_beta=self.coin(),
                init_hidden=True,
                reset_mechanism=["subtract", "zero"][self.coin()],
            )
        options = {"v_threshold": 0.4, "v_reset": None if self.coin() else 0.0, "step_mode": self.form[-1]}
        return neuron.LIFNode(tau=2.0, decay_input=self.coin(), **options) if self.coin() else neuron.IFNode(**options)

    def constant(self, channels, low, high):
        if not self.spec["constants"] or self.coin():
            return (low + high) / 2
        shape = (channels, 1, 1) if self.images else (channels,)
        return low + (high - low) * torch.rand(shape, generator=self.draw)


class Plain(nn.Module):
    """Synapses, perhaps a norm, a neuron; depthwise ones if the channels are as many."""

    def __init__(self, parts, inputs, outputs, *, norm, groups=1):
        super().__init__()
        self.unit, self.neuron = parts.unit(inputs, outputs, norm=norm, groups=groups), parts.neuron(outputs)

    def forward(self, x):
        return self.neuron(self.unit(x))


class Added(nn.Module):
    """A residual block: what is added is a current, spikes, or a current before norm and neuron; or a gate of spikes."""

    def __init__(self, parts, inputs, outputs, *, norm, kind, projected):
        super().__init__()
        outputs = outputs if projected else inputs
        self.kind = kind
        self.first = self.before(parts, inputs, norm) if kind == "before" else None
        self.unit1, self.neuron1 = parts.unit(inputs, outputs, norm=norm), parts.neuron(outputs)
        self.unit2 = parts.unit(outputs, outputs, norm=norm and kind != "before")
        self.neuron2 = None if kind == "before" else parts.neuron(outputs)
        self.shortcut = parts.unit(inputs, outputs, norm=norm and parts.coin()) if projected else None
        self.neuron3 = parts.neuron(outputs) if projected and kind in {"spikes", "gate"} else None

    def before(self, parts, inputs, norm):
        return nn.Sequential(*([parts.norm(inputs)] if norm else []), parts.neuron(inputs))

    def forward(self, x):
        spikes = x if self.first is None else self.first(x)
        current = self.unit2(self.neuron1(self.unit1(spikes)))
        other = x if self.shortcut is None else self.shortcut(spikes)
        if self.kind == "before":
            return current + other
        if self.kind == "currents":
            return self.neuron2(current + other)
        spikes = other if self.neuron3 is None else self.neuron3(other)
        return self.neuron2(current) + spikes if self.kind == "spikes" else self.neuron2(current) * spikes


class Joined(nn.Module):
    """Two branches, or the input and a branch, one after the other; then perhaps a norm, and a neuron over both."""

    def __init__(self, parts, inputs, outputs, *, norm, dense):
        super().__init__()
        self.axis = -3 if parts.images else -1
        self.one = None if dense else parts.unit(inputs, 3, norm=False)
        self.two = parts.unit(inputs, outputs, norm=False)
        self.channels = outputs + (inputs if dense else 3)
        self.norm = parts.norm(self.channels) if norm else None
        self.neuron = parts.neuron(self.channels)

    def forward(self, x):
        current = torch.cat([x if self.one is None else self.one(x), self.two(x)], self.axis)
        return self.neuron(current if self.norm is None else self.norm(current))


def stage(parts, inputs, kind, outputs, norm, choice):
    """Make a stage; give it and how many channels it returns."""
    if kind in {"both", "dense"}:
        made = Joined(parts, inputs, outputs, norm=norm, dense=kind == "dense")
        return made, made.channels
    if kind == "depthwise" and parts.images:
        return Plain(parts, inputs, inputs, norm=norm, groups=inputs), inputs
    if kind in {"plain", "depthwise"}:
        return Plain(parts, inputs, outputs, norm=norm), outputs
    return Added(parts, inputs, outputs, norm=norm, kind=kind, projected=choice), outputs if choice else inputs


class Drawn(nn.Module):
    """(T, N, 2, side, side) or (T, N, 6) in, the mean over time (N, 3) out."""

    def __init__(self, form, spec):
        super().__init__()
        self.whole = form == "jelly m"
        parts, body = Parts(form, spec), []
        parts.images = bool(spec["images"])
        channels = 2 if parts.images else 6
        body.append(Plain(parts, channels, 4, norm=parts.coin()))
        channels = 4
        for drawn in spec["images"]:
            made, channels = stage(parts, channels, *drawn)
            body.append(made)
        if spec["images"]:
            channels = self.flatten(parts, body, channels, spec)
        for drawn in spec["vectors"]:
            made, channels = stage(parts, channels, *drawn)
            body.append(made)
        body.append(parts.synapses(channels, 3, bias=True))
        self.body = nn.Sequential(*body, *([parts.neuron(3)] if spec["fires"] else []))
        self.enliven(parts.draw)

    @staticmethod
    def flatten(parts, body, channels, spec):
        pool, made_by = spec["pool"], layer if parts.form == "jelly m" else nn
        mode = {"step_mode": "m"} if parts.form == "jelly m" else {}
        if pool:
            body.append((made_by.MaxPool2d if pool == "max" else made_by.AvgPool2d)(2, **mode))
        body.append(made_by.Flatten(**mode))
        parts.images = False
        entries = channels * (SIDE if pool else SIDE * SIDE)
        if spec["flat norm"]:  # gain, shift and constants for every entry of a channel
            body += [parts.norm(entries), parts.neuron(entries)]
        return entries

    def enliven(self, draw):
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=draw))
                    module.bias.copy_(0.5 + 0.3 * torch.randn(module.bias.shape, generator=draw))
                    module.running_mean.copy_(0.3 * torch.randn(module.weight.shape, generator=draw))
                    module.running_var.copy_(0.5 + torch.rand(module.weight.shape, generator=draw))
                elif isinstance(module, nn.Linear | nn.Conv2d):
                    size = module.weight[0].numel() ** 0.5
                    module.weight.copy_((torch.randn(module.weight.shape, generator=draw) + 0.4) / size)
                    if module.bias is not None:
                        module.bias.copy_(0.2 + 0.3 * torch.randn(module.bias.shape, generator=draw))

    def forward(self, x):
        functional.reset_net(self)
        for module in self.modules():
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()
        return self.body(x).mean(0) if self.whole else torch.stack([self.body(step) for step in x]).mean(0)


def given_spikes(spec, samples):
    draw = torch.Generator().manual_seed(spec["seed"] + samples)
    shape = (2, SIDE, SIDE) if spec["images"] else (6,)
    return (torch.rand(spec["timesteps"], samples, *shape, generator=draw) < 0.6).float()


def pruned(view, pruning, seed):
    """Prune in place; give the masks."""
    free = [family for family in view.graph.families if family.why is None]
    if not free:  # such as for a depthwise layer that reads two others
        reject()
    masks = prune(view, Magnitude(), pruning["single"]) if pruning["single"] else None
    if not pruning["by hand"]:
        try:
            return prune(view, Random(seed=seed, pattern=patterns.Channel()), pruning["channels"], masks=masks)
        except SparsityError:  # too few channels to leave each family one
            reject()
    family = free[seed % len(free)]
    alive = torch.rand(family.channels, generator=torch.Generator().manual_seed(seed)) >= pruning["channels"]
    alive[seed % family.channels], alive[(seed + 1) % family.channels] = True, False
    masks = channel_masks(view, {family.layers[-1]: alive}).over(masks or Masks({}))
    masks.apply_(view.net)
    return masks


@pytest.mark.parametrize("form", FORMS)
@MANY
@given(networks, prunings)
def test_what_is_left_of_a_random_network(form, spec, pruning):
    net = Drawn(form, spec)
    view = model_view(net, given_spikes(spec, spec["samples"]))
    masks = pruned(view, pruning, spec["seed"])
    small = shrink(view, masks)
    early = spec["flat norm"] or any(kind == "before" for kind, *_ in [*spec["images"], *spec["vectors"]])
    fired = assert_same_spikes(net, small, given_spikes(spec, 3), list(view.neurons), early=early)
    assert parameters(small) < parameters(net)
    if not any(fired.values()):
        reject()
    event(f"every neuron fires: {all(fired.values())}")
