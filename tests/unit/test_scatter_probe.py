"""The scatter of averaged currents and charges against a loop over all places, in every layout."""

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from channel_nets import HalfBare, Joined, Leaky, Residual, T, awake, jelly, labels
from small_nets import assert_same, noise, photograph, unroll
from spikeprune import Need, measure, model_view
from spikeprune.errors import MeasureError, NonFinite, NotMeasured

CURRENT, CHARGE = Need.CURRENT_SCATTER, Need.CHARGE_SCATTER


def batches(*shape):
    return [(2 * noise(T, n, *shape, seed=n), labels(n)) for n in (2, 3, 1)]


def averaged(view, name, data, charge):
    """What a neuron's entries accumulate, a mean over T: (places of all samples, entries), one at a time."""
    node, rows = view.neurons[name], []
    use = next(use for family in view.graph.families for use in family.neurons if use.module == name)
    for x, _ in data:
        seen = []
        handle = node.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach().clone()))
        with view.undisturbed():
            view(x)
        handle.remove()
        given = (seen[0] if getattr(node, "step_mode", "s") == "m" else torch.stack(seen)).double()
        given = given.flatten(given.dim() - use.trailing) if use.trailing else given.unsqueeze(-1)
        _, samples, entries, places = given.shape
        for n in range(samples):
            for place in range(places):
                rows.append([over_time(given[:, n, entry, place].tolist(), node, charge) for entry in range(entries)])
    return torch.tensor(rows, dtype=torch.double)


def over_time(currents, node, charge):
    if not charge:
        return sum(currents) / len(currents)
    membrane, total = 0.0, 0.0
    for current in currents:  # SpikingJelly, hard reset to zero
        membrane = membrane + (current - membrane) / node.tau if isinstance(node, neuron.LIFNode) else membrane + current
        total += membrane
        membrane = 0.0 if membrane >= node.v_threshold else membrane
    return total / len(currents)


def assert_scatter(found, rows):
    centred = rows - rows.mean(0)
    assert found.samples == len(rows)
    assert torch.allclose(found.mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(found.products, centred.T @ centred, atol=1e-4)


@pytest.mark.parametrize("mode", ["s", "m"])
@pytest.mark.parametrize("charge", [False, True])
def test_spikingjelly(mode, charge):
    view = model_view(jelly(mode), noise(T, 2, 2, 4, 4), forward=unroll if mode == "s" else None)
    data = batches(2, 4, 4)
    stats = measure(view, data, {CURRENT, CHARGE})
    for name, fired in (("0", "2"), ("3", "5")):
        found = stats[name].charge_scatter if charge else stats[name].current_scatter
        assert_scatter(found, averaged(view, fired, data, charge))
        assert float(found.products.trace()) > 0.1


def test_charge_and_current_differ():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    stats = measure(view, batches(2, 4, 4), {CURRENT, CHARGE})
    assert not torch.allclose(stats["0"].current_scatter.products, stats["0"].charge_scatter.products, rtol=0.1)


def test_snntorch():
    view, data = model_view(Leaky(), noise(T, 2, 7)), batches(7)
    assert_scatter(measure(view, data, {CURRENT})["fc2"].current_scatter, averaged(view, "lif2", data, charge=False))


def test_added_channels_are_pooled_over_the_neurons_that_they_pass():
    view, data = model_view(Residual(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4)
    stats = measure(view, data, {CURRENT})
    one, two = (averaged(view, name, data, charge=False) for name in ("lif1", "lif2"))
    apart = [rows - rows.mean(0) for rows in (one, two)]
    for name in ("conv1", "conv2"):
        found = stats[name].current_scatter
        assert found.samples == len(one) + len(two)
        assert torch.allclose(found.products, sum(rows.T @ rows for rows in apart), atol=1e-4)


def test_flattened_and_joined_channels_find_their_entries():
    view, data = model_view(Joined(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4)
    stats = measure(view, data, {CURRENT})
    entries = averaged(view, "lif", data, charge=False)  # 2 channels of 4 places, then 3
    for name, part, channels in (("conv1", entries[:, :8], 2), ("conv2", entries[:, 8:], 3)):
        places = part.reshape(-1, channels, 4).transpose(1, 2).reshape(-1, channels)
        assert_scatter(stats[name].current_scatter, places)


def test_a_norm_counts():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    before = measure(view, batches(2, 4, 4), {CURRENT})["0"].current_scatter.products
    with torch.no_grad():
        view.net[1].weight.mul_(2)
    after = measure(view, batches(2, 4, 4), {CURRENT})["0"].current_scatter.products
    assert torch.allclose(after, 4 * before, rtol=1e-4)


def test_a_readout_has_none():
    stats = measure(model_view(jelly(), noise(T, 2, 2, 4, 4)), batches(2, 4, 4), {CURRENT})
    with pytest.raises(NotMeasured, match="must stay"):
        _ = stats["7"].current_scatter
    with pytest.raises(NotMeasured, match="CHARGE_SCATTER"):
        _ = stats["0"].charge_scatter


def test_the_charge_of_an_unknown_neuron_is_refused_and_the_current_told():
    net = awake(nn.Sequential(nn.Linear(4, 3), neuron.QIFNode(), nn.Linear(3, 2)))
    view = model_view(net, noise(T, 2, 4), forward=unroll)
    data = [noise(T, 2, 4)]
    assert measure(view, data, {CURRENT})["0"].current_scatter.samples == 2
    with pytest.raises(MeasureError, match=r"neuron '1'.*QIFNode"):
        measure(view, data, {CHARGE})


def test_a_current_that_is_no_number_is_refused():
    view = model_view(HalfBare(), noise(T, 2, 2, 4, 4))
    with torch.no_grad():
        view.net.norm1.bias[0] = torch.nan
    with pytest.raises(NonFinite, match="'lif'"):
        measure(view, batches(2, 4, 4), {CURRENT})


def test_the_model_is_left_as_found():
    view = model_view(jelly(), noise(T, 2, 2, 4, 4))
    view(noise(T, 2, 2, 4, 4))
    before = photograph(view.net)
    measure(view, batches(2, 4, 4), {CURRENT, CHARGE})
    assert_same(before, photograph(view.net))
