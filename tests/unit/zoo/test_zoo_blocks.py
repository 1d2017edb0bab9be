"""What residual blocks add, and where their gains start."""

import math

import pytest
import torch

from spikeprune import zoo

T, N = 3, 2


def small(name, **options):
    return zoo.make(name, width=1 / 32, image=(3, 8, 8), timesteps=T, **options)


def loud(block, value):
    """Make every norm of a block answer `value`, whatever it is given."""
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.constant_(module.bias, value)
    return block.eval()


def test_what_is_added_in_a_block():
    options = {"neuron": zoo.Neuron("if", threshold=1.0)}
    ones = torch.ones(T, N, 2, 4, 4)

    # Spikes: 1 of the block and 1 of the input.
    assert torch.equal(loud(small("sew_resnet18", **options).block1_2, 1.0)(ones), 2 * ones)
    # A silent block lets the spikes of its input through.
    assert torch.equal(loud(small("sew_resnet18", **options).block1_2, 0.0)(ones), ones)
    # Currents before the neuron: 0.6 alone does not fire at once; with 0.4 of the input it does, and gives one spike.
    block = loud(small("resnet18", **options).block1_2, 0.6)
    assert block(0 * ones)[0].sum() == 0
    block.neuron1.reset()
    block.neuron2.reset()
    assert torch.equal(block(0.4 * ones)[0], ones[0])
    # Currents with no neuron after: the input goes through unchanged when the block is silent.
    assert torch.equal(loud(small("preact_resnet18", **options).block1_2, 0.0)(0.4 * ones), 0.4 * ones)


def test_projections_end_in_a_neuron_only_where_spikes_are_added():
    heard = []
    block = loud(small("sew_resnet18", neuron=zoo.Neuron("if")).block2_1, 1.0)
    block.neuron3.register_forward_hook(lambda _, args, out: heard.append(out))
    out = block(torch.ones(T, N, 2, 4, 4))
    assert out.shape == (T, N, 4, 2, 2)
    assert torch.equal(out, torch.full_like(out, 2.0))
    assert torch.equal(heard[0], torch.ones_like(out))
    assert not hasattr(small("resnet18").block2_1, "neuron3")


def test_gains_of_resnet19_start_at_the_threshold():
    net = small("resnet19", neuron=zoo.Neuron(threshold=0.5))
    gain = {
        name: p.unique().item() for name, p in net.named_parameters() if p.dim() == 1 and p.numel() and name.endswith("weight")
    }
    assert gain["norm1.weight"] == gain["block1_1.norm1.weight"] == 0.5
    assert gain["block1_1.norm2.weight"] == gain["block2_1.shortcut.1.weight"] == pytest.approx(0.5 / math.sqrt(2))


def test_gains_of_the_others_start_at_one():
    net = small("resnet18", neuron=zoo.Neuron(threshold=0.5))
    assert all(bool((m.weight == 1).all()) for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))
