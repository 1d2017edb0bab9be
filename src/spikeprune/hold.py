"""Dead stays dead: gradients, weights and every memory of the optimizer, through any optimizer.

A pruned weight comes back to life (a *zombie*) when the optimizer still remembers it: momentum, Adam's moments and
weight decay all move a weight whose gradient is zero. So the optimizer's own hooks zero the gradient before a step, and
the weight and every state tensor of its shape after it, whatever the optimizer is called.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.errors import NonFinite, UnsupportedOptimizer
from spikeprune.masks import Masks
from spikeprune.view.model_view import ModelView


def gates(view: ModelView, masks: Masks) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Yield layer name, held parameter and its dead entries: the one place that knows what is held for a mask."""
    for layer in view.layers:
        if layer.name in masks:
            weight = layer.weight
            yield layer.name, weight, masks.dead(layer.name, weight.device)


class Holder:
    """The hooks of one `hold`; `release` takes them off."""

    def __init__(self, optimizer: Optimizer, view: ModelView, masks: Masks) -> None:
        refuse_unreachable(optimizer)
        masks.check(view.layers)
        self.optimizer, self.view, self.masks = optimizer, view, masks
        self.bury()
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(lambda *_: self.bury()),
            optimizer.register_load_state_dict_post_hook(lambda *_: self.bury()),
        ]

    def release(self) -> None:
        """Take the hooks off the optimizer."""
        while self._handles:
            self._handles.pop().remove()

    def bury(self) -> None:
        """Zero dead weights and all that the optimizer remembers of them."""
        with torch.no_grad():
            for name, param, dead in gates(self.view, self.masks):
                param.masked_fill_(dead, 0)
                for key, state in self.optimizer.state.get(param, {}).items():
                    if not torch.is_tensor(state) or state.numel() <= 1:
                        continue
                    if state.shape != dead.shape:
                        raise _unreachable(self.optimizer, f"its state {key!r} for layer {name!r} has shape {tuple(state.shape)}")
                    state.masked_fill_(dead, 0)

    def _before(self, *_: Any) -> None:
        sums = []
        for _name, param, dead in gates(self.view, self.masks):
            if param.grad is not None:
                param.grad.masked_fill_(dead, 0)
                sums.append(param.grad.sum())
        # One look at the device a step; layer by layer only when it shows trouble (a sum may also overflow by itself).
        if sums and not math.isfinite(sum(total.to(sums[0].device) for total in sums)):
            self._refuse_non_finite()

    def _refuse_non_finite(self) -> None:
        for name, param, _ in gates(self.view, self.masks):
            if param.grad is not None and not bool(torch.isfinite(param.grad).all()):
                raise NonFinite(
                    f"the gradient of layer {name!r} holds NaN or infinity; the step was not taken and the weights are unharmed. "
                    "Lower the learning rate, clip gradients, or step through a GradScaler."
                )


@contextmanager
def hold(optimizer: Optimizer, view: ModelView, masks: Masks) -> Iterator[Masks]:
    """Keep dead weights at zero through every step of an optimizer.

    On entry and after each step, and after `optimizer.load_state_dict`, dead weights and every state tensor of a held
    parameter's shape are zero there; before a step their gradients are. Works under AMP's GradScaler. If the masks are
    replaced meanwhile (`masks.replace_`), the new ones are held from the next step on.

    Raises:
        UnsupportedOptimizer: the optimizer keeps memory that is not parameter-shaped (LBFGS, Adafactor).
        MaskMismatch: the masks belong to another model.
        NonFinite: a gradient is NaN or infinite, raised before the step is taken.
    """
    holder = Holder(optimizer, view, masks)
    try:
        yield masks
    finally:
        holder.release()


def refuse_unreachable(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose memory of one weight cannot be told from that of others.

    An optimizer makes its memory at its first step, too late to refuse; so another of its class takes a step on a 2 x 3
    parameter, and the memory of that one is looked at. What cannot be built that way is checked at its first real step.
    """
    if not isinstance(optimizer, Optimizer):
        raise UnsupportedOptimizer(f"hold needs a torch.optim.Optimizer, but was given {type(optimizer).__name__}.")
    probe = nn.Parameter(torch.zeros(2, 3, device=optimizer.param_groups[0]["params"][0].device))
    accepted = inspect.signature(type(optimizer)).parameters
    try:
        trial = type(optimizer)([probe], **{k: v for k, v in optimizer.defaults.items() if k in accepted})
    except TypeError:
        return

    def closure() -> float:
        probe.grad = torch.ones_like(probe)
        return 0.0

    try:
        closure()
        trial.step(closure)
    except RuntimeError as error:
        raise _unreachable(optimizer, f"it cannot step on a dense 2 x 3 parameter ({error})") from error
    for key, state in trial.state[probe].items():
        for value in state if isinstance(state, list | tuple) else [state]:
            if torch.is_tensor(value) and value.numel() > 1 and value.shape != probe.shape:
                raise _unreachable(optimizer, f"its state {key!r} for a 2 x 3 parameter has shape {tuple(value.shape)}")


def _unreachable(optimizer: Optimizer, why: str) -> UnsupportedOptimizer:
    return UnsupportedOptimizer(
        f"{type(optimizer).__name__} cannot be held: {why}, so what it remembers of dead weights cannot be zeroed. Use an optimizer "
        "whose state has the parameter's shape, such as SGD, Adam, AdamW, RMSprop or Adagrad."
    )
