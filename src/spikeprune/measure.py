"""One instrumented pass over calibration data: running sums only, nothing kept per sample.

The model is lent, not taken: it runs in evaluation mode, and its mode, neuron state, gradients, attributes and random
state are found afterwards as they were (`left_as_found` says what that leaves out). Sums are float64, since they decide
what is pruned.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import EmptyCalibration, LayoutError, MeasureError, MissingLoss, NonFinite, SpikepruneError
from spikeprune.stats import GRADIENTS, LayerStats, Need, Stats
from spikeprune.view.layer import Layer, Layout, check_weights, refuse_nonfinite
from spikeprune.view.model_view import ModelView, check_view

__all__ = ["LossFn", "Need", "Stats", "measure"]

LossFn = Callable[[Any, Any], Tensor]


def measure(view: ModelView, batches: Iterable[Any], needs: Set[Need], *, loss_fn: LossFn | None = None, seed: int = 0) -> Stats:
    """Run the model over `batches` once and gather what is needed.

    The model is left as it was found, but for what its own forward changes in place on its attributes: an item appended
    to a list or a counter in a dict stays.

    Args:
        view: the model.
        batches: any iterable of `x` or `(x, y)`, tensors in the layout of the model; a DataLoader serves. Moved to the
            model's device.
        needs: the statistics to gather.
        loss_fn: `loss_fn(output, y)` to a scalar, the mean over the batch's samples; asked for by needs that take gradients.
        seed: of the noise that the model itself draws, if any.

    Raises:
        MissingLoss: a need takes gradients and there is no loss_fn.
        EmptyCalibration: no batch came.
        NonFinite: a weight, an input or a gradient is NaN or infinite.
        LayoutError: a batch has other timesteps than the view, or calls other layers.
        MeasureError: the model cannot run a batch; the loss depends on no layer's weight, or cannot be computed.

    Example:
        >>> from spikeprune import model_view
        >>> view = model_view(nn.Linear(2, 1), torch.ones(1, 2), spiking=False)
        >>> measure(view, [torch.tensor([[0.5, 0.0]])], {Need.INPUT_COUNT})[""].input_count
        tensor([[1., 0.]], dtype=torch.float64)
    """
    check_view(view)
    _check_needs(needs, loss_fn)
    check_batches(batches)
    check_weights(view.layers)
    if GRADIENTS & needs and not any(layer.weight.requires_grad for layer in view.layers):
        raise MeasureError("the weights of all layers are frozen; set requires_grad to measure gradients.")
    total = _Sums(view, needs)
    with view.undisturbed(seed=seed), ExitStack() as hooks, torch.set_grad_enabled(bool(GRADIENTS & needs)):
        for handle in total.hooks():
            hooks.callback(handle.remove)
        for number, batch in enumerate(batches):
            x, y = parts(batch, view.device)
            refuse_empty(x, number)
            total.begin()
            out = run_batch(view, x, number)
            total.check_timesteps()
            if GRADIENTS & needs:
                assert loss_fn is not None
                total.add_gradients(_loss(loss_fn, out, y, number))
    if not total.samples:
        raise EmptyCalibration(
            "the calibration data held no batch. Pass a list or a DataLoader with at least one; a generator is empty the second time."
        )
    return total.means()


class _Sums:
    """Running sums of one pass."""

    def __init__(self, view: ModelView, needs: Set[Need]) -> None:
        self.view, self.needs = view, needs
        self.batches = self.samples = self.batch_samples = 0
        self.sampled = False
        self.gradient: dict[str, Tensor] = {}
        self.count: dict[str, dict[int, Tensor]] = defaultdict(dict)
        self.spikes: dict[str, dict[int, Tensor]] = defaultdict(dict)
        self.real: set[str] = set()
        self.calls: dict[str, int] = defaultdict(int)

    def hooks(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        yield self.view.layers[0].module.register_forward_pre_hook(self._sample)
        if Need.INPUT_COUNT in self.needs:
            for layer in self.view.layers:
                yield layer.module.register_forward_pre_hook(self._count(layer))
        for name, neuron in self.view.neurons.items():  # always: only they tell the timesteps of a folded layer
            yield neuron.register_forward_hook(self._rate(name) if Need.SPIKE_RATE in self.needs else self._tick(name))

    def begin(self) -> None:
        self.batches += 1
        self.sampled = False
        self.calls.clear()

    def check_timesteps(self) -> None:
        """Every layer and neuron must have seen the T timesteps that the view knows, or one call for all of them."""
        steps = dict.fromkeys(self.view.neurons, self.view.timesteps)
        if Need.INPUT_COUNT in self.needs:
            steps |= {x.name: 1 if x.layout is Layout.ONCE else self.view.timesteps for x in self.view.layers}
        for name, expected in steps.items():
            if self.calls[name] != expected:
                raise LayoutError(
                    f"{name!r} saw {self.calls[name]} timesteps in batch {self.batches - 1}, but {expected} when the model was viewed. "
                    "View it again, as it is now, with an example of the same number of timesteps."
                )

    def _sample(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._refuse_nonfinite_input(args[0], self.view.layers[0].name)
        if not self.sampled:
            self.batch_samples = self.view.layers[0].by_timestep(args[0], self.view.timesteps).shape[1]
            self.samples += self.batch_samples
            self.sampled = True

    def _count(self, layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = layer.by_timestep(args[0].detach(), self.view.timesteps)
            if layer.name in self.real or not bool(((x == 0) | (x.abs() == 1)).all()):
                self._refuse_nonfinite_input(x, layer.name)
                self.real.add(layer.name)
            self._add(self.count[layer.name], layer.name, (x != 0).sum(1))

        return hook

    def _tick(self, name: str) -> Callable[[nn.Module, Any, object], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], _: object) -> None:
            assert self.view.adapter is not None
            self.calls[name] += args[0].shape[0] if self.view.adapter.takes_sequence(module) else 1

        return hook

    def _refuse_nonfinite_input(self, x: Tensor, name: str) -> None:
        advice = f"Check calibration batch {self.batches - 1}, and the norms before the layer."
        refuse_nonfinite(x, "inputs", name, advice)

    def _rate(self, name: str) -> Callable[[nn.Module, Any, object], None]:
        def hook(module: nn.Module, _: object, output: object) -> None:
            adapter = self.view.adapter
            assert adapter is not None
            fired = adapter.spikes(module, output).detach() != 0
            fired = fired if adapter.takes_sequence(module) else fired.unsqueeze(0)
            self._add(self.spikes[name], name, fired.reshape(*fired.shape[:2], -1).double().mean(2).sum(1))

        return hook

    def _add(self, sums: dict[int, Tensor], name: str, steps: Tensor) -> None:
        for step in steps:
            t = self.calls[name]
            self.calls[name] += 1
            sums[t] = sums[t] + step if t in sums else step.double()

    def add_gradients(self, loss: Tensor) -> None:
        layers = [layer for layer in self.view.layers if layer.weight.requires_grad]
        grads: tuple[Tensor | None, ...] = torch.autograd.grad(loss, [layer.weight for layer in layers], allow_unused=True)
        if all(grad is None for grad in grads):
            raise MeasureError(
                f"the loss of calibration batch {self.batches - 1} depends on the weight of no layer. Is the output detached?"
            )
        for layer, grad in zip(layers, grads, strict=True):
            if grad is None:  # a head that this loss does not use; it counts as zero if other batches reach it
                continue
            advice = f"Check calibration batch {self.batches - 1} and the loss, or lower the learning rate that led here."
            refuse_nonfinite(grad, "gradients", layer.name, advice)
            # A batch weighs as many samples as it has: a last batch of three must not count like one of five hundred.
            share = self.batch_samples * grad.abs().double()
            self.gradient[layer.name] = self.gradient.get(layer.name, torch.zeros_like(share)) + share

    def means(self) -> Stats:
        layers = {}
        for layer in self.view.layers:
            values = {}
            if layer.name in self.gradient:
                values[Need.WEIGHT_GRADIENT] = self.gradient[layer.name] / self.samples
            if Need.INPUT_COUNT in self.needs:
                values[Need.INPUT_COUNT] = torch.stack(list(self.count[layer.name].values())) / self.samples
            absent = {need: _no_gradient(layer) for need in GRADIENTS & self.needs}
            layers[layer.name] = LayerStats(layer.name, values, binary=layer.name not in self.real, absent=absent)
        rates = {name: torch.stack(list(steps.values())) / self.samples for name, steps in self.spikes.items()}
        return Stats(layers, rates if Need.SPIKE_RATE in self.needs else None, self.batches, self.samples)


def _no_gradient(layer: Layer) -> str:
    if not layer.weight.requires_grad:
        return ": its weight is frozen; set requires_grad, or leave the layer out (layers=...)."
    return ": the loss does not depend on its weight. Undo a detach() behind it, use its output in the loss, or leave it out (layers=...)."


def _check_needs(needs: Set[Need], loss_fn: LossFn | None) -> None:
    unknown = [need for need in needs if not isinstance(need, Need)]
    if unknown:
        raise MeasureError(f"needs must be members of spikeprune.Need; got {unknown}.")
    if GRADIENTS & needs and loss_fn is None:
        names = ", ".join(sorted(f"Need.{need.name}" for need in GRADIENTS & needs))
        raise MissingLoss(f"{names} takes gradients, so a loss_fn is needed: pass loss_fn=fn, where fn(output, y) is a scalar.")


def check_batches(batches: Any) -> None:
    """Refuse a lone batch, and what gives no batches."""
    for part in batches if isinstance(batches, tuple) else (batches,):
        if isinstance(part, Tensor):
            raise MeasureError(
                f"this is one batch in place of batches: a {type(batches).__name__} with a tensor of shape {tuple(part.shape)}. "
                "Put batches in a list: [x], or [(x, y)] with targets."
            )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise MeasureError(f"{type(batches).__name__} gives no batches; pass a list or a DataLoader.")


def refuse_empty(x: Any, batch: int) -> None:
    """Refuse a batch without a sample; `batch` is its number."""
    if isinstance(x, Tensor) and not x.numel():
        raise EmptyCalibration(f"batch {batch} holds no sample: its shape is {tuple(x.shape)}. Leave it out of the data.")


def run_batch(view: ModelView, x: Any, batch: int) -> Any:
    """Run the model over one batch; what it raises is told with the batch's number and shape."""
    try:
        return view(x)
    except SpikepruneError:
        raise
    except Exception as error:
        shape = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
        raise MeasureError(
            f"{type(view.net).__name__} could not run batch {batch}, of {shape}: {type(error).__name__}: {error}. A batch must be as "
            "the example of the view was: the same axes and sizes, except for the number of samples."
        ) from error


def parts(batch: Any, device: torch.device) -> tuple[Any, Any]:
    """Split a batch into input and target (None if it has none), on the model's device."""
    x, y = (*batch, None)[:2] if isinstance(batch, tuple | list) and len(batch) in (1, 2) else (batch, None)
    return tuple(part.to(device) if isinstance(part, Tensor) else part for part in (x, y))  # type: ignore[return-value]


def _loss(loss_fn: LossFn, out: Any, y: Any, batch: int) -> Tensor:
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if y is None:
        raise MeasureError(f"calibration batch {batch} has no target, but the loss needs one; give batches of (x, y).")
    try:
        loss = loss_fn(out, y)
    except SpikepruneError:
        raise
    except Exception as error:
        spread = f"targets from {y.min().item()} to {y.max().item()}" if isinstance(y, Tensor) and y.numel() else "no target"
        raise MeasureError(
            f"loss_fn failed on calibration batch {batch}: {type(error).__name__}: {error}. The model's output is {shape}, {spread}; "
            "labels must be 0 to classes - 1, and the loss must fit the output."
        ) from error
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise MeasureError(
            f"loss_fn must return one number that depends on the output (shape {shape}); it returned {loss!r:.80}."
        )
    if not bool(torch.isfinite(loss)):
        raise NonFinite(f"the loss of calibration batch {batch} is {loss.item()}. Check its input and the model's weights.")
    return loss
