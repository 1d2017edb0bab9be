"""A report adds up, survives JSON, and shows every layer."""

import dataclasses
import json
import re

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

import spikeprune
from small_nets import jelly, lively, noise, spikes
from spikeprune.errors import EmptyCalibration
from spikeprune.metrics import EnergyTable, LayerCost
from spikeprune.report.cost import Report, profile, table
from spikeprune.view.model_view import model_view

T, N = 4, 2


def row(name, *, weights, nonzero, binary, effective, energy):
    return LayerCost(name, "Linear", weights, nonzero, 0.25, binary, effective, 2.0 * effective, 4.0 * effective, energy)


REPORT = Report(
    timesteps=2,
    samples=5,
    layers=(
        row("fc1", weights=30, nonzero=30, binary=False, effective=100.0, energy=460.0),
        row("fc2", weights=10, nonzero=2, binary=True, effective=7.0, energy=6.3),
    ),
    rates={"lif1": [0.25, 0.75], "lif2": [0.0, 1.0]},
    uncounted=("attention.in_proj_weight",),
    energy_source="a table",
    versions={"torch": "2"},
)


def profiled():
    return profile(model_view(jelly(), noise(T, N, 6)), [spikes(T, 3, 6), spikes(T, 1, 6)])


def test_totals_are_sums():
    assert (REPORT.weights, REPORT.nonzero, REPORT.density) == (40, 32, 0.8)
    assert (REPORT.synops_effective, REPORT.synops_dense, REPORT.operations) == (107, 214, 428)
    assert (REPORT.acs, REPORT.macs) == (7, 100)
    assert REPORT.energy_pj == pytest.approx(466.3)


def test_profile_of_a_net():
    report = profiled()
    assert (report.timesteps, report.samples) == (T, 4)
    assert [layer.name for layer in report.layers] == ["0", "2"]
    assert (report.weights, report.nonzero) == (45, 45)
    assert report.operations == T * 45
    assert report.acs == report.synops_effective == report.synops_dense > 0
    assert report.macs == 0
    assert report.energy_pj == pytest.approx(0.9 * report.acs)
    assert {name: len(rates) for name, rates in report.rates.items()} == {"1": T, "3": T}
    assert report.versions["spikeprune"] == spikeprune.__version__
    assert "Horowitz" in report.energy_source


def test_profile_after_pruning():
    view = model_view(jelly(), noise(T, N, 6))
    with torch.no_grad():
        view.layers[1].weight[0].zero_()
    report = profile(view, [spikes(T, N, 6)], energy=EnergyTable(ac=1.0, mac=1.0, source="one"))
    assert (report.nonzero, report.density) == (40, 40 / 45)
    assert report.synops_effective < report.synops_dense
    assert report.energy_pj == report.synops_effective
    assert report.energy_source == "one"


def test_profile_of_an_ordinary_network():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    report = profile(model_view(net, noise(N, 6), spiking=False), [noise(N, 6)])
    assert report.rates == {}
    assert report.macs == report.synops_effective
    assert "rate at each timestep" not in report.to_markdown()


def test_no_batches():
    with pytest.raises(EmptyCalibration):
        profile(model_view(jelly(), noise(T, N, 6)), [])


@pytest.mark.parametrize("report", [REPORT, profiled()], ids=["by hand", "measured"])
def test_json_round_trip(report):
    assert Report.from_dict(report.to_dict()) == report
    assert Report.from_dict(json.loads(report.to_json())) == report
    assert json.loads(report.to_json()) == report.to_dict()


def test_dict_has_totals_and_densities():
    data = REPORT.to_dict()
    for name in ("weights", "nonzero", "density", "synops_effective", "synops_dense", "operations", "acs", "macs", "energy_pj"):
        assert data[name] == getattr(REPORT, name)
    assert [layer["density"] for layer in data["layers"]] == [1.0, 0.2]
    assert {field.name for field in dataclasses.fields(REPORT)} <= data.keys()


def test_markdown_has_a_row_a_layer():
    text = REPORT.to_markdown()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == ["layer", "kind", "weights", "density", "input rate", "op", "SynOps effective", "SynOps dense", "energy nJ"]
    assert rows[1] == ["fc1", "Linear", "30 / 30", "100.00%", "0.2500", "MAC", "100", "200", "0.46"]
    assert rows[2] == ["fc2", "Linear", "2 / 10", "20.00%", "0.2500", "AC", "7", "14", "0.01"]
    assert rows[3] == ["neurons", "rate", "rate at each timestep"]
    assert rows[4:] == [["lif1", "0.5000", "0.250 0.750"], ["lif2", "0.5000", "0.000 1.000"]]


def test_markdown_says_what_was_counted():
    text = re.sub(r"\s+", " ", REPORT.to_markdown())
    assert "Density 80.00% (32 of 40 weights of 2 synaptic layers; biases, norms and neurons not counted)" in text
    assert "over T = 2 timesteps, mean of 5 samples" in text
    assert "SynOps effective 107 (7 AC + 100 MAC), dense 214; energy 0.47 nJ (a table)" in text
    assert text.rstrip().endswith("no Linear or Conv layer that was called: attention.in_proj_weight.")


def test_uncounted_parameters_are_named():
    class Extra(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = lively(nn.Linear(6, 5)), neuron.IFNode(step_mode="m")
            self.mix = nn.Parameter(torch.eye(5))

        def forward(self, x):
            return self.lif(self.fc(x) @ self.mix)

    report = profile(model_view(Extra(), noise(T, N, 6)), [noise(T, N, 6)])
    assert report.uncounted == ("mix",)
    assert "that was called: mix." in report.to_markdown()


def test_a_model_that_is_one_layer_has_a_row():
    report = profile(model_view(nn.Linear(6, 3), noise(N, 6), spiking=False), [noise(N, 6)])
    assert "| (model) | Linear" in report.to_markdown()


def test_table():
    assert table(("a", "long"), [("wide", "1")]) == "| a    | long |\n|------|------|\n| wide | 1    |"
