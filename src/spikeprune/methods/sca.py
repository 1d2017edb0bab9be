"""SCA: output channels pruned and regrown during training, by how active they are and by the gradients of their gains.

Yaxin Li, Qi Xu, Jiangrong Shen, Hongming Xu, Long Chen, Gang Pan. Towards Efficient Deep Spiking Neural Networks
Construction with Spiking Activity based Pruning. ICML 2024, PMLR 235. arXiv:2406.01072

Reading of the paper
  stated    (in the authors' code) a channel's activity is the mean of |v[t]| + s[t] over batches, samples, timesteps and places,
            v being the membrane after the reset. At the end of every epoch, with C channels of convolutions in all, the
            int(alpha C) most active stay, by one threshold for all layers; of the others the int(beta C) of largest |dL/d gain|
            in the last batch come back, and only those whose gradient is not zero. alpha + beta is the share that is kept.
            3e-5 times the sign of each weight of the convolutions is added to its gradient throughout.
  inferred  channels that are added live and die together: their activity and gradient are means over neurons and norms.
  differs   a dead channel is silenced by the gain and shift of its norm and held so, with its weights kept: that leaves the
            gradient of the gain alive, by which alone it may be regrown, and then it gets gain and shift back. Its weights get
            no gradient meanwhile; momentum and weight decay still move them. The authors set weights, gain and shift to zero
            once an update and let them train on, and a channel also returns by being active; with all three at zero only the
            momentum that the optimizer still has can move them. `soft=True` does as they do. Activity and gradients are measured
            on calibration batches in evaluation mode, not over the epoch in training mode, so that the same weights and data
            give the same masks; batches weigh as many samples as they have, and |dL/d gain| is a mean over all of them. So a
            channel whose weights are zero has a small gradient until the norm's running mean is zero too, where the authors'
            is zero at once. All layers whose channels can go take part, linear ones too: choose the convolutions with `layers`.
            The penalty on the weights is left to the training loop. Every layer keeps at least one channel. Of ties the lower
            index stays, where the authors drop all that tie with the threshold.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from spikeprune.decide import choose, decide
from spikeprune.errors import MethodError, NonFinite, SparsityError
from spikeprune.kernel.allocate import Allocation, check_allocation, global_top_k
from spikeprune.kernel.patterns import Channel, living, rows
from spikeprune.kernel.regrow import revive, survivors
from spikeprune.kernel.scores import held_down
from spikeprune.masks import Masks, weight_of
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer, by_unit, unit_name


@dataclass(frozen=True)
class SCA:
    """Keep the most active channels, and give part of the places to dead ones whose gain wants back most.

    Use it with `Pruner` and a schedule that asks again and again, such as `schedules.every(0.7, n, start=n)` with n steps an
    epoch; from 0 on it would prune before any training.

    Args:
        regrow: share of all channels that come back at each update, in [0, 1); the paper's beta. Its alpha is
            1 - sparsity - regrow.
        stop: step from which on none comes back, so that the structure settles; None regrows for ever, as the paper.
        spikes: whether spikes count, besides |v|; the authors' code counts them.
        soft: set dead channels to zero once an update and let them train on, as the authors' code; see above. Attach no
            optimizer for it, and apply the masks again (`pruner.masks.apply_(net)`) before you measure accuracy.
        step: training step; `Pruner` sets it.

    Raises:
        SparsityError: `regrow` is out of range; at the call, the sparsity leaves no channel to stay, or fewer than one a layer.
        MethodError: at the call, a layer has no norm with gain and shift behind it.

    Example:
        >>> SCA(regrow=0.1, stop=100).at(100).share
        0.0
    """

    regrow: float = 0.1
    stop: int | None = None
    spikes: bool = True
    soft: bool = False
    step: int = 0
    pattern: ClassVar[Channel] = Channel()

    def __post_init__(self) -> None:
        if not 0 <= self.regrow < 1:
            raise SparsityError(f"regrow is {self.regrow}, but must lie in [0, 1): the share of all channels that comes back.")

    @property
    def needs(self) -> Set[Need]:
        """Membranes, and spikes if they count; gradients of gains while channels come back."""
        wanted = {Need.CHANNEL_MEMBRANE: True, Need.CHANNEL_RATE: self.spikes, Need.GAIN_GRADIENT: self.share > 0}
        return frozenset(need for need, asked in wanted.items() if asked)

    @property
    def stopped(self) -> bool:
        """Whether none comes back any more at this step."""
        return self.stop is not None and self.step >= self.stop

    @property
    def share(self) -> float:
        """The share of all channels that comes back at this step."""
        return 0.0 if self.stopped else self.regrow

    def at(self, step: int) -> "SCA":
        """Return the method as it is at a training step."""
        return replace(self, step=step)

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Prune by activity, regrow by gain gradient."""
        for layer in layers:
            if not layer.norms:
                raise MethodError(
                    f"SCA silences and regrows channels by the norm behind them, but layer {layer.name!r} has none. Leave it out (layers=...)."
                )
        active = by_unit(layers, {x.name: activity(stats, x, spikes=self.spikes) for x in layers}, self.pattern)
        alive = _alive(layers, Masks({}) if self.soft and not self.stopped else masks, active, self.pattern)
        units = sum(score.numel() for score in active.values())
        stay = whole(units, 1 - sparsity - self.share)
        left = prune_to(active, alive, stay, sparsity)
        if self.share:
            growth = by_unit(layers, {x.name: stats[x.name].gain_gradient for x in layers}, self.pattern)
            left = regrown(left, growth, whole(units, self.share))
        return self._masks(layers, left)

    def _masks(self, layers: Sequence[Layer], alive: Mapping[str, Tensor]) -> Masks:
        masks = decide(
            layers, {n: units.double() for n, units in alive.items()}, {n: int(u.sum()) for n, u in alive.items()}, self.pattern
        )
        if not self.soft:
            return masks
        weights = {x.name: {weight_of(x.name): rows(alive[unit_name(x, self.pattern)], x.weight)} for x in layers}
        return Masks(masks, {name: {**held, **weights[name]} for name, held in masks.gates.items()})


@dataclass(frozen=True)
class Activity:
    """Keep the output channels of largest activity, mean |v| + s: SCA's score without its training, one shot.

    Args:
        spikes: whether spikes count, besides |v|.
        allocation: of channels across layers: `global_top_k` or `uniform`.

    Example:
        >>> sorted(need.value for need in Activity().needs)
        ['channel_membrane', 'channel_rate']
    """

    spikes: bool = True
    allocation: Allocation = global_top_k
    pattern: ClassVar[Channel] = Channel()

    def __post_init__(self) -> None:
        check_allocation(self.allocation)

    @property
    def needs(self) -> Set[Need]:
        """Membranes, and spikes if they count."""
        return SCA(regrow=0, spikes=self.spikes).needs

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Score by activity, allocate, keep the most active."""
        scores = {
            x.name: held_down(activity(stats, x, spikes=self.spikes), living(self.pattern, masks.get(x.name))) for x in layers
        }
        return choose(layers, scores, sparsity, self.allocation, self.pattern)


def activity(stats: Stats, layer: Layer, *, spikes: bool = True) -> Tensor:
    """Give the mean of |v| + s of each output channel, or of |v| alone: (C_out,)."""
    found = stats[layer.name]
    score = found.channel_membrane + found.channel_rate if spikes else found.channel_membrane
    if not bool(torch.isfinite(score).all()):
        raise NonFinite(
            f"the activity of layer {layer.name!r} is NaN or infinite. Check the calibration batches and the weights."
        )
    return score


def _alive(layers: Sequence[Layer], masks: Masks, like: Mapping[str, Tensor], pattern: Channel) -> dict[str, Tensor]:
    """Say which units live, where `like` lies; channels that are added live as long as they do in one of their layers."""
    alive = {name: torch.zeros_like(score, dtype=torch.bool) for name, score in like.items()}
    for layer in layers:
        name, mask = unit_name(layer, pattern), living(pattern, masks.get(layer.name))
        alive[name] |= True if mask is None else mask.to(alive[name].device)
    return alive


def whole(units: int, share: float) -> int:
    """Turn a share into a count as the authors do, rounding down; 0.29 of 100 is 29 for all that floats say.

    Example:
        >>> whole(4224, 0.8) + whole(4224, 0.1)
        3801
    """
    return math.floor(round(units * share, 6))


def prune_to(score: Mapping[str, Tensor], alive: Mapping[str, Tensor], stay: int, sparsity: float) -> dict[str, Tensor]:
    """Keep the `stay` best living units of all layers together, but the best of each layer whatever its score."""
    if stay < len(score):
        units = sum(part.numel() for part in score.values())
        raise SparsityError(
            f"sparsity {sparsity} lets {max(stay, 0)} of {units} channels stay besides those regrown, fewer than one for each of {len(score)} layers. "
            "Ask for a lower sparsity, or regrow less."
        )
    first = {name: part.masked_fill(~alive[name], -torch.inf).argmax() for name, part in score.items()}
    lifted = {name: part.index_fill(0, first[name], torch.inf) for name, part in score.items()}
    joined = torch.cat([alive[name] for name in score])
    return _apart(survivors(torch.cat([*lifted.values()]), joined, min(stay, int(joined.sum()))), score)


def regrown(alive: Mapping[str, Tensor], growth: Mapping[str, Tensor], reborn: int) -> dict[str, Tensor]:
    """Bring back the `reborn` dead units of largest growth, of all layers together; none whose growth is zero."""
    joined, score = torch.cat([*alive.values()]), torch.cat([growth[name] for name in alive])
    return _apart(revive(joined, score, min(reborn, int((score[~joined] > 0).sum()))), alive)


def _apart(joined: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = torch.split(joined, [part.numel() for part in like.values()])
    return dict(zip(like, parts, strict=True))
