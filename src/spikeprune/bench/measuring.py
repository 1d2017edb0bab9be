"""One case measured: the engine compiled, checked against the network, and timed in turns with everyone it is compared with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.bench.cases import OURS, Case, Correctness, Row, timed_row
from spikeprune.bench.goals import Goal
from spikeprune.bench.making import Made, Maker
from spikeprune.bench.networks import Network
from spikeprune.bench.peers import ABOUT, Absent, Call, Task, calls
from spikeprune.bench.timing import Times, race
from spikeprune.engine import Engine, Reference, compile, make_plan
from spikeprune.engine.engine import compared

CHECKED = 64  # samples that are run at once when answers are compared
CALIBRATION = 32  # samples


@dataclass(frozen=True)
class Options:
    """How a benchmark runs.

    Attributes:
        folder: where networks and reports go.
        rounds: of timing.
        seconds: how long the calls of a contestant take together in each round, about.
        width: of the VGG and of the network on events; at 1 the VGG is not trained.
        quick: tiny networks, a few batches of training, whatever builds slowly left out.
        seed: of weights, training and drawn inputs.
    """

    folder: Path
    rounds: int = 9
    seconds: float = 0.03
    width: float = 0.25
    quick: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Rival:
    """Another network, or the same otherwise, in the same turns.

    Attributes:
        name: of its row.
        network: which.
        bits: of an engine's weights.
        kernel: that every layer must have that can; None for the fastest.
        peer: who runs it; an engine of ours if None.
    """

    name: str
    network: Network
    bits: int | None = 8
    kernel: str | None = None
    peer: str | None = None


@dataclass(frozen=True)
class Setting:
    """One case to measure.

    Attributes:
        title: which setting.
        network: what our engine runs.
        batch: samples of a call.
        bits: of the engine's weights.
        peers: who else runs the network, of `PEERS`.
        rivals: what else is timed.
        goals: ratios to reach, by the name of a peer or rival.
    """

    title: str
    network: Network
    batch: int
    bits: int | None = 8
    peers: tuple[str, ...] = ()
    rivals: tuple[Rival, ...] = ()
    goals: Mapping[str, Goal] = field(default_factory=dict)


@final
class Ground:
    """What all cases of a run share: options, and networks that are made once.

    Args:
        options: of the run.
        watch: is told the title of each case before it is measured.
    """

    def __init__(self, options: Options, watch: Callable[[str], None] = lambda title: None) -> None:
        self.options, self.watch = options, watch
        self._accuracies: dict[Network, float | None] = {}

    @cached_property
    def maker(self) -> Maker:
        """Makes and keeps the networks."""
        return Maker(self.options.folder, quick=self.options.quick)

    @property
    def tested(self) -> int:
        """How many test samples answers are compared on."""
        return CHECKED if self.options.quick else 8 * CHECKED

    def batch(self, network: Network, size: int) -> Tensor:
        """Give what is timed: test samples, or random input of a network that is not trained."""
        if network.rate is None:
            return self.maker.batch(network, size)
        return network.input(size, torch.Generator().manual_seed(network.seed))

    def calibration(self, network: Network, size: int) -> list[Tensor]:
        """Give batches that whole numbers of other engines are set by: training samples, or random input as what is timed."""
        count = max(1, CALIBRATION // size)
        if network.rate is None:
            return self.maker.training(network, size, count)
        generator = torch.Generator().manual_seed(network.seed + 2)
        return [network.input(size, generator) for _ in range(count)]

    def tests(self, network: Network) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield samples to compare answers on, with labels if the network is trained."""
        if network.rate is None:
            yield from self.maker.tests(network, self.tested, CHECKED)
        else:
            yield network.input(CHECKED, torch.Generator().manual_seed(network.seed + 1)), None

    def measure(self, workload: str, setting: Setting) -> Case:
        """Measure a case."""
        self.watch(f"{workload}: {setting.title}")
        made = self.maker.make(setting.network)
        x = self.batch(setting.network, setting.batch)
        engine = compile(made.view, x, bits=setting.bits)
        correctness = self.correctness(made, engine, x, setting.batch)
        contestants, rows = self._contestants(made, setting, x)
        found = race({OURS: lambda: engine(x), **contestants}, self.options.rounds, self.options.seconds)
        told = [timed_row(OURS, found[OURS], None, accuracy=correctness.accuracy)]
        told += [_row(row, found, setting.goals.get(row.name)) for row in rows]
        return Case(
            workload, setting.title, setting.network.name, made.training, setting.batch, setting.bits,
            [asdict(choice) for choice in engine.choices], made.density, correctness, told,
        )  # fmt: skip

    @torch.no_grad()
    def correctness(self, made: Made, engine: Engine, x: Tensor, batch: int) -> Correctness:
        """Compare an engine with its plan on the timed batch, and with the network as the framework runs it on others."""
        agreement, same, right, eager, tested = engine.agreement(x), 0, 0, 0, 0
        rounded = compared(engine.plan, Reference(engine.plan)(x), x).flipped
        axis = 0 if made.network.kind == "vgg" else 1
        for samples, labels in self.tests(made.network):
            theirs = made.view(samples).argmax(1)
            ours = torch.cat([_plain(engine(part)).argmax(1) for part in torch.split(samples, batch, axis)])
            same, tested = same + int((ours == theirs).sum()), tested + len(ours)
            if labels is not None:
                right, eager = right + int((ours == labels).sum()), eager + int((theirs == labels).sum())
        trained = made.network.rate is None
        return Correctness(
            agreement.difference, agreement.flipped, agreement.samples, tested, same / tested,
            right / tested if trained else None, eager / tested if trained else None, rounded,
        )  # fmt: skip

    def _contestants(self, made: Made, setting: Setting, x: Tensor) -> tuple[dict[str, Call], list[Row]]:
        """Build everyone else; who cannot run has a row that says why, and no call."""
        found: dict[str, Call] = {}
        rows = []
        task = Task(made.net, make_plan(made.view), x, self.calibration(setting.network, setting.batch), self.options.quick)
        with torch.no_grad():
            theirs = made.view(x).argmax(1)
        made.view.reset()
        for name in setting.peers:
            try:
                found[name] = calls(name, task)
            except Absent as absent:
                rows.append(Row(name, goal=setting.goals.get(name), note=str(absent)))
                continue
            same = float((torch.as_tensor(found[name]()).argmax(1) == theirs).float().mean())
            rows.append(Row(name, same_class=same, note=ABOUT[name]))
        for rival in setting.rivals:
            row, call = self._rival(rival, setting.batch)
            rows.append(row)
            found |= {} if call is None else {rival.name: call}
        return found, rows

    def _rival(self, rival: Rival, batch: int) -> tuple[Row, Call | None]:
        made, x = self.maker.make(rival.network), self.batch(rival.network, batch)
        if rival.peer is not None:
            task = Task(made.net, make_plan(made.view), x, [x], self.options.quick)
            try:
                call = calls(rival.peer, task)
            except Absent as absent:
                return Row(rival.name, note=str(absent)), None
            return Row(rival.name, accuracy=self.accuracy(rival.network), note=f"{rival.network.name}, {ABOUT[rival.peer]}"), call
        engine = compile(made.view, x, bits=rival.bits, kernel=rival.kernel)
        found = self.correctness(made, engine, x, batch)
        note = f"{rival.network.name}, {rival.bits or 32} bit{'' if found.right else '; WRONG answers'}"
        return Row(rival.name, accuracy=found.accuracy, note=note), lambda: engine(x)

    @torch.no_grad()
    def accuracy(self, network: Network) -> float | None:
        """Give the accuracy of a network as the framework runs it; None if it is not trained."""
        if network.rate is not None:
            return None
        if network not in self._accuracies:
            view, pairs = self.maker.make(network).view, list(self.tests(network))
            right = sum(int((view(x).argmax(1) == y).sum()) for x, y in pairs)
            self._accuracies[network] = right / sum(len(y) for _, y in pairs if y is not None)
        return self._accuracies[network]


def _row(row: Row, found: Mapping[str, Times], goal: Goal | None) -> Row:
    """Give a row its times, if there are any."""
    if row.name not in found:
        return row if row.goal is not None or goal is None else Row(row.name, goal=goal, note=row.note)
    more: dict[str, Any] = {"same_class": row.same_class, "accuracy": row.accuracy, "note": row.note}
    return timed_row(row.name, found[row.name], found[OURS], goal, **more)


def _plain(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    assert isinstance(output, Tensor)
    return output
