"""The readout: the module whose outputs, added up over timesteps, give the model's output.

Everything about time asks what the model would answer had it stopped earlier. That is only known if its answer is the
sum, or the mean, of what one module gives at each timestep; so this is checked against the model's own output, never
assumed. Outputs that are scaled, normalised or read from a membrane afterwards are refused.
"""

import difflib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikeprune.errors import ModelError
from spikeprune.measure import parts
from spikeprune.view.layer import Layer, Layout, refuse_nonfinite
from spikeprune.view.model_view import ModelView, check_view


@dataclass(frozen=True, eq=False)
class Readout:
    """A module of the model, where time lies in its output, and how its outputs make the model's.

    Attributes:
        name: the module's qualified name.
        module: the module.
        layout: how its outputs come: T times (N, ...), or once (T, N, ...) or (T * N, ...).
        timesteps: T.
        scale: what the sum over timesteps is multiplied by, 1 or 1 / T; None if the example gave zeros only.
    """

    name: str
    module: nn.Module
    layout: Layout
    timesteps: int
    scale: float | None

    @contextmanager
    def listening(self, view: ModelView, hear: Callable[[Tensor], None]) -> Iterator[None]:
        """Hand each output of the module, (steps, N, C), to `hear` for as long as the context lasts."""

        def hook(module: nn.Module, _: object, output: object) -> None:
            hear(self.by_timestep(_tensor(view, module, output, self.name).detach()))

        handle = self.module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def by_timestep(self, output: Tensor) -> Tensor:
        """View one output as (steps, N, C); axes behind the channels are flattened into them."""
        steps = Layer(self.name, self.module, self.layout).by_timestep(output, self.timesteps)
        return steps.reshape(*steps.shape[:2], -1)

    def scale_of(self, heard: Tensor, output: object) -> float | None:
        """Tell whether the model's output is the sum of what was heard, or its mean.

        Args:
            heard: (T, N, C), the readout's outputs.
            output: what the model returned.

        Returns:
            1 or 1 / T; None if both fit, as for zeros.

        Raises:
            ModelError: it is neither.
            NonFinite: an output is NaN or infinite.
        """
        refuse_nonfinite(heard, "outputs", self.name, "Check the batch, and the model's weights.")
        if not isinstance(output, Tensor) or output.numel() not in (heard.numel(), heard[0].numel()):
            raise ModelError(
                f"{self._no_sum} The output is {_shape(output)}, what the readout gives {_shape(heard)}, (T, N, C). {self._advice}"
            )
        refuse_nonfinite(output, "outputs", "(model)", "Check the batch, and the model's weights.")
        # A sequence is returned as it is, and read as a sum.
        ways = (
            {1.0: heard}
            if output.numel() == heard.numel()
            else {1.0: heard.double().sum(0), 1 / len(heard): heard.double().mean(0)}
        )
        size = heard.double().abs() if output.numel() == heard.numel() else heard.double().abs().sum(0)
        off = {scale: (output.detach().reshape(way.shape).double() - way).abs() for scale, way in ways.items()}
        fits = [scale for scale in off if bool((off[scale] <= _tolerance(heard, output) * size).all())]
        if not fits:
            far = ", ".join(f"{x.max().item():.4g} from the {'sum' if scale == 1 else 'mean'}" for scale, x in off.items())
            raise ModelError(f"{self._no_sum} It is {_shape(output)}, and differs by up to {far}. {self._advice}")
        return None if len(fits) > 1 else fits[0]

    @property
    def _no_sum(self) -> str:
        return f"the model's output is not the sum or mean over its {self.timesteps} timesteps of readout {self.name!r}."

    @property
    def _advice(self) -> str:
        return (
            "Name the module whose outputs are added up: readout='...'; or view the model with a forward that returns their sum, mean or "
            "sequence (T, N, C), neither scaled nor normalised."
        )


def find_readout(view: ModelView, name: str | None = None) -> Readout:
    """Find the readout, by running the example of the view once; the model is left as it was found.

    Args:
        view: the model.
        name: of the module; by default the last neuron if it is called after the last synaptic layer, else that layer.

    Raises:
        ModelError: there is no such module, it does not give one output a timestep, or these do not make the model's.

    Example:
        >>> from spikeprune import model_view
        >>> find_readout(model_view(nn.Linear(4, 2), torch.ones(1, 4), spiking=False), "").layout
        <Layout.STEP: 'called T times with (N, ...)'>
    """
    check_view(view)
    names = [view.layers[-1].name, *list(view.neurons)[-1:]] if name is None else [_known(view, name)]
    heard, output = _listen(view, names)
    if not heard:
        raise ModelError(f"readout {names[0]!r} was not called when the example was run; name a module that is.")
    last = next(reversed(heard))
    module, layout = view.net.get_submodule(last), _layout(view, last, heard[last], output)
    found = Readout(last, module, layout, view.timesteps, None)
    return replace(found, scale=found.scale_of(torch.cat([found.by_timestep(x) for x in heard[last]]), output))


def _listen(view: ModelView, names: list[str]) -> tuple[dict[str, list[Tensor]], object]:
    """Run the example; give what the modules gave, the one that was called last being last, and the model's output."""
    heard: dict[str, list[Tensor]] = {}

    def note(called: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, _: object, output: object) -> None:
            heard[called] = [*heard.pop(called, []), _tensor(view, module, output, called).detach()]

        return hook

    with view.undisturbed(), torch.no_grad(), ExitStack() as hooks:
        for name in names:
            hooks.callback(view.net.get_submodule(name).register_forward_hook(note(name)).remove)
        return heard, view(parts((view.example,), view.device)[0])


def _known(view: ModelView, name: str) -> str:
    known = [each for each, _ in view.net.named_modules()]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        likely = ", ".join([*(layer.name for layer in view.layers), *view.neurons])
        raise ModelError(f"the model has no module {name!r} for a readout.{hint} Its layers and neurons are: {likely}.")
    return name


def _layout(view: ModelView, name: str, heard: list[Tensor], output: object) -> Layout:
    """Tell where time lies from the number of calls, from the neuron's step mode, or, of another module, from its shape."""
    steps, shape = view.timesteps, heard[0].shape
    layer = next((layer for layer in view.layers if layer.name == name), None)
    if layer is not None and layer.layout is not Layout.ONCE:
        return layer.layout
    if view.adapter is not None and name in view.neurons:
        return Layout.SEQUENCE if view.adapter.takes_sequence(view.neurons[name]) else Layout.STEP
    if layer is None and len(heard) == steps:
        return Layout.STEP
    if layer is None and len(heard) == 1 and len(shape) > 2 and shape[0] == steps:
        return Layout.SEQUENCE
    samples = _samples(output, steps)
    if layer is None and len(heard) == 1 and len(shape) > 1 and shape[0] in [steps * n for n in samples]:
        return Layout.FOLDED
    raise ModelError(
        f"readout {name!r} was called {len(heard)} times and gave {tuple(shape)}, which is not one output for each of the {steps} timesteps. "
        "Name the module whose outputs are added up over timesteps: readout='...'."
    )


def _samples(output: object, steps: int) -> list[int]:
    if not isinstance(output, Tensor) or output.dim() < 2:
        return []
    return [output.shape[0], *([output.shape[1]] if output.shape[0] == steps else [])]


def _tensor(view: ModelView, module: nn.Module, output: object, name: str) -> Tensor:
    if view.adapter is not None and view.adapter.is_neuron(module):
        output = view.adapter.spikes(module, output)
    if not isinstance(output, Tensor) or not output.dim():
        raise ModelError(f"readout {name!r} gave {_shape(output)}; it must give a tensor (N, C). Name another readout.")
    return output


def _shape(value: object) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _tolerance(heard: Tensor, output: Tensor) -> float:
    """Rounding of a sum over T, relative to the sum of magnitudes, in the coarser of the two number formats."""
    coarse = max(torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0 for x in (heard, output))
    return max(1e-5, 8 * coarse * math.sqrt(len(heard)))
