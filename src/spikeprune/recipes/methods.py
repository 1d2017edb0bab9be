"""Methods as a recipe names them, with their papers: the table behind `[method]` and `spikeprune methods`."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spikeprune.errors import RecipeError
from spikeprune.kernel.allocate import Allocation, erdos_renyi, global_top_k, lamp, uniform, uniform_plus
from spikeprune.kernel.patterns import Block, Channel, Pattern, Unstructured, by_output
from spikeprune.kernel.scores import by_mean, by_rank, per_input, per_output, per_weight, unit
from spikeprune.methods import CQP, SCA, SET, SLAMP, SNIP, Activity, GradientOnly, Magnitude, Random, RigL, Slimming
from spikeprune.methods.slamp import Gain, Steps, by_gradient, by_nearness, evenly, input_gain, peak_gain, trace_gain
from spikeprune.pruner import Method

CRITICALITY = {"weight": per_weight, "input": per_input, "output": per_output}
NORMALIZE = {"max": unit, "mean": by_mean, "rank": by_rank}
_TRAINED = "here from the trained network, where the paper starts from scratch"
STEPS: dict[str, Steps] = {"gradient": by_gradient, "nearness": by_nearness, "even": evenly}
GAINS: dict[str, Gain] = {"trace": trace_gain, "input": input_gain, "peak": peak_gain}
PATTERNS: dict[str, Pattern] = {"unstructured": Unstructured(), "column": Channel(dim=1), "channel": Channel(), "block": Block()}


class MethodSpec(BaseModel):
    """A method and its options; the name decides which options there are."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    name: str

    @property
    def label(self) -> str:
        """The name, and the options that are not the default ones."""
        options = self.model_dump(exclude={"name"}, exclude_defaults=True)
        return self.name + "".join(f" {key}={value}" for key, value in options.items())


class CQPSpec(MethodSpec):
    """Options of CQP."""

    alpha: float = Field(0.5, ge=0)
    protect: float | None = Field(None, gt=0, le=1)
    criticality: Literal["weight", "input", "output"] = "weight"
    normalize: Literal["max", "mean", "rank"] = "max"
    joint: bool = False


class SETSpec(MethodSpec):
    """Options of SET."""

    fraction: float = Field(0.3, ge=0, lt=1)


class RigLSpec(SETSpec):
    """Options of RigL; `stop` counts steps of fine-tuning."""

    stop: int | None = Field(None, ge=1)


class SLAMPSpec(MethodSpec):
    """Options of SLAMP."""

    steps: Literal["gradient", "nearness", "even"] = "gradient"
    gain: Literal["trace", "input", "peak"] = "trace"
    exponent: bool = False
    per_input: bool = False
    cap: float | None = Field(None, ge=1)


class SCASpec(MethodSpec):
    """Options of SCA; `stop` counts steps of fine-tuning."""

    regrow: float = Field(0.1, ge=0, lt=1)
    stop: int | None = Field(None, ge=0)
    spikes: bool = True


class ActivitySpec(MethodSpec):
    """Options of activity."""

    spikes: bool = True


@dataclass(frozen=True)
class Entry:
    """A method that recipes can name: its options, how it is built from them, one line, and where it comes from."""

    spec: type[MethodSpec]
    build: Callable[[Any, Pattern, int], Method]
    about: str
    paper: str


def _magnitude(allocation: Allocation) -> Callable[[Any, Pattern, int], Method]:
    return lambda spec, pattern, seed: Magnitude(allocation=allocation, pattern=pattern)


def _cqp(spec: CQPSpec, pattern: Pattern, seed: int) -> Method:
    return CQP(
        spec.alpha, spec.protect, pattern,
        criticality=CRITICALITY[spec.criticality], normalize=NORMALIZE[spec.normalize], joint=spec.joint,
    )  # fmt: skip


def _slamp(spec: SLAMPSpec, pattern: Pattern, seed: int) -> Method:
    if not isinstance(pattern, Unstructured):
        raise RecipeError('prune.pattern: slamp prunes single weights; set it to "unstructured", or leave slamp out')
    return SLAMP(STEPS[spec.steps], GAINS[spec.gain], spec.exponent, spec.per_input, spec.cap)


def _sparse_training(spec: SETSpec, pattern: Pattern, seed: int) -> Method:
    if not isinstance(pattern, Unstructured):
        raise RecipeError(
            f'prune.pattern: {spec.name} exchanges single weights; set it to "unstructured", or leave {spec.name} out'
        )
    return RigL(spec.fraction, spec.stop, seed=seed) if isinstance(spec, RigLSpec) else SET(spec.fraction, seed=seed)


def _channels(make: Callable[[Any], Method]) -> Callable[[Any, Pattern, int], Method]:
    def made(spec: MethodSpec, pattern: Pattern, seed: int) -> Method:
        if not by_output(pattern):
            raise RecipeError(f'prune.pattern: {spec.name} prunes output channels; set it to "channel", or leave {spec.name} out')
        return make(spec)

    return made


METHODS: dict[str, Entry] = {
    "slamp": Entry(
        SLAMPSpec,
        _slamp,
        "largest magnitude, layers by LAMP score times their gain over time",
        "Wang, Ye, Ouyang 2026, arXiv:2603.14946",
    ),
    "cqp": Entry(
        CQPSpec,
        _cqp,
        "magnitude times surrogate-gradient criticality to the power alpha, one global ranking, in rounds",
        "Hamza 2026, arXiv:2606.30676",
    ),
    "magnitude": Entry(
        MethodSpec, _magnitude(global_top_k), "largest magnitude, one global ranking", "Han et al. 2015, arXiv:1506.02626"
    ),
    "lamp": Entry(MethodSpec, _magnitude(lamp), "largest magnitude, layers by LAMP score", "Lee et al. 2021, arXiv:2010.07611"),
    "uniform": Entry(
        MethodSpec, _magnitude(uniform), "largest magnitude, every layer alike", "Zhu and Gupta 2017, arXiv:1710.01878"
    ),
    "uniform+": Entry(
        MethodSpec,
        _magnitude(uniform_plus),
        "largest magnitude, every layer alike, but a first convolution dense and the last layer at least 20 %",
        "Gale et al. 2019, arXiv:1902.09574",
    ),
    "erk": Entry(
        MethodSpec,
        _magnitude(erdos_renyi),
        "largest magnitude, Erdős-Rényi-kernel densities",
        "Evci et al. 2020, arXiv:1911.11134",
    ),
    "gradient": Entry(
        MethodSpec,
        lambda spec, pattern, seed: GradientOnly(pattern),
        "largest criticality alone, whatever the magnitude",
        "Hamza 2026, arXiv:2606.30676",
    ),
    "snip": Entry(
        MethodSpec,
        lambda spec, pattern, seed: SNIP(pattern),
        f"connection sensitivity |w * dL/dw|, one global ranking; {_TRAINED}",
        "Lee et al. 2019, arXiv:1810.02340",
    ),
    "set": Entry(
        SETSpec,
        _sparse_training,
        f"random masks; each stage exchanges the weakest weights for random ones; {_TRAINED}",
        "Mocanu et al. 2018, arXiv:1707.04780",
    ),
    "rigl": Entry(
        RigLSpec,
        _sparse_training,
        f"random masks; each stage exchanges the weakest weights for those of largest gradient; {_TRAINED}",
        "Evci et al. 2020, arXiv:1911.11134",
    ),
    "sca": Entry(
        SCASpec,
        _channels(lambda spec: SCA(spec.regrow, spec.stop, spikes=spec.spikes)),
        "channels of largest activity |v| + s, of the others some come back by the gradient of their gain, at each stage",
        "Li et al. 2024, arXiv:2406.01072",
    ),
    "slimming": Entry(
        MethodSpec,
        _channels(lambda spec: Slimming()),
        "channels of largest gain of their norm, one global ranking",
        "Liu et al. 2017, arXiv:1708.06519",
    ),
    "activity": Entry(
        ActivitySpec,
        _channels(lambda spec: Activity(spikes=spec.spikes)),
        "channels of largest activity |v| + s, one global ranking",
        "Li et al. 2024, arXiv:2406.01072",
    ),
    "random": Entry(MethodSpec, lambda spec, pattern, seed: Random(seed, pattern=pattern), "chance: what a score must beat", "-"),
}


def method_spec(entry: Any, where: str) -> MethodSpec:
    """Check a method of a recipe: a name, or a table with a name and options.

    Raises:
        RecipeError: no name, an unknown method (the nearest is offered), or a wrong option.
    """
    table = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise RecipeError(f'{where}: name a method, such as name = "cqp"; there are {", ".join(METHODS)}')
    name = table["name"]
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(METHODS)}"
        raise RecipeError(f"{where}.name: there is no method {name!r}{hint}")
    spec = METHODS[name].spec
    for key in table:
        if key not in spec.model_fields:
            known = [field for field in spec.model_fields if field != "name"]
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"{name} takes {', '.join(known) or 'no options'}"
            raise RecipeError(f"{where}.{key}: unknown key; {hint}")
    return _validated(spec, table, where)


def _validated(spec: type[MethodSpec], table: dict[str, Any], where: str) -> MethodSpec:
    from pydantic import ValidationError

    try:
        return spec.model_validate(table)
    except ValidationError as error:
        fault = error.errors()[0]
        raise RecipeError(f"{where}.{fault['loc'][-1]}: {fault['msg']}, not {fault['input']!r}") from error


def build(spec: MethodSpec, pattern: str, seed: int) -> Method:
    """Build the method that a recipe asks for; `seed` is that of the run, for methods that draw."""
    return METHODS[spec.name].build(spec, PATTERNS[pattern], seed)
