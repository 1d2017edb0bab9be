"""The stages one after the other: accuracy, parameters, timesteps, operations and energy of every network."""

from spikeprune.metrics import HOROWITZ_45NM
from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Plot, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections.words import ABOUT, SPREAD, Told, lead, lost, paper_energy, percents, ratio
from spikeprune.studies.stprune.trials import PAPER, SCHEMES
from spikeprune.studies.sweep import cell
from spikeprune.studies.verdicts import by_share

DRAWN = ("dense on", "ann on", "slim", "leading", "uniform", "shallow", "short", "leading short", "dense short", "sudden")
POINTS = 1.5  # that the smaller network may lie below the dense one
SHORTER = 4.0  # times fewer timesteps
LESS = 8.0  # times less energy than the ANN


def stages(told: Told) -> Section:
    """Compare every network with the dense one."""
    return Section(
        "stages",
        "Stages",
        claims=[claim for claim in (*_sizes(told), *_energy(told), *_controls(told)) if claim is not None],
        text=[
            "A network that is drawn anew is trained by the dense one's recipe, as many batches, with a warm-up; leading channels are trained on for as many again. "
            f"T then falls level by level, {told.settings.batches} batches each, the first level at the full T; trained on: as many batches at the full T. The last T is the smallest "
            f"before accuracy lies more than {100 * told.settings.budget:g} point below that of the first level, on validation samples, none of which is scored. ",
            f"Energy is counted twice. Exact: what reaches a layer as a spike accumulates ({HOROWITZ_45NM.ac} pJ), any other value, such as an average of spikes, multiplies "
            f"({HOROWITZ_45NM.mac} pJ); zeros cost nothing, in the ANN neither. As the paper: every spike times the full fan-out accumulates, and all of an ANN multiplies; pixels "
            "multiply in the first layer of both, where the paper's are spikes. Both are figures of 32-bit arithmetic, so none is given for few bits.",
        ],
        tables=[_table(told)],
        plots=_plot(told),
    )


def _table(told: Told) -> Table:
    titles = ("network", "T", "top-1 %", "parameters", "fewer", "SynOps, thousands", "energy nJ", "energy as the paper, nJ")
    body = [_row(told, name) for name in told.names(ABOUT)]
    words = (
        "SynOps: non-zero inputs times non-zero fan-out, over all timesteps; energy is of them, a sample. Fewer: parameters of the dense network over those "
        f"here. Significant widths are those of {_variances(told)} of the variance, the most, in steps of half a percent, that leaves one parameter in {told.settings.compress:g} or fewer."
    )
    return Table(titles, [*body, *_quantized(told)], f"{SPREAD} {words}", "Networks")


def _variances(told: Told) -> str:
    found = sorted({row["variance"] for row in told.network("slim")}, reverse=True)
    return " or ".join(f"{100 * v:g} %" for v in found)


def _row(told: Told, name: str) -> tuple[str, ...]:
    rows, dense = told.network(name), told.network("dense")
    return (
        ABOUT[name],
        ", ".join(map(str, sorted({row["timesteps"] for row in rows}))),
        cell(rows, "accuracy", ".2f"),
        cell(rows, "parameters", ",.0f", 1.0),
        f"{ratio(dense.by_seed('parameters'), rows.by_seed('parameters')):.1f}",
        cell(rows, "synops", ",.0f", 1e-3),
        cell(rows, "energy_pj", ",.1f", 1e-3),
        f"{Spread.of(value / 1000 for value in paper_energy(rows, name).values()):,.1f}",
    )


def _quantized(told: Told) -> list[tuple[str, ...]]:
    """Give the last stage: the short network with the paper's bits, after training."""
    scheme = next(iter(SCHEMES))
    rows = told.inner({"part": "bits", "name": "short"}).where(bits=PAPER, scheme=scheme)
    if not len(rows):
        return []
    size = f"{rows.spread('bytes'):,.0f} bytes"
    steps = _row(told, "short")[1]
    return [(f"{ABOUT['short']}, {PAPER} bits ({scheme})", steps, cell(rows, "accuracy", ".2f"), size, "", "", "", "")]


def _plot(told: Told) -> list[Plot]:
    """Draw accuracy against parameters, timesteps and energy, a point a network."""
    panels = []
    for key, factor, label in (
        ("parameters", 1e-3, "parameters, thousands"),
        ("timesteps", 1.0, "T"),
        ("energy_pj", 1e-3, "energy nJ"),
    ):
        lines = [
            Line(ABOUT[name], {told.network(name).spread(key, factor).mean: list(percents(told.network(name)).values())})
            for name in told.names(DRAWN)
        ]
        panels.append(Panel(lines, label, "top-1 accuracy %"))
    words = "Accuracy of every network, mean and deviation over seeds, against its parameters, its timesteps and its energy by exact counts, means over seeds."
    return [Plot(curves("stages", "Accuracy against parameters, timesteps and energy", panels), words)]


def _sizes(told: Told) -> list[Claim]:
    texts = {
        "short": "Narrowed to significant widths and trained from scratch, then at fewer timesteps, the network loses little accuracy",
        "leading short": "So does the network of the channels that lead, with the weights that they have",
    }
    return [_size(told, name, text) for name, text in texts.items() if told.names([name])]


def _size(told: Told, name: str, text: str) -> Claim:
    dense, short = told.network("dense on"), told.network(name)
    fewer = ratio(dense.by_seed("parameters"), short.by_seed("parameters"))
    shorter = ratio(dense.by_seed("timesteps"), short.by_seed("timesteps"))
    below = lost(percents(short), percents(dense))
    assert below is not None
    return Claim(
        text,
        "0.07 of the parameters, T from 100 to 25, accuracy from 90.10 to 89.04 (CIFAR-10, VGG9)",
        f"{fewer:.1f} times fewer parameters, {shorter:.1f} times fewer timesteps, {below:.2f} points below the dense network trained as long",
        by_share([shorter.mean >= SHORTER, below.mean <= POINTS]),
        f"on average at least {SHORTER:g} times fewer timesteps, and at most {POINTS:g} points lost",
    )


def _energy(told: Told) -> list[Claim]:
    ann, short = told.network("ann on"), told.network("short")
    if not len(ann):
        return []
    rule = f"the mean of the ANN's energy over that of the small and short network is at least {LESS:g}"
    counts = {
        ("Compute energy lies far below that of the unpruned ANN, counted as the paper counts", "8 to 14 times"): ratio(
            paper_energy(ann, "ann"), paper_energy(short, "short")
        ),
        ("So it does with exact counts, where averages of spikes multiply and the ANN skips zeros", "not measured"): ratio(
            ann.by_seed("energy_pj"), short.by_seed("energy_pj")
        ),
    }
    return [
        Claim(text, paper, f"{found:.1f} times", by_share([found.mean >= LESS]), rule) for (text, paper), found in counts.items()
    ]


def _controls(told: Told) -> list[Claim | None]:
    def of(name: str) -> dict[int, float]:
        return percents(told.network(name) if told.names([name]) else Rows([]))

    return [
        lead(
            "Significant widths are better than one factor for all layers",
            of("slim"),
            of("uniform"),
            "significant less uniform, at no more parameters of the latter",
        ),
        lead(
            "Weights drawn anew are better than those of leading channels, which were trained twice as long in all",
            of("slim"),
            of("leading"),
            "from scratch less leading",
        ),
        lead(
            "Leaving out layers where dimensions fall is better than keeping them", of("shallow"), of("slim"), "shallow less all"
        ),
        lead(
            "T that falls step by step is better than few timesteps from the start",
            of("short"),
            of("sudden"),
            "step by step less sudden",
        ),
    ]
