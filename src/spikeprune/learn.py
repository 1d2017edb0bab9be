"""Train masks along with the weights: the model holds masked weights, the optimizer's hooks hold all of them.

Between steps of the optimizer every layer's weight is mask times W, so no block of it ever has more than n alive, whoever looks: the
forward at all timesteps, a profile, a saved file. The gradient is taken there; W gets it straight through, and the masks learn from it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.decide import in_blocks
from spikeprune.errors import MaskMismatch, MethodError, NonFinite, SparsityError, UnsupportedOptimizer
from spikeprune.hold import once_graded, refuse_unreachable
from spikeprune.learner import LearnedMethod, Learner
from spikeprune.masks import Masks
from spikeprune.measure import LossFn, measure
from spikeprune.stats import Stats
from spikeprune.view.layer import Layer, check_weights
from spikeprune.view.model_view import ModelView, check_view


def learn_masks(
    optimizer: Optimizer,
    view: ModelView,
    method: LearnedMethod,
    steps: int,
    *,
    calibration: Iterable[Any] = (),
    loss_fn: LossFn | None = None,
    layers: str | Iterable[str] | None = None,
) -> "Learning":
    """Learn masks by gradients for as long as the `with` block lasts; then the model keeps the best of them.

    The training loop stays as it is. One mask serves a whole forward, so all timesteps share it; the next is drawn after the
    optimizer's step. In evaluation mode the model has its best masks. Afterwards measure the norms anew (`recalibrate`), and fine-tune under
    `hold` with the masks of `Learning.masks`.

    Args:
        optimizer: of the model's parameters; any that `hold` takes.
        view: the model.
        method: what learns, such as `methods.SpikeNM(2, 4)`.
        steps: of training within the block, by which temperatures fall.
        calibration: batches (x, y) that the method measures, one after the other; kept in a list. Needed if the method measures at all.
        loss_fn: `loss_fn(output, y)` to a scalar, for what it measures.
        layers: names or shell patterns; None takes all but the first, the last, and those whose inputs m does not divide.

    Raises:
        NoPrunableLayers: no layer is left, or a name fits none.
        SparsityError: a layer has fewer inputs than m.
        UnsupportedOptimizer: the optimizer keeps memory that is not parameter-shaped (LBFGS), or does not update a layer that is chosen.
        MethodError: the method is none that learns, or needs batches or a loss that were not given.
        NonFinite: a weight, a gradient or a logit is NaN or infinite.

    Example:
        >>> from spikeprune import methods, model_view
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
        >>> view, optimizer = model_view(net, torch.rand(1, 8), spiking=False), torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with learn_masks(optimizer, view, methods.SpikeNM(2, 4, distill=0), steps=3) as learning:
        ...     for _ in range(3):
        ...         net(torch.ones(1, 8)).sum().backward()
        ...         optimizer.step()
        >>> learning.masks.kept, int((net[1].weight != 0).sum())
        ({'1': 32}, 32)
    """
    check_view(view)
    _check_method(method)
    _check_steps(steps)
    refuse_unreachable(optimizer)
    found = in_blocks(view, method.pattern) if layers is None else view.select(layers)
    check_weights(found)
    _refuse_untrained(optimizer, found)
    credits = _Credits(view, method, calibration, loss_fn)
    return Learning(optimizer, found, method, method.begin(found, steps), credits)


class Learning:
    """The hooks, whole weights and learner of one `learn_masks`; `release` takes the hooks off and leaves the best masks.

    Attributes:
        view: the model.
        method: what learns.
        steps: how many steps of training were taken.
        learner: what the method knows, such as logits.
    """

    def __init__(
        self, optimizer: Optimizer, layers: Iterable[Layer], method: LearnedMethod, learner: Learner, credits: "_Credits"
    ) -> None:
        self.view, self.method, self.learner, self.steps = credits.view, method, learner, 0
        self._optimizer, self._credits = optimizer, credits
        self._parts = [_Part(layer, learner) for layer in layers]
        self._handles = [handle for part in self._parts for handle in part.hooks()]
        self._handles += [optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)]

    def __enter__(self) -> "Learning":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def masks(self) -> Masks:
        """The best masks as they are now."""
        return Masks({part.layer.name: self.learner.best(part.layer.name, part.values) for part in self._parts})

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The whole weights by layer name: also those that are masked at the moment."""
        for part in self._parts:
            part.adopt()
        return {part.layer.name: part.values for part in self._parts}

    def release(self) -> None:
        """Take the hooks off, and leave the model with its best masks."""
        while self._handles:
            self._handles.pop().remove()
        for part in self._parts:
            part.adopt()
            part.show(training=False)

    def state_dict(self) -> dict[str, Any]:
        """Give what resuming needs besides model and optimizer: the pattern, the steps taken, the whole weights, what is learned."""
        pattern = self.method.pattern
        return {
            "pattern": [pattern.n, pattern.m],
            "steps": self.steps,
            "weights": {name: weight.clone() for name, weight in self.weights.items()},
            "learner": self.learner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the model gets its masked weights at once.

        Raises:
            MaskMismatch: the state is of another pattern or of other layers, or is none.
        """
        pattern = self.method.pattern
        if missing := {"pattern", "steps", "weights", "learner"} - state.keys():
            raise MaskMismatch(f"this is no state of learn_masks: it lacks {', '.join(sorted(missing))}.")
        if list(state["pattern"]) != [pattern.n, pattern.m]:
            n, m = state["pattern"]
            raise MaskMismatch(
                f"the state is of a search for {n}:{m}, but this one is for {pattern.n}:{pattern.m}. Resume with the method that it began with."
            )
        own = {part.layer.name: tuple(part.values.shape) for part in self._parts}
        theirs = {name: tuple(weight.shape) for name, weight in state["weights"].items()}
        if own != theirs:
            raise MaskMismatch(f"the state is of layers {theirs}, but this search is of {own}.")
        self.steps = state["steps"]
        self.learner.load_state_dict(state["learner"])
        for part in self._parts:
            part.values.copy_(state["weights"][part.layer.name])
            part.show(training=part.layer.module.training)

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        return once_graded(self._learn, args, kwargs)

    @torch.no_grad()
    def _learn(self) -> None:
        """Let the masks learn, and lend the whole weights to the optimizer."""
        scale, skipped = (getattr(self._optimizer, name, None) for name in ("grad_scale", "found_inf"))
        if skipped is None:
            self._refuse_nonfinite()
        for part in self._parts:
            part.lend(1.0 if scale is None else float(scale), learn=skipped is None or not bool(skipped))

    def _refuse_nonfinite(self) -> None:
        graded = [(part, part.layer.weight.grad) for part in self._parts if part.layer.weight.grad is not None]
        # One look at the device a step; layer by layer only when it shows trouble (a sum may also overflow by itself).
        if math.isfinite(sum(grad.sum() for _, grad in graded)):
            return
        for part, grad in graded:
            if not bool(torch.isfinite(grad).all()):
                raise NonFinite(
                    f"the gradient of {part.layer.name!r} holds NaN or infinity; the step was not taken and weights and masks are unharmed. "
                    "Lower the learning rate, clip gradients, or step through a GradScaler."
                )

    def _after(self, *_: Any) -> None:
        for part in self._parts:
            part.take()
        self.steps += 1
        self.learner.advance()
        if self.learner.every and self.steps % self.learner.every == 0:
            self._measure(self.steps // self.learner.every)
        for part in self._parts:
            part.show(training=True)

    def _measure(self, count: int) -> None:
        stats = self._credits.measure(count)
        for part in self._parts:
            self.learner.note(part.layer.name, part.values, stats[part.layer.name])


@final
class _Credits:
    """What the method measures now and then: one batch after the other."""

    def __init__(self, view: ModelView, method: LearnedMethod, calibration: Iterable[Any], loss_fn: LossFn | None) -> None:
        self.view, self._needs, self._loss_fn = view, method.needs, loss_fn
        self._batches = list(calibration) if method.needs else []
        if method.needs and (not self._batches or loss_fn is None):
            raise MethodError(
                f"{type(method).__name__} measures {', '.join(sorted(need.value for need in method.needs))} while it learns: pass "
                "calibration=[(x, y), ...], some training batches, and loss_fn=fn with fn(output, y) a scalar."
            )

    def measure(self, count: int) -> Stats:
        """Measure on the batch whose turn it is, from 1 on; in evaluation mode, so at the best masks."""
        batch = self._batches[(count - 1) % len(self._batches)]
        return measure(self.view, [batch], self._needs, loss_fn=self._loss_fn)


@final
class _Part:
    """One layer: its whole weight, and which of its masks the model has."""

    def __init__(self, layer: Layer, learner: Learner) -> None:
        self.layer, self._learner = layer, learner
        self.values = layer.weight.detach().clone()
        self.show(training=layer.module.training)

    def hooks(self) -> Iterator[Any]:
        """Follow the mode of the layer: a drawn mask in training, the best one in evaluation."""
        yield self.layer.module.register_forward_pre_hook(self._follow)

    def _follow(self, module: nn.Module, _: object) -> None:
        if module.training != self._training:
            self.adopt()
            self.show(training=module.training)

    @torch.no_grad()
    def adopt(self) -> None:
        """Take over what someone else wrote on the weight since; what is zero there is masked."""
        weight = self.layer.weight.to(self.values.dtype)
        self.values.lerp_(weight, (weight != 0).to(weight.dtype))  # at 0 and 1 exact, and faster than a choice of each

    @torch.no_grad()
    def show(self, *, training: bool) -> None:
        """Write mask times weight into the model."""
        ask = self._learner.draw if training else self._learner.best
        self.layer.weight.copy_(self.values).mul_(ask(self.layer.name, self.values))
        self._training = training

    def lend(self, scale: float, *, learn: bool) -> None:
        """Let the mask learn from the gradient, and give the optimizer the whole weight."""
        self.adopt()
        grad = self.layer.weight.grad
        if learn and grad is not None:
            felt = grad if scale == 1 else grad / scale
            self._learner.learn(self.layer.name, self.values, felt)
            if felt is not grad:
                grad.copy_(felt * scale)
        self.layer.weight.copy_(self.values)

    @torch.no_grad()
    def take(self) -> None:
        """Take the weight back as the optimizer made it."""
        self.values.copy_(self.layer.weight)


def _check_method(method: object) -> None:
    if isinstance(method, type) or not callable(getattr(method, "begin", None)):
        raise MethodError(
            f"method is {method!r}, but must be one that learns masks, such as methods.SpikeNM(2, 4). Others go to prune() or a Pruner."
        )


def _check_steps(steps: object) -> None:
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise SparsityError(f"steps is {steps!r}, but must be how many training steps the masks are learned over, 1 or more.")


def _refuse_untrained(optimizer: Optimizer, layers: Iterable[Layer]) -> None:
    trained = {id(param) for group in optimizer.param_groups for param in group["params"]}
    if still := [layer.name for layer in layers if id(layer.weight) not in trained or not layer.weight.requires_grad]:
        raise UnsupportedOptimizer(
            f"this {type(optimizer).__name__} does not train the weight of {', '.join(still)}, so there is nothing to learn a mask from. Make the "
            "optimizer from the parameters of that very model, unfreeze the layers, or leave them out (layers=...)."
        )
