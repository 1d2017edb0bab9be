"""The workloads, by name: which networks, at which batch sizes, against whom, and what ratios are aimed at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from spikeprune.bench import goals
from spikeprune.bench.cases import Case
from spikeprune.bench.measuring import Ground, Options, Rival, Setting
from spikeprune.bench.networks import TIMESTEPS, Kind, Network
from spikeprune.bench.sizes import sizes
from spikeprune.errors import RecipeError

DENSE_PEERS = ("SpikingJelly", "snnTorch", "Norse", "torch folded", "torch.compile", "ONNX Runtime", "OpenVINO", "OpenVINO int8")
MLP_PEERS = (*DENSE_PEERS, "ONNX Runtime int8")
BEST_DENSE = ("torch folded", "OpenVINO int8")
RATE, FEW = 0.12, 0.05  # of a network that is not trained
FULL = "Goals were set for full width and weights that are not trained (--width 1)."


@dataclass(frozen=True)
class Workload:
    """A part of the benchmark.

    Attributes:
        ids: of the goals.
        about: what is measured, in a sentence or two.
        cases: measures its cases.
    """

    ids: str
    about: str
    cases: Callable[[str, Ground], Iterator[Case]]


def network(options: Options, kind: Kind, **changes: float | int | bool) -> Network:
    """Give the network of a kind as the options want it; a VGG of full width is not trained."""
    width = (0.125 if options.quick else 1.0) if kind == "mlp" else options.width
    rate = RATE if kind == "vgg" and options.width == 1 else None
    plain = Network(kind, width=width, timesteps=TIMESTEPS[kind], rate=rate, seed=options.seed)
    return replace(plain, **changes)  # type: ignore[arg-type]


def _mlp(options: Options) -> Iterator[Setting]:
    for sparsity in (0.9,) if options.quick else (0.0, 0.9, 0.95):
        for batch in (1,) if options.quick else (1, 64):
            net = network(options, "mlp", sparsity=sparsity)
            wanted = goals.MLP.get((sparsity, batch), {})
            yield Setting(_title(sparsity, batch), net, batch, peers=MLP_PEERS, goals=wanted)


def _vgg(options: Options) -> Iterator[Setting]:
    for sparsity in (0.9,) if options.quick else (0.0, 0.9, 0.95):
        for batch in (1,) if options.quick else (1, 16):
            net = network(options, "vgg", sparsity=sparsity)
            wanted = goals.VGG.get((sparsity, batch), {})
            yield Setting(_title(sparsity, batch), net, batch, peers=DENSE_PEERS, goals=wanted)


def _few_bits(options: Options) -> Iterator[Setting]:
    batch = 2 if options.quick else 16
    for sparsity in (0.9,) if options.quick else (0.0, 0.7, 0.9, 0.95):
        for bits in (4,) if options.quick else (4, 3):
            net = network(options, "vgg", sparsity=sparsity)
            eight = Rival("spikeprune, 8 bit", net)
            wanted = goals.FEW_BITS.get((sparsity, bits), {})
            yield Setting(f"{_title(sparsity, batch)}, {bits} bit", net, batch, bits, BEST_DENSE, (eight,), wanted)


def _channels(options: Options) -> Iterator[Setting]:
    for share in (0.5,) if options.quick else (0.5, 0.25):
        for batch in (1,) if options.quick else (1, 16):
            net = network(options, "vgg", channels=share)
            rivals = (Rival(goals.UNPRUNED, replace(net, channels=1.0)),)
            title = f"{share:.0%} of the channels, batch {batch}"
            yield Setting(title, net, batch, peers=BEST_DENSE, rivals=rivals, goals=goals.CHANNELS.get((share, batch), {}))


def _blocks(options: Options) -> Iterator[Setting]:
    for sparsity in (0.9,) if options.quick else (0.75, 0.9):
        for batch in (1,) if options.quick else (1, 16):
            net = network(options, "vgg", sparsity=sparsity, blocks=True)
            dense, single = replace(net, sparsity=0.0, blocks=False), replace(net, blocks=False)
            rivals = (Rival(goals.SCATTER, dense, kernel="scatter"), Rival("spikeprune, single weights pruned", single))
            title = f"{sparsity:.0%} in blocks of 32, batch {batch}"
            yield Setting(title, net, batch, peers=BEST_DENSE, rivals=rivals, goals=goals.BLOCKS[sparsity])
            if net.rate is not None:  # a trained network fires as it does
                few = tuple(replace(rival, network=replace(rival.network, rate=FEW)) for rival in rivals)
                yield Setting(
                    f"{title}, {FEW:.0%} fire",
                    replace(net, rate=FEW),
                    batch,
                    peers=BEST_DENSE,
                    rivals=few,
                    goals=goals.BLOCKS[sparsity],
                )


def _timesteps(options: Options) -> Iterator[Setting]:
    batch = 2 if options.quick else 16
    for steps in (2,) if options.quick else (2, 1):
        net = network(options, "vgg", sparsity=0.9, timesteps=steps)
        longer = Rival(goals.LONGER, replace(net, timesteps=TIMESTEPS["vgg"]))
        title = f"T = {steps} of {TIMESTEPS['vgg']}, {_title(0.9, batch)}"
        yield Setting(title, net, batch, peers=BEST_DENSE, rivals=(longer,), goals=goals.TIMESTEPS[steps])


def _events(options: Options) -> Iterator[Setting]:
    for sparsity in (0.0, 0.9):
        for batch in (1,) if options.quick else (1, 16):
            net = network(options, "events", sparsity=sparsity)
            peers = ("SpikingJelly", *BEST_DENSE)
            yield Setting(_title(sparsity, batch), net, batch, peers=peers, goals=goals.EVENTS if sparsity else {})


def _together(options: Options) -> Iterator[Setting]:
    batch = 2 if options.quick else 16
    net = network(options, "vgg", channels=0.5, sparsity=0.9, timesteps=2)
    dense = Rival(goals.DENSE, network(options, "vgg"), peer="SpikingJelly")
    title = f"50% of the channels, 90% of their weights, 4 bit, T = 2, batch {batch}"
    yield Setting(title, net, batch, 4, BEST_DENSE, (dense,), goals.TOGETHER)


def _title(sparsity: float, batch: int) -> str:
    return f"{sparsity:.0%} pruned, batch {batch}"


def _timed(settings: Callable[[Options], Iterator[Setting]]) -> Callable[[str, Ground], Iterator[Case]]:
    def cases(name: str, ground: Ground) -> Iterator[Case]:
        for setting in settings(ground.options):
            yield ground.measure(name, setting)

    return cases


def _sizes(name: str, ground: Ground) -> Iterator[Case]:
    for bits in (8,) if ground.options.quick else (8, 4):
        yield sizes(name, ground, network(ground.options, "vgg", sparsity=0.9), bits, goals.SIZE.get((0.9, bits)))


# Events come last: without their data, all others are measured.
WORKLOADS = {
    "mlp": Workload("I1, I2", "MLP 784-512-512-10 on drawn spikes, T = 10, 8 bit; batch 1 and 64.", _timed(_mlp)),
    "vgg": Workload("I3, I4", f"VGG11 with max-pools, 32x32, T = 4, 8 bit; batch 1 and 16. {FULL}", _timed(_vgg)),
    "bits": Workload("I5", f"The same in 4 and 3 bit, batch 16. {FULL}", _timed(_few_bits)),
    "channels": Workload("I6", f"The same with 50 and 25 % of its channels, cut out. {FULL}", _timed(_channels)),
    "blocks": Workload("I7", f"The same with weights pruned in blocks of 32 outputs. {FULL}", _timed(_blocks)),
    "timesteps": Workload("I8", f"The same at T = 2 and 1, 90 % pruned, batch 16. {FULL}", _timed(_timesteps)),
    "together": Workload(
        "I10", f"Channels, weights, 4 bit and T = 2 at once, against the dense network. {FULL}", _timed(_together)
    ),
    "size": Workload("M1", "Bytes of a saved engine, seconds of compiling, peak of memory; VGG11, 90 % pruned.", _sizes),
    "events": Workload("I9", "VGGSNN on N-MNIST, T = 10, hard reset, average pools; batch 1 and 16.", _timed(_events)),
}


def chosen(names: list[str] | None) -> list[str]:
    """Give the workloads that are asked for, all for none.

    Raises:
        RecipeError: there is no such workload.

    Example:
        >>> chosen(["size", "mlp"])
        ['size', 'mlp']
    """
    for name in names or []:
        if name not in WORKLOADS:
            raise RecipeError(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}.")
    return list(dict.fromkeys(names or WORKLOADS))
