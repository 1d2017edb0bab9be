"""SpikeNM: N:M masks learned from scratch along with the weights, by M logits a block, and led by what synapses are worth over time.

Zhenxin Ye, Bo Yu, Qixin Zhang et al. Sparse by Rule: Probability-Based N:M Pruning for Spiking Neural Networks. 2025. arXiv:2511.12097

    noisy = logits + temperature * Gumbel noise;   the mask is the n largest of every block of m: n draws without replacement
    from softmax(logits / temperature); its gradient, straight through, that of n relaxed draws from softmax(noisy)
    credit = mean over calls of |W| |sum over t of signal x surrogate' x trace|, a moving average
    q = softmax(log(credit) / sharpness);   loss = task loss + weight * mean over blocks of KL(q || softmax(logits))

Reading of the paper
  stated    at most n of each m weights in a row live; weights and masks are learned together, from scratch; m logits a block; a
            differentiable draw of n of them without replacement; distillation towards block-wise soft targets made of credits that are
            accumulated over time in the manner of eligibility traces, which lowers the variance of the draws.
  inferred  all formulas (its code is not published). The relaxed draws stay as warm as they are while the draws get colder: relaxed at
            the temperature of the draws, a weight that is some tenths behind has no gradient, and early chance decides all.
            Logits start at zero, and masked weights rest. The weight of the distillation rises over the first tenth of the
            training and falls linearly to zero. The learning signal is the whole derivative of the loss for a spike.
  differs   exactly n of a block live, never fewer. Logits move by their gradient over its root mean square in the layer, which keeps no
            memory, plus that of the distillation; to 10 or -10 at most. Credits are measured on calibration
            batches in evaluation mode, at the best masks, every few steps; so a step costs hardly more than without them.
"""

import math
import zlib
from collections.abc import Iterator, Sequence, Set
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from spikeprune.errors import MaskMismatch, MethodError, NonFinite
from spikeprune.kernel.blocks import NM, columns, uncolumns
from spikeprune.kernel.sampler import gumbel, slopes, top
from spikeprune.stats import LayerStats, Need
from spikeprune.view.layer import Layer

FURTHEST = 10.0  # a logit is from 0
RISING = 0.1  # share of the training in which the weight of the distillation rises
MEMORY = 0.9  # of credits: what an older one counts against the next
LEAST = 1e-20  # that a slope's root mean square counts as: squares of less are 0
SMALLEST = 1e-12  # a credit, over the largest of the layer
HAIR = 1e-6  # tells equal logits apart
NEAR = 1 << 16  # logits whose draws a CPU computes together


@dataclass(frozen=True)
class SpikeNM:
    """Learn which n of every m weights live, while the network trains. Use it with `learn_masks`.

    Args:
        n: weights that live of a block, 1 to m.
        m: weights of a block, in a row along the input channels; up to 32.
        rate: how far logits move in a step.
        temperature: of the draws, at first and at last; it falls exponentially. Lower is surer; 1 at first explores much, and the weights learn
            slowly meanwhile.
        distill: weight of the distillation; 0 leaves it out, and nothing is measured.
        sharpness: of the targets: they are credits to the power 1 / sharpness.
        every: steps from one measurement of credits to the next.
        dense: whether masked weights get gradients too, straight through; otherwise they rest until they are drawn.
        half: keep logits in float16: half a float a weight less, and moves below some thousandth of a logit are lost.
        seed: of the draws.

    Raises:
        SparsityError: there is no such pattern.
        MethodError: another argument is out of range.

    Example:
        >>> SpikeNM(2, 4).pattern
        NM(n=2, m=4)
    """

    n: int = 2
    m: int = 4
    rate: float = 0.05
    temperature: tuple[float, float] = (0.1, 0.01)
    distill: float = 0.3
    sharpness: float = 1.0
    every: int = 32
    dense: bool = False
    half: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.pattern
        first, last = self.temperature
        if not first >= last > 0:
            raise MethodError(
                f"temperature is {self.temperature}, but must be two numbers above 0, the second not above the first."
            )
        for name, value in {"rate": self.rate, "sharpness": self.sharpness}.items():
            if not value > 0:
                raise MethodError(f"{name} is {value}, but must be above 0.")
        if not self.distill >= 0:
            raise MethodError(f"distill is {self.distill}, but must be 0 or more.")
        if self.every < 1:
            raise MethodError(f"every is {self.every}, but must be 1 step or more.")

    @property
    def pattern(self) -> NM:
        """What lives of a block."""
        return NM(self.n, self.m)

    @property
    def needs(self) -> Set[Need]:
        """Eligibility, if there is distillation."""
        return frozenset({Need.ELIGIBILITY} if self.distill else ())

    def begin(self, layers: Sequence[Layer], steps: int) -> "Logits":
        """Begin with equal logits."""
        return Logits(self, layers, steps)


@final
class Logits:
    """The logits of all layers, and the credits that lead them.

    Attributes:
        logits: by layer name, (m, blocks) as `columns` cuts them, float32 or float16; minus infinity where a last block is filled up.
        credits: alike, bfloat16; of layers that were measured.
        step: of training, from 0.
    """

    def __init__(self, method: SpikeNM, layers: Sequence[Layer], steps: int) -> None:
        self._method, self._steps, self.step = method, steps, 0
        kind = torch.float16 if method.half else torch.float32
        self.logits = {
            layer.name: columns(torch.zeros_like(layer.weight, dtype=kind), method.m, fill=-torch.inf) for layer in layers
        }
        self.credits: dict[str, Tensor] = {}
        self._places = {layer.name: place for place, layer in enumerate(layers)}

    @property
    def every(self) -> int:
        """Steps from one measurement of credits to the next; 0 for none."""
        return self._method.every if self._method.distill else 0

    @property
    def temperature(self) -> float:
        """Of the draws at this step."""
        first, last = self._method.temperature
        return float(first * (last / first) ** self._share)

    @property
    def distill(self) -> float:
        """The weight of the distillation at this step."""
        return self._method.distill * min(1.0, self._share / RISING) * (1 - self._share)

    @property
    def _share(self) -> float:
        return min(1.0, self.step / self._steps)

    @torch.no_grad()
    def draw(self, name: str, weight: Tensor) -> Tensor:
        """Draw n of every m without replacement; the same mask however often it is asked at this step."""
        mask = torch.empty_like(self.logits[name], dtype=torch.bool)
        for part, noisy in self._noisy(name):
            mask[:, part] = top(noisy, self._method.n)
        return uncolumns(mask, weight.shape)

    def best(self, name: str, weight: Tensor) -> Tensor:
        """Take the n largest logits of every block; of equal ones the larger weights."""
        rank = columns(weight.detach().abs(), self._method.m).argsort(dim=0).argsort(dim=0)
        return uncolumns(top(self.logits[name].float() + HAIR * rank, self._method.n), weight.shape)

    @torch.no_grad()
    def learn(self, name: str, weight: Tensor, grad: Tensor) -> None:
        """Move the logits of a layer, and give masked weights no gradient if they are to rest."""
        logits = self.logits[name]
        _refuse_nan(name, logits)
        slope, mask = self._felt(name, weight, grad)
        if not self._method.dense:
            grad *= uncolumns(mask, weight.shape)
        led = self._led(name, slope)  # gradients of a softmax add up to 0: none drifts
        filled = weight.shape[1] % self._method.m > 0
        for part in _parts(logits):
            moved = logits[:, part].float().sub(led[:, part], alpha=self._method.rate).clamp_(-FURTHEST, FURTHEST)
            logits[:, part] = moved.masked_fill_(logits[:, part] == -torch.inf, -torch.inf) if filled else moved

    def direction(self, name: str, weight: Tensor, grad: Tensor) -> Tensor:
        """Give what logits are moved against: the slope over its root mean square, and that of the distillation; (m, blocks)."""
        return self._led(name, self.slope(name, weight, grad))

    def slope(self, name: str, weight: Tensor, grad: Tensor) -> Tensor:
        """Give the gradient of the task's loss for a layer's logits by this step's draw; (m, blocks)."""
        return self._felt(name, weight, grad)[0]

    def _felt(self, name: str, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Give the slope, float32, and this step's mask, bool; (m, blocks)."""
        felt = columns((grad.float() * weight.float()).detach(), self._method.m)
        slope, mask = torch.empty_like(felt), torch.empty_like(felt, dtype=torch.bool)
        for part, noisy in self._noisy(name):
            slope[:, part] = slopes(noisy, self._method.n, felt[:, part])
            mask[:, part] = top(noisy, self._method.n)
        return slope, mask

    def _led(self, name: str, slope: Tensor) -> Tensor:
        """Divide a slope by its root mean square, in place, and add that of the distillation."""
        slope /= (torch.linalg.vector_norm(slope) / math.sqrt(slope.numel())).clamp_min(LEAST)
        if self._method.distill and name in self.credits:
            logits, credits = self.logits[name], self.credits[name]
            largest = credits.max().double()
            for part in _parts(logits):
                target = targets(credits[:, part].float(), self._method.sharpness, largest)
                slope[:, part].add_(logits[:, part].float().softmax(0) - target, alpha=self.distill)
        return slope

    @torch.no_grad()
    def note(self, name: str, weight: Tensor, stats: LayerStats) -> None:
        """Take the eligibilities of a layer's weights into its credits."""
        credit = columns(weight.abs() * stats.eligibility.to(weight.device).float(), self._method.m)
        before = self.credits.get(name)
        mean = credit if before is None else MEMORY * before.float() + (1 - MEMORY) * credit
        self.credits[name] = mean.to(torch.bfloat16)

    def again(self, seed: int) -> "Logits":
        """Give the same logits and credits, shared, with draws from another seed."""
        twin = copy(self)
        twin._method = replace(self._method, seed=seed)
        return twin

    def advance(self) -> None:
        """Go on to the next step."""
        self.step += 1

    def chances(self, name: str) -> Tensor:
        """Give the chances of the first of the n draws of every block, float32 (m, blocks), at this step's temperature."""
        return (self.logits[name].float() / self.temperature).softmax(0)

    def entropy(self) -> float:
        """Give the mean entropy of all blocks' chances, over that of equal ones: 1 when nothing is learned, 0 when all is sure."""
        found = torch.cat([torch.special.entr(self.chances(name)).sum(0) for name in self.logits])
        return float(found.mean() / math.log(self._method.m)) if self._method.m > 1 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Give step, logits and credits."""
        return {
            "step": self.step,
            "logits": {name: x.clone() for name, x in self.logits.items()},
            "credits": {name: x.clone() for name, x in self.credits.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`.

        Raises:
            MaskMismatch: the state is of another method.
            NonFinite: a logit is NaN.
        """
        if missing := {"step", "logits", "credits"} - state.keys():
            raise MaskMismatch(f"this is no state of SpikeNM: it lacks {', '.join(sorted(missing))}.")
        for name, logits in state["logits"].items():
            _refuse_nan(name, logits)
            self.logits[name].copy_(logits)
        self.step = state["step"]
        self.credits = {name: x.to(self.logits[name].device, torch.bfloat16) for name, x in state["credits"].items()}

    def _noisy(self, name: str) -> Iterator[tuple[slice, Tensor]]:
        """Give logits with this step's noise, float32, part by part; it is drawn from the seed, so none is kept for gradients or resuming."""
        logits = self.logits[name]
        what = f"{self._method.seed} {self.step} {self._places[name]}"
        generator = torch.Generator(logits.device).manual_seed(zlib.crc32(what.encode()))  # of a longer seed a CPU takes 32 bits
        for part in _parts(logits):
            near = logits[:, part]
            yield part, gumbel(near.shape, generator, logits.device).mul_(self.temperature).add_(near)


def targets(credit: Tensor, sharpness: float = 1.0, largest: Tensor | None = None) -> Tensor:
    """Turn credits (m, blocks) into targets that sum to 1 in a block; one without any credit gets equal ones.

    Args:
        credit: float32.
        sharpness: targets are credits to the power 1 / sharpness.
        largest: credit of the layer, if these are a part of it.

    Example:
        >>> targets(torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
        tensor([[0.7500, 0.5000],
                [0.2500, 0.5000]])
    """
    least = (credit.max() if largest is None else largest) * SMALLEST + torch.finfo(credit.dtype).tiny
    known = credit.clamp_min(least)
    return known / known.sum(0) if sharpness == 1 else (known.log() / sharpness).softmax(0)


def _parts(values: Tensor) -> Iterator[slice]:
    """Cut columns into parts that stay near a CPU while many functions go over them; on a GPU each would be another round of launches."""
    count = max(1, NEAR // values.shape[0]) if values.device.type == "cpu" else values.shape[1]
    for first in range(0, values.shape[1], count):
        yield slice(first, first + count)


def _refuse_nan(name: str, logits: Tensor) -> None:
    if bool(logits.sum(dtype=torch.float32).isnan()) and (gone := int(logits.isnan().sum())):  # what fills a block makes it -inf
        raise NonFinite(
            f"{gone} of {logits.numel()} logits of layer {name!r} are NaN. Go back to a checkpoint from before, and "
            "lower the learning rate of the weights."
        )
