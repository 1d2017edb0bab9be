from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikeprune import Masks, Need, measure, model_view, prune
from spikeprune.errors import MeasureError, MethodError
from spikeprune.kernel.patterns import Channel
from spikeprune.methods import SNIP
from spikeprune.view.layer import Layer, Layout

YES, NO = True, False


def layer(name, rows):
    module = nn.Linear(len(rows[0]), len(rows), bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return Layer(name, module, Layout.ONCE)


def measured(**gradients):
    return {name: SimpleNamespace(weight_gradient=torch.tensor(rows, dtype=torch.double)) for name, rows in gradients.items()}


def two():
    return [layer("a", [[4.0, -1.0], [0.5, 2.0]]), layer("b", [[-3.0, 10.0]])]


# sensitivities: a 0.4, 5, 1, 2; b 0.9, 0.1
GRADIENTS = measured(a=[[0.1, 5.0], [2.0, 1.0]], b=[[0.3, 0.01]])


def rows(masks):
    return {name: mask.tolist() for name, mask in masks.items()}


def test_the_score_by_hand_and_one_ranking_over_all_layers():
    assert rows(SNIP()(two(), GRADIENTS, Masks({}), 0.34)) == {"a": [[NO, YES], [YES, YES]], "b": [[YES, NO]]}
    assert rows(SNIP()(two(), GRADIENTS, Masks({}), 0.66)) == {"a": [[NO, YES], [NO, NO]], "b": [[YES, NO]]}


def test_a_column_takes_the_mean_of_the_products():
    # columns of a: (0.4 + 1) / 2 and (5 + 2) / 2
    assert rows(SNIP(Channel(dim=1))(two(), GRADIENTS, Masks({}), 0.5)) == {"a": [[NO, YES]] * 2, "b": [[YES, NO]]}


def test_what_is_dead_stays_dead():
    dead = Masks({"a": torch.tensor([[YES, NO], [YES, YES]])})
    assert rows(SNIP()(two(), GRADIENTS, dead, 0.5)) == {"a": [[NO, NO], [YES, YES]], "b": [[YES, NO]]}


def test_with_one_batch_it_is_the_gradient_of_a_gate_on_every_weight():
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=draw)
    x, y = torch.rand(8, 5, generator=draw), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    view = model_view(net, x, spiking=False)
    gates = [torch.ones_like(net[i].weight, requires_grad=True) for i in (0, 2)]
    out = F.linear(F.relu(F.linear(x, net[0].weight * gates[0], net[0].bias)), net[2].weight * gates[1], net[2].bias)
    F.cross_entropy(out, y).backward()
    best = torch.cat([gate.grad.abs().flatten() for gate in gates]).argsort(descending=True)[:12]
    masks = prune(view, SNIP(), 1 - 12 / 32, calibration=[(x, y)], loss_fn=F.cross_entropy)
    assert torch.cat([mask.flatten() for mask in masks.values()]).nonzero().flatten().tolist() == best.sort().values.tolist()


def test_batches_of_opposite_gradient_do_not_cancel():
    net = nn.Linear(1, 2, bias=False)
    view = model_view(net, torch.ones(1, 1), spiking=False)
    batches = [(torch.ones(4, 1), torch.full((4,), label)) for label in (0, 1)]
    stats = measure(view, batches, {Need.WEIGHT_GRADIENT}, loss_fn=lambda out, y: (out[:, 0] * (1 - 2 * y)).mean())
    assert stats[""].weight_gradient.tolist() == [[1.0], [0.0]]
    assert SNIP()(view.layers, stats, Masks({}), 0.5)[""].tolist() == [[YES], [NO]]


def test_a_layer_that_no_gradient_reaches_is_named():
    silent = measured(a=[[0.1, 5.0], [2.0, 1.0]], b=[[0.0, 0.0]])
    with pytest.raises(MeasureError, match=r"no gradient reaches the weights of layer 'b', so the sensitivity of all 2 is zero"):
        SNIP()(two(), silent, Masks({}), 0.5)


def test_the_name_of_a_pattern_is_refused():
    with pytest.raises(MethodError, match="must be a pattern"):
        SNIP(pattern="column")
