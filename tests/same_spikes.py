"""A slow comparison of a smaller network with the silenced one, which knows nothing of families, plans and masks."""

import copy

import torch
from torch import nn


def heard(net, x, neurons, forward=None):
    """Run a network in evaluation mode; give the spikes of the named neurons, (T, N, C, ...), and what it returns."""
    calls = {name: [] for name in neurons}

    def listen(name):
        def hook(module, args, out):
            calls[name].append(out)
            return out.to(x.dtype)  # snnTorch's spikes are float32 whatever it is given

        return hook

    handles = [net.get_submodule(name).register_forward_hook(listen(name)) for name in neurons]
    torch.manual_seed(0)  # for networks that draw
    with torch.no_grad():
        out = net.eval()(x) if forward is None else forward(net.eval(), x)
    for handle in handles:
        handle.remove()
    whole = {name: getattr(net.get_submodule(name), "step_mode", "s") == "m" for name in neurons}
    return {name: found[0] if whole[name] else torch.stack(found) for name, found in calls.items()}, out


def doubled(net):
    return copy.deepcopy(net).double()


def voices(spikes):
    """Give the channels of (T, N, C, ...) that fire, in order, and how many do not."""
    rows = spikes.transpose(0, 2).flatten(1)
    loud = rows.any(1)
    return rows[loud], int((~loud).sum())


def assert_same_spikes(silent, small, x, neurons, forward=None, *, early=False):
    """Leaving out channels that never fire must be all that makes the smaller network's spikes, neuron by neuron.

    With `early`, channels that do fire may be left out as well: those that a norm behind the neuron silences.
    Returns the number of spikes of the smaller network by neuron.
    """
    dense, out = heard(doubled(silent), x.double(), neurons, forward)
    cut, other = heard(doubled(small), x.double(), neurons, forward)
    for name in neurons:
        loud, quiet = voices(dense[name])
        left, rest = voices(cut[name])
        if early:
            rows = iter(loud)
            assert all(any(torch.equal(row, other) for other in rows) for row in left), name  # in order
        else:
            assert torch.equal(loud, left), name
        assert rest <= quiet, name
    torch.testing.assert_close(out, other, rtol=0, atol=1e-9)
    _assert_close_outputs(silent, small, x, neurons, forward)
    return {name: int(found.sum()) for name, found in cut.items()}


def _assert_close_outputs(silent, small, x, neurons, forward):
    """In float32 the order of a sum may decide a spike at the threshold; where it decides none, outputs are close."""
    dense, out = heard(silent, x, neurons, forward)
    cut, other = heard(small, x, neurons, forward)
    if all(int((dense[name] != 0).sum()) == int((cut[name] != 0).sum()) for name in neurons):
        torch.testing.assert_close(out, other, rtol=1e-5, atol=1e-5)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
