"""One instrumented pass over calibration data: running sums only, nothing kept per sample.

The model is lent, not taken: it runs in evaluation mode, and its mode, neuron state, gradients, attributes and random
state are found afterwards as they were. Sums are float64, since they decide what is pruned.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import EmptyCalibration, LayoutError, MeasureError, MissingLoss, NonFinite, NotMeasured, SpikepruneError
from spikeprune.view.layer import Layer, Layout
from spikeprune.view.model_view import ModelView

LossFn = Callable[[Any, Any], Tensor]


class Need(Enum):
    """A statistic that a method or a metric asks the pass for."""

    WEIGHT_GRADIENT = "weight_gradient"
    """Mean over batches of |dL/dw|, through the surrogate and all timesteps; of the weight's shape."""
    INPUT_COUNT = "input_count"
    """Mean number of non-zero inputs a sample; (T, channels, space ...), or (1, ...) for a layer called once a pass."""
    SPIKE_RATE = "spike_rate"
    """Spikes a neuron and timestep of every neuron layer; (T,), read from `Stats.rates`."""


GRADIENTS = frozenset({Need.WEIGHT_GRADIENT})


class LayerStats:
    """What was gathered of one layer; reading what was not gathered raises NotMeasured."""

    def __init__(self, name: str, values: Mapping[Need, Tensor], *, binary: bool) -> None:
        self._name, self._values, self._binary = name, values, binary

    @property
    def weight_gradient(self) -> Tensor:
        """Mean over batches of |dL/dw|, float64, of the weight's shape."""
        return self._read(Need.WEIGHT_GRADIENT)

    @property
    def input_count(self) -> Tensor:
        """Mean number of non-zero inputs a sample, float64: (T, channels, space ...), or (1, ...) if called once a pass."""
        return self._read(Need.INPUT_COUNT)

    @property
    def binary_input(self) -> bool:
        """Whether every input seen was -1, 0 or 1: then a synapse adds; otherwise it multiplies and adds."""
        self._read(Need.INPUT_COUNT)
        return self._binary

    def _read(self, need: Need) -> Tensor:
        if need not in self._values:
            frozen = ", and see that the layer's weight is not frozen" if need in GRADIENTS else ""
            raise NotMeasured(
                f"{need.value} of layer {self._name!r} was not gathered; add Need.{need.name} to the needs of measure(){frozen}."
            )
        return self._values[need]


class Stats(Mapping[str, LayerStats]):
    """Means from one pass, by layer name, and how large the pass was."""

    def __init__(self, layers: Mapping[str, LayerStats], rates: Mapping[str, Tensor] | None, batches: int, samples: int) -> None:
        self._layers, self._rates = layers, rates
        self.batches, self.samples = batches, samples

    @property
    def rates(self) -> Mapping[str, Tensor]:
        """Spikes a neuron and timestep, float64 (T,), by the neuron layer's name."""
        if self._rates is None:
            raise NotMeasured("spike rates were not gathered; add Need.SPIKE_RATE to the needs of measure().")
        return self._rates

    def __getitem__(self, name: str) -> LayerStats:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def measure(view: ModelView, batches: Iterable[Any], needs: Set[Need], *, loss_fn: LossFn | None = None, seed: int = 0) -> Stats:
    """Run the model over `batches` once and gather what is needed.

    Args:
        view: the model.
        batches: any iterable of `x` or `(x, y)`, tensors in the layout of the model; a DataLoader serves. Moved to the
            model's device.
        needs: the statistics to gather.
        loss_fn: `loss_fn(output, y)` to a scalar; asked for by needs that take gradients.
        seed: of the noise that the model itself draws, if any.

    Raises:
        MissingLoss: a need takes gradients and there is no loss_fn.
        EmptyCalibration: no batch came.
        NonFinite: a weight, an input or a gradient is NaN or infinite.
        LayoutError: a batch has other timesteps than the view, or calls other layers.
        MeasureError: the loss does not depend on a weight, or could not be computed.

    Example:
        >>> from spikeprune import model_view
        >>> view = model_view(nn.Linear(2, 1), torch.ones(1, 2), spiking=False)
        >>> measure(view, [torch.tensor([[0.5, 0.0]])], {Need.INPUT_COUNT})[""].input_count
        tensor([[1., 0.]], dtype=torch.float64)
    """
    unknown = [need for need in needs if not isinstance(need, Need)]
    if unknown:
        raise MeasureError(f"needs must be members of spikeprune.Need; got {unknown}.")
    takes_gradient = bool(GRADIENTS & needs)
    if takes_gradient and loss_fn is None:
        names = ", ".join(sorted(f"Need.{need.name}" for need in GRADIENTS & needs))
        raise MissingLoss(f"{names} takes gradients, so a loss_fn is needed: pass loss_fn=fn, where fn(output, y) is a scalar.")
    for layer in view.layers:
        _refuse_nonfinite(layer.weight, "weights", layer.name, "Go back to a checkpoint from before, or lower the learning rate.")
    if takes_gradient and not any(layer.weight.requires_grad for layer in view.layers):
        raise MeasureError("the weights of all layers are frozen; set requires_grad to measure gradients.")
    total = _Sums(view, needs)
    with view.undisturbed(seed=seed), ExitStack() as hooks, torch.set_grad_enabled(takes_gradient):
        for handle in total.hooks():
            hooks.callback(handle.remove)
        for batch in batches:
            x, y = _parts(batch, view.device)
            total.begin()
            out = view(x)
            total.check_timesteps()
            if takes_gradient:
                assert loss_fn is not None
                total.add_gradients(_loss(loss_fn, out, y, total.batches - 1))
    if not total.samples:
        raise EmptyCalibration(
            "the calibration data held no batch. Pass a list or a DataLoader with at least one; a generator is empty the second time."
        )
    return total.means()


class _Sums:
    """Running sums of one pass."""

    def __init__(self, view: ModelView, needs: Set[Need]) -> None:
        self.view, self.needs = view, needs
        self.batches = self.samples = 0
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
        if self.needs - GRADIENTS:  # counts too: only neurons tell the timesteps of a layer that sees them folded
            for name, neuron in self.view.neurons.items():
                yield neuron.register_forward_hook(self._rate(name))

    def begin(self) -> None:
        self.batches += 1
        self.sampled = False
        self.calls.clear()

    def check_timesteps(self) -> None:
        """Every layer and neuron must have seen the T timesteps that the view knows, or one call for all of them."""
        if not self.needs - GRADIENTS:
            return
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
            self.samples += self.view.layers[0].by_timestep(args[0], self.view.timesteps).shape[1]
            self.sampled = True

    def _count(self, layer: Layer) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = layer.by_timestep(args[0].detach(), self.view.timesteps)
            if layer.name in self.real or not bool(((x == 0) | (x.abs() == 1)).all()):
                self._refuse_nonfinite_input(x, layer.name)
                self.real.add(layer.name)
            self._add(self.count[layer.name], layer.name, (x != 0).sum(1))

        return hook

    def _refuse_nonfinite_input(self, x: Tensor, name: str) -> None:
        advice = f"Check calibration batch {self.batches - 1}, and the norms before the layer."
        _refuse_nonfinite(x, "inputs", name, advice)

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
        grads = torch.autograd.grad(loss, [layer.weight for layer in layers], allow_unused=True)
        for layer, grad in zip(layers, grads, strict=True):
            if grad is None:
                raise MeasureError(f"the loss does not depend on the weight of layer {layer.name!r}; is the output detached?")
            advice = f"Check calibration batch {self.batches - 1} and the loss, or lower the learning rate that led here."
            _refuse_nonfinite(grad, "gradients", layer.name, advice)
            self.gradient[layer.name] = self.gradient.get(layer.name, torch.zeros_like(grad, dtype=torch.double)) + grad.abs()

    def means(self) -> Stats:
        layers = {}
        for layer in self.view.layers:
            values = {}
            if layer.name in self.gradient:
                values[Need.WEIGHT_GRADIENT] = self.gradient[layer.name] / self.batches
            if Need.INPUT_COUNT in self.needs:
                values[Need.INPUT_COUNT] = torch.stack(list(self.count[layer.name].values())) / self.samples
            layers[layer.name] = LayerStats(layer.name, values, binary=layer.name not in self.real)
        rates = {name: torch.stack(list(steps.values())) / self.samples for name, steps in self.spikes.items()}
        return Stats(layers, rates if Need.SPIKE_RATE in self.needs else None, self.batches, self.samples)


def _refuse_nonfinite(values: Tensor, what: str, name: str, advice: str) -> None:
    finite = torch.isfinite(values.detach())
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise NonFinite(f"{bad} of {values.numel()} {what} of layer {name!r} are NaN or infinite. {advice}")


def _parts(batch: Any, device: torch.device) -> tuple[Any, Any]:
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
