"""Train with quantized weights: the model holds step * integers, the optimizer's hooks hold the weights in floating point.

The gradient is taken at the quantized weight and given to the one in floating point, the master: the straight-through estimator.
Steps follow the largest weight, or are learned (LSQ).

Esser, McKinstry, Bablani, Appuswamy, Modha. Learned Step Size Quantization. ICLR 2020. arXiv:1902.08153

Reading of the paper (learned steps)
  stated    q = round(clip(w / s, -Q, Q)); dq/ds as below; starts at 2 mean|w| / sqrt(Q); gradient scaled by 1 / sqrt(weights Q);
            no gradient to weights beyond the clip; steps are trained by the optimizer of the weights.
  inferred  steps have no weight decay; the mean is over weights that are not zero.
  differs   integers are symmetric, [-Q, Q] where the paper has [-Q - 1, Q]. What the optimizer moves is s over its start, whose
            gradient is that of s over the start: with SGD this is the paper's update, with Adam steps move in proportion.
            Steps are rounded to 17 significant bits. All layers are quantized alike; the paper keeps the first and last at 8 bits.
"""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeprune.errors import QuantizeError, UnsupportedOptimizer
from spikeprune.hold import once_graded, refuse_unreachable
from spikeprune.kernel.quantize import exact_step, from_integers, largest, step_of, to_integers
from spikeprune.quantize.values import Quantization, Quantized
from spikeprune.quantize.weights import Bits, chosen
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView, check_view

Step = Literal["max", "learned"]
STEPS = ("max", "learned")
NARROWEST = 2.0**-10
"""A learned step shrinks to this share of its start at most."""


@contextmanager
def quantize_aware(
    optimizer: Optimizer,
    view: ModelView,
    bits: Bits = 8,
    *,
    layers: str | Iterable[str] | None = None,
    step: Step = "max",
    per_channel: bool = False,
) -> Iterator["Aware"]:
    """Train with quantized weights: in between steps of the optimizer the model holds step * integers.

    Weights stay plain parameters; what they are in floating point is kept beside the model, and is no part of its `state_dict`, nor are
    learned steps part of the optimizer's. At the end the model keeps its quantized weights, and biases are rounded as by `quantize_`.
    What else writes on a weight meanwhile, such as `hold` on dead ones, is taken over. Combines with `hold` in either order.

    Args:
        optimizer: of the model's parameters; any that `hold` takes.
        view: the model.
        bits: of all layers, or by name or pattern, as for `quantize_`; learned steps need 2 or more.
        layers: names or shell patterns; None takes all.
        step: "max": of each layer's largest weight, anew after each step; of 1 bit the mean. "learned": trained (LSQ).
        per_channel: a step for each output channel.

    Raises:
        UnsupportedOptimizer: the optimizer keeps memory that is not parameter-shaped (LBFGS), updates nothing of the model, or cannot
            train steps.
        QuantizeError, NoPrunableLayers, NonFinite: as `quantize_`; an unknown step.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Linear(4, 2)
        >>> view, optimizer = model_view(net, torch.rand(1, 4), spiking=False), torch.optim.SGD(net.parameters(), lr=0.1)
        >>> with quantize_aware(optimizer, view, bits=2) as aware:
        ...     net(torch.ones(1, 4)).sum().backward()
        ...     optimizer.step()
        >>> len(net.weight.abs().unique()) <= 2, aware.quantization()[""].bits
        (True, 2)
    """
    check_view(view)
    aware = Aware(optimizer, view, chosen(view, bits, layers), step=step, per_channel=per_channel)
    try:
        yield aware
    finally:
        aware.release()


class Aware:
    """The hooks and masters of one `quantize_aware`; `release` takes the hooks off."""

    def __init__(
        self, optimizer: Optimizer, view: ModelView, bits: Mapping[Layer, int], *, step: Step = "max", per_channel: bool = False
    ) -> None:
        refuse_unreachable(optimizer)
        _check_step(step, bits)
        self._net, self._optimizer, self._group = view.net, optimizer, _group_of(optimizer, view, bits)
        kind = _Learned if step == "learned" else _Largest
        self._masters = [_Master(layer, kind(layer.weight.detach(), k, per_channel)) for layer, k in bits.items()]
        self._learned = [master.rule for master in self._masters if isinstance(master.rule, _Learned)]
        self._own = _like(optimizer, self._group, [rule.share for rule in self._learned])
        self._write()
        self._pre = optimizer.register_step_pre_hook(self._before)
        self._post = optimizer.register_step_post_hook(self._after)

    def quantization(self) -> Quantization:
        """Give integers and steps as they are now."""
        for master in self._masters:
            master.adopt()
        return Quantization({master.layer.name: master.quantized() for master in self._masters})

    def release(self) -> None:
        """Take the hooks off the optimizer, and leave the model quantized."""
        self._pre.remove()
        self._post.remove()
        self.quantization().apply_(self._net)

    def _before(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Lend masters to the optimizer; if a closure is yet to make the gradients, right after it has made them."""
        # Last of all: what others zero after a step, as `hold` does, they are to zero in the masters.
        self._post.remove()
        self._post = self._optimizer.register_step_post_hook(self._after)
        return once_graded(self._lend, args, kwargs)

    @torch.no_grad()
    def _lend(self) -> None:
        for master in self._masters:
            master.adopt()
            master.rule.grade(master.values, master.layer.weight.grad)
            master.layer.weight.copy_(master.values)

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        for master in self._masters:
            master.values.copy_(master.layer.weight)
        if self._own is not None:
            self._train_steps(self._own)
        self._write()

    def _train_steps(self, own: Optimizer) -> None:
        """Move learned steps as the optimizer moves weights, with its options of the moment."""
        scale, skipped = (getattr(self._optimizer, name, None) for name in ("grad_scale", "found_inf"))
        if skipped is not None and bool(skipped):
            return  # a GradScaler hands scale and verdict to a fused optimizer, whose step then changes nothing
        for rule in self._learned:
            if scale is not None and rule.share.grad is not None:
                rule.share.grad /= scale
        options = own.param_groups[0]
        options.update({key: x for key, x in self._group.items() if key in options and key not in ("params", "weight_decay")})
        own.step()
        for rule in self._learned:
            rule.share.clamp_(min=NARROWEST)

    @torch.no_grad()
    def _write(self) -> None:
        for master in self._masters:
            master.write()


@final
class _Largest:
    """The step follows the largest weight, or of 1 bit the mean, so nothing is clipped."""

    def __init__(self, _: Tensor, bits: int, per_channel: bool) -> None:
        self.bits, self._per_channel = bits, per_channel

    def step(self, values: Tensor) -> Tensor:
        """Give the step of the moment."""
        return step_of(values, self.bits, per_channel=self._per_channel)

    def grade(self, values: Tensor, grad: Tensor | None) -> None:
        """Leave the gradient of the weight as it is."""


@final
class _Learned:
    """The step is learned: `share` is the step over its start."""

    def __init__(self, weight: Tensor, bits: int, per_channel: bool) -> None:
        self.bits, self._per_channel = bits, per_channel
        rows = self._rows(weight.double().abs())
        mean = rows.sum(1) / rows.count_nonzero(1).clamp(min=1)
        start = torch.where(mean > 0, 2 * mean / math.sqrt(largest(bits)), 1.0)
        self._start = start if per_channel else start[0]
        self.share = nn.Parameter(torch.ones_like(self._start, dtype=weight.dtype))

    def step(self, _: Tensor) -> Tensor:
        """Give the step of the moment."""
        return exact_step(self._start * self.share.detach())

    def grade(self, values: Tensor, grad: Tensor | None) -> None:
        """Make the step's gradient of the weight's, which beyond the clip is zeroed."""
        self.share.grad = None
        if grad is None:
            return
        top, step = largest(self.bits), self.step(values).to(grad.dtype)
        scaled = values / (step.view(-1, *[1] * (grad.dim() - 1)) if step.dim() else step)
        inside = scaled.abs() < top
        felt = torch.where(inside, scaled.round() - scaled, scaled.sign() * top)
        moved = grad * felt
        # The gradient of a dead weight may be anything; what is no number moves no step.
        total = self._rows(torch.where(moved.isfinite(), moved, 0)).sum(1)
        total = (total if self._per_channel else total[0]) / math.sqrt(grad.numel() / max(1, step.numel()) * top)
        self.share.grad = (total / self._start).to(self.share.dtype)
        grad.masked_fill_(~inside, 0)

    def _rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(len(weight) if self._per_channel else 1, -1)


@final
class _Master:
    """One layer's weight in floating point, and what of it was last written into the model."""

    def __init__(self, layer: Layer, rule: _Largest | _Learned) -> None:
        self.layer, self.rule = layer, rule
        self.values = layer.weight.detach().clone()
        self._written = self.values.clone()

    @torch.no_grad()
    def adopt(self) -> None:
        """Take over what someone else wrote on the weight since, such as a zero."""
        weight = self.layer.weight
        self.values.copy_(torch.where(weight == self._written, self.values, weight))
        self._written.copy_(weight)

    def quantized(self) -> Quantized:
        """Give integers and step."""
        step = self.rule.step(self.values)
        return Quantized.of(self.values, to_integers(self.values, step, self.rule.bits), step, self.rule.bits)

    def write(self) -> None:
        """Write step * integers into the model."""
        step = self.rule.step(self.values)
        self._written.copy_(from_integers(to_integers(self.values, step, self.rule.bits), step, self.values.dtype))
        self.layer.weight.copy_(self._written)


def _check_step(step: object, bits: Mapping[Layer, int]) -> None:
    if step not in STEPS:
        raise QuantizeError(f"there is no step {step!r}; choose one of {', '.join(STEPS)}.")
    for layer, k in bits.items():
        if step == "learned" and k < 2:
            raise QuantizeError(
                f"a learned step needs 2 bits or more, but layer {layer.name!r} has {k}. Take step='max' for 1 bit."
            )


def _group_of(optimizer: Optimizer, view: ModelView, layers: Iterable[Layer]) -> dict[str, Any]:
    """Give the group of the optimizer that the first of the layers belongs to, whose options learned steps share."""
    groups = {id(param): group for group in optimizer.param_groups for param in group["params"]}
    for layer in layers:
        if id(layer.weight) in groups:
            return groups[id(layer.weight)]
    raise UnsupportedOptimizer(
        f"this {type(optimizer).__name__} updates no layer that is to be quantized of the {type(view.net).__name__} that was viewed. "
        "Make the optimizer from the parameters of that very model, not of a copy."
    )


def _like(optimizer: Optimizer, group: Mapping[str, Any], params: list[nn.Parameter]) -> Optimizer | None:
    """Make another optimizer of the same class and options for steps."""
    if not params:
        return None
    accepted = inspect.signature(type(optimizer)).parameters
    options = {key: value for key, value in group.items() if key in accepted and key != "params"}
    try:
        return type(optimizer)(params, **{**options, **({"weight_decay": 0.0} if "weight_decay" in options else {})})
    except Exception as error:
        raise UnsupportedOptimizer(
            f"{type(optimizer).__name__} cannot train steps ({error}). Take step='max', or an optimizer such as SGD, Adam or AdamW."
        ) from error
