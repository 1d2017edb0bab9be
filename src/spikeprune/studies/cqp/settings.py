"""How much the study tries: the whole of it, or a quick form that shows the same parts on little data."""

from dataclasses import dataclass

from spikeprune.recipes.config import Recipe, load_recipe
from spikeprune.studies.lab import WHOLE_EPOCH

LAYER = "fc1"  # the paper prunes the first layer alone
ROUNDS = 3
TAUS = tuple(round(0.1 * i, 1) for i in range(1, 10))


@dataclass(frozen=True)
class Settings:
    """The grids of the study.

    Attributes:
        overrides: of the recipe `cqp-paper`.
        sparsities: batches of fine-tuning a round -> the sparsities tried at that budget; 0 is one shot.
        alphas: exponents.
        tuned_alphas: (pattern, sparsity, batches a round) of the sweeps with fine-tuning.
        sensitivity: sparsities tried in each layer alone.
        cliff: the sparsity at which the protection threshold is swept, as in the paper.
        trap: sparsities at which both relaxations are solved, at every threshold of `trap_taus`.
        calibrations: numbers of calibration batches compared.
        networks: (method, pattern, sparsity) whose timesteps and energy are measured.
        warm_up, steps: of the zombie trials, before and after pruning.
    """

    overrides: tuple[str, ...] = ()
    sparsities: tuple[tuple[int, tuple[float, ...]], ...] = (
        (0, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)),
        (10, (0.7, 0.9, 0.95)),
        (WHOLE_EPOCH, (0.7, 0.9)),
    )
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    tuned_alphas: tuple[tuple[str, float, int], ...] = (("unstructured", 0.9, 10), ("column", 0.7, 10))
    sensitivity: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    cliff: float = 0.7
    trap: tuple[float, ...] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
    trap_taus: tuple[float, ...] = (0.1, 0.5, 0.9)
    calibrations: tuple[int, ...] = (1, 2, 4, 8)
    networks: tuple[tuple[str, str, float], ...] = (
        ("cqp", "unstructured", 0.7),
        ("cqp", "unstructured", 0.9),
        ("magnitude", "unstructured", 0.7),
        ("cqp", "column", 0.7),
    )
    warm_up: int = 10
    steps: int = 30

    def recipe(self, data: str, seed: int) -> Recipe:
        """Give the recipe of one seed's dense network."""
        return load_recipe("cqp-paper", [*self.overrides, f"data.name={data}", f"seed={seed}"])


FULL = Settings()
QUICK = Settings(
    overrides=(
        "data.validation=2000",
        "net.hidden=[64, 32]",
        "train.epochs=3",
        "train.batch=64",
        "prune.batch=128",
        "prune.calibration=4",
        "prune.calibration_batch=128",
    ),
    sparsities=((0, (0.5, 0.7, 0.8, 0.9, 0.95)), (10, (0.9,)), (WHOLE_EPOCH, (0.9,))),
    alphas=(0.0, 0.25, 0.5, 1.0),
    tuned_alphas=(("column", 0.7, 10),),
    sensitivity=(0.7, 0.9),
    trap=(0.3, 0.7, 0.9),
    trap_taus=(0.1, 0.5),
    calibrations=(1, 4),
    networks=(("cqp", "unstructured", 0.7),),
    warm_up=2,
    steps=2,
)
