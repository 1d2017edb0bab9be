"""Where an N:M pattern holds: which layers, why not the others, and that the report of a network tells it."""

import json

import pytest
import torch
from torch import nn

from spikeprune import Report, coverage, methods, model_view, patterns, profile, prune
from spikeprune.errors import ModelError

NM = patterns.NM


def pruned():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 4))
    view = model_view(net, torch.rand(2, 6), spiking=False)
    prune(view, methods.Magnitude(pattern=NM(2, 4)))
    return net, view


def test_layers_with_the_pattern_and_why_the_others_have_none():
    found = coverage(pruned()[1], NM(2, 4))
    assert found.layers == ("1", "2")
    assert found.left_out == {
        "0": "the first; 6 inputs in a row, which 4 does not divide",
        "3": "6 inputs in a row, which 4 does not divide",
        "4": "the last",
    }
    total, covered = 48 + 64 + 48 + 48 + 32, 64 + 48
    assert found.share == covered / total
    assert found.density == (total - covered / 2) / total
    assert str(found).startswith(
        "2:4 holds in 2 of 5 layers, 46.7% of the weights; 76.7% of all weights are not zero. Without it: 0: the first;"
    )


def test_one_weight_too_many_takes_a_layer_out():
    net, view = pruned()
    with torch.no_grad():
        net[1].weight[0, :4] = 1.0
    found = coverage(view, NM(2, 4))
    assert found.layers == ("2",)
    assert found.left_out["1"] == "a block of 4 has 4 alive"


def test_a_named_layer_that_is_filled_up_counts():
    _, view = pruned()
    prune(view, methods.Magnitude(pattern=NM(2, 4)), layers="3")
    assert coverage(view, NM(2, 4)).layers == ("1", "2", "3")


def test_the_report_tells_it_in_every_form():
    _, view = pruned()
    batch = [torch.rand(3, 6)]
    report = profile(view, batch, pattern=NM(2, 4))
    words = "2:4 holds in 2 of 5 layers"
    assert words in report.to_markdown()
    assert words in report.to_html()
    assert Report.from_dict(json.loads(report.to_json())) == report
    assert report.coverage == str(coverage(view, NM(2, 4)))
    plain = profile(view, batch)
    assert words not in plain.to_markdown() + plain.to_html()
    assert plain.coverage == ""
    assert Report.from_dict(plain.to_dict()) == plain


def test_a_model_is_no_view():
    with pytest.raises(ModelError, match="a view is needed"):
        coverage(nn.Linear(4, 4), NM(2, 4))
