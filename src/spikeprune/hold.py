"""Dead stays dead: gradients, weights and every memory of the optimizer, through any optimizer.

A pruned weight comes back to life (a *zombie*) when the optimizer still remembers it: momentum, Adam's moments and
weight decay all move a weight whose gradient is zero. So the optimizer's own hooks zero the gradient before a step, and
the weight and every state tensor of its shape after it, whatever the optimizer is called.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.errors import NonFinite, UnsupportedOptimizer
from spikeprune.masks import Masks, refuse_other
from spikeprune.view.model_view import ModelView, check_view


def gates(view: ModelView, masks: Masks) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Yield name, held parameter and its dead entries: of a layer the weight, of its output channels the norm behind it."""
    for name, param in masks.parameters(view.net):
        yield name, param, masks.dead(name, param.device)


class Holder:
    """The hooks of one `hold`; `release` takes them off."""

    def __init__(self, optimizer: Optimizer, view: ModelView, masks: Masks) -> None:
        check_view(view)
        refuse_unreachable(optimizer)
        _refuse_foreign(optimizer, view)
        refuse_other(masks)
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
        for name, param, dead in gates(self.view, self.masks):
            self.masks.zero_(name, param)
            for key, state in _memories(self.optimizer.state.get(param, {})):
                if state.shape == dead.shape:
                    self.masks.zero_(name, state)
                elif state.numel() > 1:
                    raise _unreachable(self.optimizer, f"its state {key!r} for {name!r} has shape {tuple(state.shape)}")

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        return once_graded(self._mask_gradients, args, kwargs)

    @torch.no_grad()
    def _mask_gradients(self) -> None:
        sums = []
        for name, param, _ in gates(self.view, self.masks):
            if param.grad is not None:
                self.masks.zero_(name, param.grad)
                sums.append(param.grad.sum())
        if getattr(self.optimizer, "found_inf", None) is not None:
            return  # a GradScaler hands its verdict to a fused optimizer, which then skips the step by itself
        # One look at the device a step; layer by layer only when it shows trouble (a sum may also overflow by itself).
        if sums and not math.isfinite(sum(total.to(sums[0].device) for total in sums)):
            self._refuse_non_finite()

    def _refuse_non_finite(self) -> None:
        for name, param, _ in gates(self.view, self.masks):
            if param.grad is not None and not bool(torch.isfinite(param.grad).all()):
                raise NonFinite(
                    f"the gradient of {name!r} holds NaN or infinity; the step was not taken and the weights are unharmed. "
                    "Lower the learning rate, clip gradients, or step through a GradScaler."
                )


def once_graded(act: Callable[[], None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """Act on gradients before an optimizer's step: now, or right after the closure has made them that is yet to.

    Args:
        act: what to do.
        args: of the step, as a step pre-hook gets them: the optimizer, and perhaps the closure.
        kwargs: of the step; the closure may be among them.

    Returns:
        What the pre-hook is to return.
    """
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if not callable(closure):
        act()
        return None

    def graded() -> Any:
        loss = closure()
        act()
        return loss

    return ((args[0], graded, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": graded})


class Silenced:
    """What the gates of dead channels were when they were silenced, so that a channel that is regrown gets it back.

    Attributes:
        values: by the names of gates, of their shapes; of what lives, what it was when it was last dead, or zero.
    """

    def __init__(self, values: Mapping[str, Tensor] = MappingProxyType({})) -> None:
        self.values = {name: value.clone() for name, value in values.items()}

    @torch.no_grad()
    def exchange(self, net: nn.Module, old: Masks, new: Masks) -> None:
        """Note what is about to be silenced, and give back to what returns; before the new masks are applied."""
        gated = {name for held in new.gates.values() for name in held}
        for name, param in new.parameters(net):
            if name not in gated:
                continue
            value = self.values.setdefault(name, torch.zeros_like(param.detach())).to(param.device)
            alive = new.held[name].to(param.device)
            before = old.held[name].to(param.device) if name in old.held else torch.ones_like(alive)
            param.copy_(torch.where(alive & ~before, value, param))
            self.values[name] = torch.where(before & ~alive, param, value)


@contextmanager
def hold(optimizer: Optimizer, view: ModelView, masks: Masks) -> Iterator[Masks]:
    """Keep dead weights at zero through every step of an optimizer.

    On entry and after each step, and after `optimizer.load_state_dict`, dead weights and every state tensor of a held
    parameter's shape are zero there; before a step their gradients are. Works under AMP's GradScaler. If the masks are
    replaced meanwhile (`masks.replace_`), the new ones are held from the next step on.

    Raises:
        UnsupportedOptimizer: the optimizer keeps memory that is not parameter-shaped (LBFGS, Adafactor), or updates
            nothing of the model.
        MaskMismatch: the masks belong to another model.
        NonFinite: a gradient is NaN or infinite, raised before the step is taken.

    Example:
        >>> from spikeprune import methods, model_view, prune
        >>> net = nn.Linear(4, 2)
        >>> view, optimizer = model_view(net, torch.rand(1, 4), spiking=False), torch.optim.Adam(net.parameters())
        >>> masks = prune(view, methods.Magnitude(), 0.75)
        >>> with hold(optimizer, view, masks):
        ...     net(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        >>> int((net.weight != 0).sum())
        2
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
    first = next((param for group in optimizer.param_groups for param in group["params"]), torch.zeros(1))
    probe = nn.Parameter(torch.zeros(2, 3, device=first.device))
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
    except Exception as error:
        raise _unreachable(optimizer, f"it cannot step on a dense 2 x 3 parameter ({error})") from error
    for key, state in _memories(trial.state[probe]):
        if state.numel() > 1 and state.shape != probe.shape:
            raise _unreachable(optimizer, f"its state {key!r} for a 2 x 3 parameter has shape {tuple(state.shape)}")


def _refuse_foreign(optimizer: Optimizer, view: ModelView) -> None:
    own = {id(param) for param in view.net.parameters()}
    if not any(id(param) in own for group in optimizer.param_groups for param in group["params"]):
        raise UnsupportedOptimizer(
            f"this {type(optimizer).__name__} updates no parameter of the {type(view.net).__name__} that was viewed, so it cannot hold its "
            "masks. Make the optimizer from the parameters of that very model, not of a copy."
        )


def _memories(state: Any, key: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that an optimizer keeps of one parameter, those in lists and dicts too."""
    if torch.is_tensor(state):
        yield key, state
    elif isinstance(state, dict | list | tuple):
        for name, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _memories(value, key or str(name))


def _unreachable(optimizer: Optimizer, why: str) -> UnsupportedOptimizer:
    return UnsupportedOptimizer(
        f"{type(optimizer).__name__} cannot be held: {why}, so what it remembers of dead weights cannot be zeroed. Use an optimizer "
        "whose state has the parameter's shape, such as SGD, Adam, AdamW, RMSprop or Adagrad."
    )
