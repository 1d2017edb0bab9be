"""Tiny snnTorch and SpikingJelly networks, and a photograph of a model that tells whether it was left as found."""

import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def spikes(*shape, seed=0):
    return (noise(*shape, seed=seed) < 0.5).float()


def lively(net, seed=0):
    """Give every weight of two or more axes a value that makes neurons fire, and biases zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.6 + 0.2)
            elif parameter.dim() == 1:
                parameter.zero_()
    return net


class Loop(nn.Module):
    """snnTorch: (T, N, 6) in, (T, N, 3) out; loops over time itself and resets its neurons first."""

    def __init__(self, make=lambda: snntorch.Leaky(beta=0.9, init_hidden=True)):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 5), make()
        self.fc2, self.lif2 = nn.Linear(5, 3), make()
        lively(self)

    def forward(self, x):
        self.lif1.reset_mem()
        self.lif2.reset_mem()
        return torch.stack([self.lif2(self.fc2(self.lif1(self.fc1(step)))) for step in x])


class ByHand(nn.Module):
    """snnTorch: the membranes are handed from timestep to timestep."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(6, 5), snntorch.Leaky(beta=0.9)
        self.fc2, self.lif2 = nn.Linear(5, 3), snntorch.Leaky(beta=0.9)
        lively(self)

    def forward(self, x):
        mem1, mem2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        out = []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(spk2)
        return torch.stack(out)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.fc, self.lif = nn.Linear(inputs, outputs), snntorch.Leaky(beta=0.9, init_hidden=True)

    def forward(self, x):
        return self.lif(self.fc(x))


def nested():
    """snnTorch: neurons below the direct children, never reset by the model."""
    return lively(nn.Sequential(Block(6, 5), Block(5, 3)))


def unroll(net, x):
    """Call a one-timestep model for every timestep of (T, N, ...)."""
    return torch.stack([net(step) for step in x])


class SnnGuest(nn.Module):
    """snnTorch, with norm and dropout; keeps its state, and can be told to fail at the second timestep."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.lif1 = nn.Linear(6, 5), nn.BatchNorm1d(5), snntorch.Leaky(beta=0.9, init_hidden=True)
        self.drop = nn.Dropout(0.5)
        self.fc2, self.lif2 = nn.Linear(5, 3), snntorch.Leaky(beta=0.9, init_hidden=True, output=True)
        self.fail = False
        lively(self)
        nn.init.ones_(self.norm.weight)

    def forward(self, x):
        out = []
        for t, step in enumerate(x):
            if self.fail and t == 1:
                raise RuntimeError("the model broke")
            self.last, membrane = self.lif2(self.fc2(self.drop(self.lif1(self.norm(self.fc1(step))))))
            out.append(membrane)
        return torch.stack(out)


class JellyGuest(nn.Module):
    """SpikingJelly in step mode m, with norm and dropout; keeps its state, and can be told to fail halfway."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.lif1 = layer.Linear(6, 5), layer.BatchNorm1d(5), neuron.LIFNode(tau=2.0)
        self.drop = layer.Dropout(0.5)
        self.fc2, self.lif2 = layer.Linear(5, 3), neuron.LIFNode(tau=2.0)
        self.fail = False
        lively(self)
        nn.init.ones_(self.norm.weight)
        functional.set_step_mode(self, "m")
        self.norm.step_mode = "s"

    def forward(self, x):
        current = self.fc1(x)
        current = self.norm(current.flatten(0, 1)).reshape(current.shape)
        self.last = self.drop(self.lif1(current))
        if self.fail:
            raise RuntimeError("the model broke")
        return self.lif2(self.fc2(self.last))


def jelly(mode="m", make=lambda: neuron.IFNode()):
    """SpikingJelly: Linear 6-5-3; (T, N, 6) in step mode m, (N, 6) in step mode s."""
    net = lively(nn.Sequential(layer.Linear(6, 5), make(), layer.Linear(5, 3), make()))
    functional.set_step_mode(net, mode)
    return net


def hooks(net):
    """Count the hooks of every kind on every module."""
    return sum(len(v) for m in net.modules() for k, v in vars(m).items() if "hooks" in k and isinstance(v, dict))


def photograph(net):
    """Note all that a guest could disturb: attributes, state, flags, hooks, values, gradients, random state."""
    photo = {"grad mode": torch.is_grad_enabled(), "random": torch.get_rng_state(), "hooks": hooks(net)}
    for name, module in net.named_modules():
        photo[name, "keys"] = sorted(vars(module))
        photo[name, "training"] = module.training
        for kind in ("_buffers", "_memories"):
            for key, value in vars(module).get(kind, {}).items():
                photo[name, key, "object"] = id(value)
                photo[name, key, "value"] = value.detach().clone() if torch.is_tensor(value) else value
        for key, value in vars(module).items():
            if torch.is_tensor(value):
                photo[name, key, "object"] = id(value)
                photo[name, key, "value"] = value.detach().clone()
    for name, parameter in net.named_parameters():
        photo[name, "object"] = id(parameter)
        photo[name, "value"] = parameter.detach().clone()
        photo[name, "requires_grad"] = parameter.requires_grad
        photo[name, "grad"] = None if parameter.grad is None else parameter.grad.clone()
    return photo


def assert_same(before, after):
    assert before.keys() == after.keys()
    for key, value in before.items():
        if torch.is_tensor(value):
            assert torch.is_tensor(after[key]), key
            assert torch.equal(value, after[key]), key
        else:
            assert value == after[key], key


def stack(*weights, make=lambda: neuron.IFNode(v_reset=None)):
    """Linear layers of the given weights, each with a neuron, for (T, N, C)."""
    parts = []
    for weight in weights:
        linear = layer.Linear(len(weight[0]), len(weight), bias=False, step_mode="m")
        linear.weight.data = torch.tensor(weight)
        node = make()
        node.step_mode = "m"
        parts += [linear, node]
    return nn.Sequential(*parts)
