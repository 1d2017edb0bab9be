"""When masks change, and who holds them in between. Enforcement is automatic, decisions are explicit."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

from torch.optim import Optimizer

from spikeprune.decide import in_blocks
from spikeprune.errors import MaskMismatch, MethodError, NoPrunableLayers, ScheduleError, SparsityError
from spikeprune.hold import Holder, Silenced
from spikeprune.kernel.allocate import kept
from spikeprune.kernel.patterns import NM, by_output, fixed
from spikeprune.kernel.schedules import Schedule
from spikeprune.masks import Masks, packed, refuse_other, unpacked
from spikeprune.measure import LossFn, measure
from spikeprune.stats import Need, Stats
from spikeprune.view.layer import Layer, check_weights
from spikeprune.view.model_view import ModelView, check_view


class Method(Protocol):
    """A pruning method: what it needs measured, and how it turns that into masks."""

    @property
    def needs(self) -> Set[Need]:
        """The statistics it reads."""
        ...

    def __call__(self, layers: Sequence[Layer], stats: Stats, masks: Masks, sparsity: float) -> Masks:
        """Decide new masks; `masks` are those in force, empty at first."""
        ...


@runtime_checkable
class SteppedMethod(Method, Protocol):
    """A method that changes with training, such as one whose updates grow smaller, or draw anew.

    A method is a frozen value and counts nothing. `Pruner` counts, and asks at every update for the method of that step, so
    that a resumed run decides as an unbroken one; `prune` takes the method as it is.
    """

    def at(self, step: int) -> Method:
        """Return the method as it is at a training step, counted from 0 as the schedule does."""
        ...


def prune(
    view: ModelView,
    method: Method,
    sparsity: float | None = None,
    *,
    calibration: Iterable[Any] = (),
    loss_fn: LossFn | None = None,
    layers: str | Iterable[str] | None = None,
    masks: Masks | None = None,
) -> Masks:
    """Prune in one shot: measure, decide, set dead weights to zero, return the masks.

    Args:
        view: the model.
        method: what decides, such as `methods.CQP()`.
        sparsity: the share of units to remove from the chosen layers, in [0, 1); none for a method that follows the data, as STPrune.
        calibration: batches that the method measures; see `measure`. Methods that need nothing read none.
        loss_fn: for methods that take gradients.
        layers: names or shell patterns of the layers to prune; None is all that the method's pattern is made for.
        masks: masks already in force; what they removed stays removed, unless the method is one that regrows, and those of
            layers not chosen are returned too.

    Raises:
        SparsityError: outside [0, 1), or one that cannot be met; or none where one is needed, or the reverse.
        NoPrunableLayers: a name or pattern fits no layer, or no layer is chosen.
        NonFinite: a weight or a gradient is NaN or infinite.
        MissingLoss, EmptyCalibration, NotMeasured: the method needs what was not given, or cannot be measured.
        MethodError: the method is none.
        MaskMismatch: the masks belong to another model.

    Example:
        >>> import torch
        >>> from spikeprune import methods, model_view
        >>> net = torch.nn.Linear(4, 2, bias=False)
        >>> masks = prune(model_view(net, torch.rand(1, 4), spiking=False), methods.Magnitude(), 0.75)
        >>> masks.kept, int((net.weight != 0).sum())
        ({'': 2}, 2)
    """
    decision = _Decision(view, method, chosen(view, layers, method), calibration, loss_fn)
    masks = Masks({}) if masks is None else masks
    new = decision(sparsity, masks)
    if not is_soft(method):
        masks.apply_(view.net)  # what comes back to life starts at zero
    new.apply_(view.net)
    return new


def is_soft(method: Method) -> bool:
    """Whether what a method prunes may live on until the next update: it is set to zero once, and never held."""
    return bool(getattr(method, "soft", False))


def chosen(view: ModelView, names: str | Iterable[str] | None, method: Method) -> tuple[Layer, ...]:
    """Pick the layers that a method can prune, by name or shell pattern; None is all of them.

    Raises:
        NoPrunableLayers: a name fits no layer, or one whose output channels must stay where these are pruned; or none is left.
    """
    check_view(view)
    pattern = getattr(method, "pattern", None)
    if by_output(pattern):
        return view.channel_layers(names)
    found = in_blocks(view, pattern) if names is None and isinstance(pattern, NM) else view.select(names)
    if not found:
        known = ", ".join(layer.name for layer in view.layers)
        raise NoPrunableLayers(f"layers is empty, so there is nothing to prune. Name some of {known}, or pass None for all.")
    return found


@dataclass(frozen=True)
class _Decision:
    """All that new masks depend on, but for the sparsity and the masks in force."""

    view: ModelView
    method: Method
    layers: Sequence[Layer]
    calibration: Iterable[Any]
    loss_fn: LossFn | None

    def __post_init__(self) -> None:
        method: object = self.method
        if isinstance(method, type) or not callable(method) or not hasattr(method, "needs"):
            raise MethodError(
                f"method is {method!r}, but must be a method, such as methods.CQP() or methods.Magnitude() "
                "(from spikeprune import methods)."
            )

    def __call__(self, sparsity: float | None, masks: Masks) -> Masks:
        """Measure and decide; masks of layers not chosen are carried along."""
        _check_target(self.method, sparsity)  # before the costly pass
        refuse_other(masks)
        masks.check(self.view.layers)
        check_weights(self.view.layers)
        stats = Stats({}, None, 0, 0)
        if self.method.needs:
            stats = measure(self.view, self.calibration, self.method.needs, loss_fn=self.loss_fn)
        return self.method(self.layers, stats, masks, sparsity).over(masks)  # type: ignore[arg-type]


def _untargeted(method: object) -> str | None:
    """Say why a method takes no sparsity; None if it needs one."""
    if getattr(method, "untargeted", False):
        return f"{type(method).__name__} takes from the data how much it removes"
    pattern = getattr(method, "pattern", None)
    return f"the pattern {pattern} says how much lives" if fixed(pattern) else None


def _check_target(method: Method, sparsity: float | None) -> None:
    """Refuse a bad sparsity, none where a method needs one, and one that it has no use for."""
    name, why = type(method).__name__, _untargeted(method)
    if why is not None and sparsity is not None:
        raise SparsityError(f"{why}, so the sparsity {sparsity} would mean nothing; leave it out.")
    if why is None and sparsity is None:
        raise SparsityError(f"{name} needs a sparsity, which must be a fraction: the share of units to remove, such as 0.9.")
    if sparsity is not None:
        kept(1, sparsity)


def _check_schedule(schedule: object) -> None:
    if isinstance(schedule, type) or not callable(schedule):
        raise ScheduleError(
            f"schedule is {schedule!r}, but must be a schedule, such as schedules.once(0.9) (from spikeprune import schedules)."
        )
    targets = getattr(schedule, "targets", ())
    for target in targets:
        kept(1, target)  # refuse a bad target now, not in the middle of training
    for earlier, later in pairwise(targets):
        if later < earlier:
            raise ScheduleError(
                f"the targets fall from {earlier} to {later}, but what is removed stays removed. Give them in rising order."
            )


class Pruner:
    """Updates masks when the schedule says so and holds them in between.

    The loop stays yours and gains one line: `pruner.step()` after `optimizer.step()`. Call it once before the loop as
    well if the schedule's step 0 is to prune before any training.

    Args as for `prune`; with `schedule` for the sparsity: step -> sparsity, or None when nothing is due. A `calibration`
    is read at every update, so it must be a list or a DataLoader, not a generator.

    Attributes:
        masks: the masks in force; empty until the first update.
        steps: how often `step` was called.

    Example:
        >>> import torch
        >>> from spikeprune import methods, model_view, schedules
        >>> net = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> view = model_view(net, torch.rand(1, 4), spiking=False)
        >>> pruner = Pruner(view, methods.Magnitude(), schedules.once(0.5)).attach(optimizer)
        >>> pruner.step(), pruner.step(), pruner.masks.sparsity
        (True, False, 0.5)
    """

    def __init__(
        self,
        view: ModelView,
        method: Method,
        schedule: Schedule,
        *,
        calibration: Iterable[Any] = (),
        loss_fn: LossFn | None = None,
        layers: str | Iterable[str] | None = None,
    ) -> None:
        _check_schedule(schedule)
        if (why := _untargeted(method)) is not None:
            raise MethodError(f"{why}, so no schedule can drive it; call prune(view, method, ...), and hold its masks.")
        self.view, self.schedule = view, schedule
        self._decision = _Decision(view, method, chosen(view, layers, method), calibration, loss_fn)
        self.masks = Masks({})
        self.steps = 0
        self._silenced = Silenced()
        self._holders: list[Holder] = []

    @property
    def method(self) -> Method:
        """The method that decides."""
        return self._decision.method

    def attach(self, optimizer: Optimizer) -> "Pruner":
        """Hold the masks through this optimizer from now on, until `detach`; returns the pruner.

        What a soft method prunes is not held: it may live on until the next update.
        """
        if not is_soft(self.method):
            self._holders.append(Holder(optimizer, self.view, self.masks))
        return self

    def detach(self) -> None:
        """Let go of every optimizer."""
        while self._holders:
            self._holders.pop().release()

    def step(self) -> bool:
        """Count one training step and update the masks if the schedule says so; True when they changed."""
        target = self.schedule(self.steps)
        if target is not None:
            self.update(target)
        self.steps += 1
        return target is not None

    def update(self, sparsity: float) -> Masks:
        """Measure and decide now, whatever the schedule says; returns the masks in force."""
        method = self.method
        if isinstance(method, SteppedMethod):
            method = method.at(self.steps)
        new = replace(self._decision, method=method)(sparsity, self.masks)
        if not is_soft(method):
            self.masks.apply_(self.view.net)  # what comes back to life starts at zero, even if no optimizer was attached
            self._silenced.exchange(self.view.net, self.masks, new)  # but for channels
        self._enforce(new)
        return self.masks

    def state_dict(self) -> dict[str, Any]:
        """Give what resuming needs: the steps counted, the masks, and what silenced channels get back if they return."""
        return {"steps": self.steps, "masks": packed(self.masks), "silenced": dict(self._silenced.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`; dead weights are set to zero at once.

        Raises:
            MaskMismatch: the state is not one of a pruner, or its masks belong to another model.
        """
        if not {"steps", "masks"} <= state.keys():
            raise MaskMismatch(f"this is not a pruner's state: it has {sorted(state)}, not 'steps' and 'masks'.")
        masks = unpacked(state["masks"]).check(self.view.layers)
        for _ in masks.parameters(self.view.net):
            pass  # raises if one is missing
        self.steps, self._silenced = state["steps"], Silenced(state.get("silenced", {}))
        self.masks.replace_(masks)
        if is_soft(self.method):
            return  # what it pruned has trained on since
        self._enforce(masks)

    def _enforce(self, masks: Masks) -> None:
        self.masks.replace_(masks)
        self.masks.apply_(self.view.net)
        for holder in self._holders:
            holder.bury()
