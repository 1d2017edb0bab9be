"""What a network costs, as a value: one pass in, numbers out; to JSON, Markdown and one self-contained page."""

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from spikeprune.coverage import coverage
from spikeprune.kernel.patterns import NM
from spikeprune.measure import measure
from spikeprune.metrics import HOROWITZ_45NM, NEEDS, EnergyTable, LayerCost, costs
from spikeprune.version import __version__
from spikeprune.view.model_view import ModelView


@dataclass(frozen=True)
class Report:
    """A network's size and cost; operations and energy are means per sample, summed over timesteps.

    Attributes:
        timesteps, samples: T, and how many samples were measured.
        layers: a row for each synaptic layer, in call order.
        rates: spikes a neuron and timestep, by neuron layer: a list of T values.
        uncounted: weight-like parameters that belong to no synaptic layer and are in no number here.
        energy_source: where the energy of an operation comes from.
        versions: of the packages that made the numbers.
        coverage: where an N:M pattern holds, in words; empty if none was asked for.
    """

    timesteps: int
    samples: int
    layers: tuple[LayerCost, ...]
    rates: Mapping[str, list[float]]
    uncounted: tuple[str, ...]
    energy_source: str
    versions: Mapping[str, str]
    coverage: str = ""

    @property
    def weights(self) -> int:
        """Weights of all synaptic layers; biases, norms and neurons are not counted."""
        return sum(layer.weights for layer in self.layers)

    @property
    def nonzero(self) -> int:
        """Those that are not zero."""
        return sum(layer.nonzero for layer in self.layers)

    @property
    def density(self) -> float:
        """Non-zero weights over the weights of all synaptic layers."""
        return self.nonzero / self.weights

    @property
    def synops_effective(self) -> float:
        """Non-zero inputs times non-zero fan-out."""
        return sum(layer.synops_effective for layer in self.layers)

    @property
    def synops_dense(self) -> float:
        """Non-zero inputs times full fan-out."""
        return sum(layer.synops_dense for layer in self.layers)

    @property
    def operations(self) -> float:
        """Every input times full fan-out: what a dense machine does (NeuroBench's `Dense`)."""
        return sum(layer.operations for layer in self.layers)

    @property
    def acs(self) -> float:
        """Effective operations of layers with spikes for input: accumulates."""
        return sum(layer.synops_effective for layer in self.layers if layer.binary_input)

    @property
    def macs(self) -> float:
        """Effective operations of layers with real values for input: multiply-accumulates."""
        return sum(layer.synops_effective for layer in self.layers if not layer.binary_input)

    @property
    def energy_pj(self) -> float:
        """Effective operations times the energy table, in picojoule."""
        return sum(layer.energy_pj for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Give all numbers, totals first, as JSON values."""
        totals = ("weights", "nonzero", "density", "synops_effective", "synops_dense", "operations", "acs", "macs", "energy_pj")
        rows = [{**asdict(layer), "density": layer.density} for layer in self.layers]
        rest: dict[str, Any] = {"rates": dict(self.rates), "uncounted": list(self.uncounted)}
        size = {"timesteps": self.timesteps, "samples": self.samples}
        rest |= {"energy_source": self.energy_source, "coverage": self.coverage, "versions": dict(self.versions)}
        return {name: getattr(self, name) for name in totals} | size | {"layers": rows} | rest

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Report":
        """Build the report that `to_dict` described."""
        layers = tuple(LayerCost(**{k: v for k, v in row.items() if k != "density"}) for row in data["layers"])
        own = {name: data[name] for name in ("timesteps", "samples", "rates", "energy_source", "versions")}
        return cls(layers=layers, uncounted=tuple(data["uncounted"]), coverage=data.get("coverage", ""), **own)

    def to_json(self) -> str:
        """Give all numbers as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_markdown(self) -> str:
        """Give totals, a row a layer, and spike rates as Markdown tables."""
        head = (
            f"Density {self.density:.2%} ({self.nonzero:,} of {self.weights:,} weights of {len(self.layers)} synaptic layers; biases, norms and "
            f"neurons not counted). Per sample, over T = {self.timesteps} timesteps, mean of {self.samples:,} samples: "
            f"SynOps effective {self.synops_effective:,.0f} ({self.acs:,.0f} AC + {self.macs:,.0f} MAC), dense {self.synops_dense:,.0f}; "
            f"energy {self.energy_pj / 1000:,.2f} nJ ({self.energy_source})."
        )
        rows = [
            (x.name or "(model)", x.kind, f"{x.nonzero:,} / {x.weights:,}", f"{x.density:.2%}", f"{x.input_rate:.4f}",
             "AC" if x.binary_input else "MAC", f"{x.synops_effective:,.0f}", f"{x.synops_dense:,.0f}", f"{x.energy_pj / 1000:,.2f}")
            for x in self.layers
        ]  # fmt: skip
        titles = ("layer", "kind", "weights", "density", "input rate", "op", "SynOps effective", "SynOps dense", "energy nJ")
        parts = [head, *([self.coverage] if self.coverage else []), table(titles, rows)]
        if self.rates:
            spikes = [(name, f"{sum(r) / len(r):.4f}", " ".join(f"{v:.3f}" for v in r)) for name, r in self.rates.items()]
            parts.append(table(("neurons", "rate", "rate at each timestep"), spikes))
        if self.uncounted:
            parts.append(
                f"Not counted, since they belong to no Linear or Conv layer that was called: {', '.join(self.uncounted)}."
            )
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """Give one self-contained page: totals, layer densities, spike rates, energy split.

        Raises:
            MissingExtra: jinja2 or matplotlib is not installed.
        """
        from spikeprune.report.page import report_page

        return report_page(self)


def profile(view: ModelView, batches: Iterable[Any], *, energy: EnergyTable = HOROWITZ_45NM, pattern: NM | None = None) -> Report:
    """Measure what a model costs on data, with the weights that it has now.

    Args:
        view: the model.
        batches: any iterable of `x` or `(x, y)`; labels are not used.
        energy: energy of an operation.
        pattern: N:M pattern whose coverage the report is to tell.

    Raises:
        EmptyCalibration: no batch came.
        NonFinite: a weight or an input is NaN or infinite.

    Example:
        >>> from spikeprune import model_view
        >>> view = model_view(torch.nn.Linear(4, 2), torch.ones(1, 4), spiking=False)
        >>> report = profile(view, [torch.tensor([[1.0, 0.0, 1.0, 0.0]])])
        >>> report.synops_effective, report.synops_dense, report.operations, report.energy_pj
        (4.0, 4.0, 8.0, 3.6)
    """
    stats = measure(view, batches, NEEDS)
    rates = {name: rate.tolist() for name, rate in stats.rates.items()}
    held = "" if pattern is None else str(coverage(view, pattern))
    return Report(
        view.timesteps, stats.samples, costs(view, stats, energy), rates, view.uncounted, energy.source, versions(), held
    )


def versions() -> dict[str, str]:
    """Give the versions of Python, PyTorch and spikeprune."""
    return {"python": platform.python_version(), "torch": torch.__version__, "spikeprune": __version__}


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Lay out a Markdown table, columns aligned for reading as text too."""
    cells = [list(titles), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
