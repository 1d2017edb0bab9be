"""The stages one after the other: accuracy, parameters, timesteps, operations and energy of every network."""

from spikeprune.metrics import HOROWITZ_45NM
from spikeprune.report.findings import Spread
from spikeprune.report.page import Claim, Section
from spikeprune.report.tables import Table
from spikeprune.studies.rows import Rows
from spikeprune.studies.stprune.sections.words import ABOUT, SPREAD, Told, lead, lost, paper_energy, percents, ratio
from spikeprune.studies.sweep import cell
from spikeprune.studies.verdicts import by_share

POINTS = 1.5  # that the smaller network may lie below the dense one
SHORTER = 4.0  # times fewer timesteps
LESS = 8.0  # times less energy than the ANN


def stages(told: Told) -> Section:
    """Compare every network with the dense one."""
    return Section(
        "stages",
        "Stages",
        claims=[claim for claim in (_size(told), _energy(told), _exact(told), *_controls(told)) if claim is not None],
        text=[
            f"Every network is trained with the dense one's recipe and as many batches. T then falls level by level, {told.settings.batches} batches each, the "
            f"first level at the full T; the last T is the smallest before validation accuracy lies more than {100 * told.settings.budget:g} point below that of "
            "the first level. Accuracy is on held-out data that nothing was chosen by. Energy is counted twice. Exact: what reaches a "
            f"layer as a spike accumulates ({HOROWITZ_45NM.ac} pJ), any other value, such as an average of spikes, multiplies ({HOROWITZ_45NM.mac} pJ); zeros "
            "cost nothing, in the ANN neither. As the paper: every input spike times the full fan-out accumulates in an SNN, and all of an ANN multiplies."
        ],
        tables=[_table(told)],
    )


def _table(told: Told) -> Table:
    titles = ("network", "T", "top-1 %", "parameters", "fewer", "SynOps, thousands", "energy nJ", "energy as the paper, nJ")
    body = [_row(told, name) for name in told.names(ABOUT)]
    words = "SynOps: non-zero inputs times non-zero fan-out, over all timesteps; energy is of them, a sample. Fewer: parameters of the dense network over those here."
    return Table(titles, body, f"{SPREAD} {words}", "Networks")


def _row(told: Told, name: str) -> tuple[str, ...]:
    rows, dense = told.network(name), told.network("dense")
    steps = sorted({row["timesteps"] for row in rows})
    return (
        ABOUT[name],
        ", ".join(map(str, steps)),
        cell(rows, "accuracy", ".2f"),
        cell(rows, "parameters", ",.0f", 1.0),
        f"{ratio(dense.by_seed('parameters'), rows.by_seed('parameters')):.1f}",
        cell(rows, "synops", ",.0f", 1e-3),
        cell(rows, "energy_pj", ",.1f", 1e-3),
        f"{Spread.of(value / 1000 for value in paper_energy(rows, name).values()):,.1f}",
    )


def _size(told: Told) -> Claim:
    dense, short = told.network("dense"), told.network("short")
    fewer = ratio(dense.by_seed("parameters"), short.by_seed("parameters"))
    shorter = ratio(dense.by_seed("timesteps"), short.by_seed("timesteps"))
    below = lost(percents(short), percents(dense))
    assert below is not None
    held = [fewer.mean >= told.settings.compress, shorter.mean >= SHORTER, below.mean <= POINTS]
    return Claim(
        "Widths by principal components, then fewer timesteps, make the network small and short for little accuracy",
        "10 to 14 times fewer parameters, T from 100 to 25, 90.10 to 89.04 (CIFAR-10, VGG9)",
        f"{fewer:.1f} times fewer parameters, {shorter:.1f} times fewer timesteps, {below:.2f} points below the dense network",
        by_share(held),
        f"on average at least {told.settings.compress:g} times fewer parameters, at least {SHORTER:g} times fewer timesteps, and at most {POINTS:g} points lost",
    )


def _energy(told: Told) -> Claim | None:
    ann, short = told.network("ann"), told.network("short")
    if not len(ann):
        return None
    found = ratio(paper_energy(ann, "ann"), paper_energy(short, "short"))
    return Claim(
        "Compute energy lies far below that of the unpruned ANN, counted as the paper counts",
        "8 to 14 times",
        f"{found:.1f} times",
        by_share([found.mean >= LESS]),
        f"the mean of the ANN's energy over that of the small and short network is at least {LESS:g}",
    )


def _exact(told: Told) -> Claim | None:
    ann, short = told.network("ann"), told.network("short")
    if not len(ann):
        return None
    found = ratio(ann.by_seed("energy_pj"), short.by_seed("energy_pj"))
    return Claim(
        "So it does with exact counts, where averages of spikes multiply and the ANN skips zeros",
        "not measured",
        f"{found:.1f} times",
        by_share([found.mean >= LESS]),
        f"the mean of the ANN's energy over that of the small and short network is at least {LESS:g}",
    )


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
            "Weights drawn anew are better than those of leading channels", of("slim"), of("leading"), "from scratch less leading"
        ),
        lead(
            "T that falls step by step is better than few timesteps from the start",
            of("short"),
            of("sudden"),
            "step by step less sudden",
        ),
    ]
