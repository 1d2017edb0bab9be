"""Probe of the credit that the loss gives each weight by way of spikes, after the eligibility traces of e-prop.

::

    trace     a_j[t] = leak a_j[t-1] + s_j[t]     s: what the layer is given; leak: of the neuron that it drives
    slope     psi_i[t] = ds_i[t] / dh_i[t]        of the surrogate at the charge h, without the gain of the neuron's input
    signal    delta_i[t] = dL/ds_i[t]             by all that hears the neuron, at all timesteps, but not by its own membrane
    credit    E_ij = | sum of delta_i[t] psi_i[t] a_j[t] over timesteps, samples and places |

What lies between a layer and its neuron (a norm in evaluation mode, a pool, an addition) is passed backward. A layer that drives no
neuron has neither trace nor slope: delta is dL/d(output), and its credit is |dL/dw|.

The credit is the gradient of a membrane that leaks and is never reset. If resets subtract and are detached it is |dL/dw| itself, but for
the gain of the input. If they put to zero, the gradient forgets what came before a spike, and the credit does not.

Sources: Bellec et al. A solution to the learning dilemma for recurrent networks of spiking neurons. Nature Communications 11, 3625, 2020
(e-prop). Ye et al. Sparse by Rule: Probability-Based N:M Pruning for Spiking Neural Networks. arXiv:2511.12097 (SpikeNM).

Reading of the papers
  stated    e-prop: a learning signal times an eligibility trace, which for leaky neurons is the slope times the leaky trace of the inputs.
            SpikeNM: credits inspired by eligibility, accumulated over time.
  inferred  all of SpikeNM's formula: the signal, the signed sum over timesteps and samples, its size, the mean over batches.
  differs   e-prop learns online, so that its signal knows of no later timestep; this one is autograd's, and does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from spikeprune.errors import MeasureError
from spikeprune.measure.clock import Clock
from spikeprune.measure.probe import naming
from spikeprune.view.adapters import Adapter, Apart
from spikeprune.view.layer import Layer, Layout, apply_synapses, refuse_nonfinite
from spikeprune.view.model_view import ModelView, bare_copy

# Places in the graph are kept as edges: a tensor that is written on later stands for another place, and a view leaves its own.
Felt = Mapping[GradientEdge, Tensor | None]


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a neuron: where its input and its spikes lie, and the same timesteps apart."""

    x: GradientEdge
    spikes: GradientEdge
    apart: Apart


@dataclass(frozen=True, eq=False)
class _Root:
    """Delta psi at the input of a neuron."""

    x: GradientEdge
    signal: Tensor


class Eligibility:
    """The credit of every weight that takes gradients, a mean over batches that each weigh as many samples as they have."""

    def __init__(self, view: ModelView, clock: Clock) -> None:
        self._view, self._clock = view, clock
        self._layers = [layer for layer in view.layers if layer.weight.requires_grad]
        self._leaks = {layer.name: _leak(view, layer) for layer in self._layers}
        self._given: dict[str, list[Tensor]] = {}
        self._outputs: dict[str, list[GradientEdge | None]] = {}
        self._calls: dict[str, list[_Call | None]] = {}
        self._begun: dict[str, tuple[GradientEdge, Apart]] = {}
        self._sums: dict[str, Tensor] = {}

    def hooks(self) -> Iterator[RemovableHandle]:
        """Listen at every layer whose weight takes gradients, and at the neurons that these drive."""
        for layer in self._layers:
            yield layer.module.register_forward_hook(self._at_layer(layer), prepend=True)
        for name in dict.fromkeys(layer.neuron for layer in self._layers if layer.neuron is not None):
            neuron = self._view.neurons[name]
            yield neuron.register_forward_pre_hook(self._before_neuron(name), with_kwargs=True)
            yield neuron.register_forward_hook(self._behind_neuron(name), prepend=True)

    def begin(self) -> None:
        """Forget the calls of a batch, and with them its graph."""
        for kept in (self._given, self._outputs, self._calls, self._begun):
            kept.clear()

    def backward(self, loss: Tensor, others: Sequence[Tensor] = ()) -> tuple[Tensor | None, ...]:
        """Take in a batch's loss. Returns its gradients of other tensors, found on the same way through the graph.

        Raises:
            MeasureError: no layer gets credit.
            NonFinite: a credit is NaN or infinite.
        """
        ends: list[Any] = [call.spikes for calls in self._calls.values() for call in calls if call is not None]
        ends += [edge for layer in self._layers if layer.neuron is None for edge in self._of(layer) if edge is not None]
        grads = torch.autograd.grad(loss, [*ends, *others], retain_graph=True, allow_unused=True) if ends else ()
        felt: Felt = dict(zip(ends, grads, strict=False))
        roots = {name: self._roots(name, felt) for name in self._calls}
        found = {layer.name: self._credit(layer, self._pulled(layer, felt, roots)) for layer in self._layers}
        if all(credit is None for credit in found.values()):
            raise MeasureError(
                f"the loss of calibration batch {self._clock.batch} gives no layer credit: it feels neither spikes that a layer drives nor "
                "the output of one without neuron. Is the output detached, or a membrane?"
            )
        for name, credit in found.items():
            if credit is not None:  # what this loss does not feel counts as zero if other batches reach it
                self._add(name, credit)
        self.begin()
        return grads[len(ends) :]

    def means(self) -> Mapping[str, Tensor]:
        """Give what has the weight's shape, by layer."""
        return {name: total / self._clock.samples for name, total in self._sums.items()}

    def _at_layer(self, layer: Layer) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            own = output.clone() if output._is_view() else output
            self._outputs.setdefault(layer.name, []).append(get_gradient_edge(own) if own.requires_grad else None)
            if layer.layout is Layout.STEP:
                self._given.setdefault(layer.name, []).append(args[0].detach())
            return own

        return hook

    def _before_neuron(self, name: str) -> Any:
        adapter = _adapter(self._view)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not args[0].requires_grad:
                return
            with torch.enable_grad(), naming(name):
                apart = adapter.surrogate(bare_copy(module), *args, **kwargs)
                if not all(spikes.requires_grad for spikes in apart.spikes):
                    raise MeasureError(
                        "its surrogate has no slope, and no credit can pass it; give it one that can be differentiated."
                    )
            self._begun[name] = (get_gradient_edge(args[0]), apart)

        return hook

    def _behind_neuron(self, name: str) -> Any:
        adapter = _adapter(self._view)

        def hook(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
            spikes, begun = adapter.spikes(module, output), self._begun.pop(name, None)
            calls = self._calls.setdefault(name, [])
            if begun is None or not spikes.requires_grad:
                calls.append(None)
                return None
            # A sequence was put together for the output; a single step's spikes may reset the neuron too, and pass gradients there.
            own = spikes if adapter.takes_sequence(module) and not spikes._is_view() else spikes.clone()
            calls.append(_Call(begun[0], get_gradient_edge(own), begun[1]))
            return own if output is spikes else type(output)([own, *output[1:]])

        return hook

    def _of(self, layer: Layer) -> list[GradientEdge | None]:
        """Give the outputs of a layer, call by call."""
        return self._outputs.get(layer.name, [])

    def _roots(self, name: str, felt: Felt) -> list[_Root | None]:
        """Give delta psi of each call of a neuron; None where the loss feels no spike of it."""
        found: list[_Root | None] = []
        for call in self._calls[name]:
            delta = None if call is None else felt[call.spikes]
            found.append(None if call is None or delta is None else _Root(call.x, _sloped(call.apart, delta)))
        return found

    def _pulled(self, layer: Layer, felt: Felt, roots: Mapping[str, list[_Root | None]]) -> list[Tensor | None]:
        """Give what is felt at each call's output of a layer: by way of its neuron's spikes, or all if it drives none."""
        outputs = self._of(layer)
        if layer.neuron is None:
            return [None if edge is None else felt[edge] for edge in outputs]
        above = roots[layer.neuron]
        if layer.layout is Layout.ONCE:
            above = _weighed(above, _ages(self._leaks[layer.name], self._view.timesteps))
        if len(above) != len(outputs):
            return _pull(above, outputs)
        # Call by call: where spikes come back to the layer, a later input of its neuron holds earlier outputs.
        return [_pull([root], [edge])[0] for root, edge in zip(above, outputs, strict=True)]

    def _credit(self, layer: Layer, pulled: Sequence[Tensor | None]) -> Tensor | None:
        """Give a layer's credit in one batch from what is felt at its outputs; None if nothing is."""
        known = next((grad for grad in pulled if grad is not None), None)
        if known is None:
            return None
        steps = [layer.by_timestep(torch.zeros_like(known) if grad is None else grad, self._view.timesteps) for grad in pulled]
        return self._of_weight(layer, _decayed(steps, self._leaks[layer.name])).abs()

    def _of_weight(self, layer: Layer, grads: Tensor) -> Tensor:
        """Give the gradient of a layer's weight from that of its outputs, (T, N, ...), and from no other way to them."""
        if layer.layout is not Layout.STEP:
            edges = [edge for edge in self._of(layer) if edge is not None]
            whole = grads if layer.layout is Layout.SEQUENCE else grads.flatten(0, 1)
            return torch.autograd.grad(edges, [layer.weight], whole, retain_graph=True)[0]
        # Not by the graph: what it is given may hold what it gave at earlier calls.
        weight = layer.weight.detach().requires_grad_()
        inputs = torch.stack(self._given[layer.name]).to(weight.dtype)
        with torch.enable_grad():
            out = apply_synapses(layer.module, inputs, weight)
        return torch.autograd.grad(out, weight, grads.to(weight.dtype))[0]

    def _add(self, name: str, credit: Tensor) -> None:
        refuse_nonfinite(credit, "credits", name, f"Check calibration batch {self._clock.batch} and the loss.")
        share = self._clock.batch_samples * credit.double()
        self._sums[name] = self._sums[name] + share if name in self._sums else share


def _sloped(apart: Apart, delta: Tensor) -> Tensor:
    """Give delta times the surrogate's slope."""
    steps = torch.split(delta, 1) if len(apart.spikes) > 1 else [delta]
    triples = zip(apart.spikes, apart.inputs, steps, strict=True)
    return _joined([torch.autograd.grad(spikes, x, step)[0] / apart.gain for spikes, x, step in triples])


def _pull(roots: Sequence[_Root | None], outputs: Sequence[GradientEdge | None]) -> list[Tensor | None]:
    """Take what is felt at roots back to outputs, through what lies between; None where there is no way."""
    felt, known = [root for root in roots if root is not None], [edge for edge in outputs if edge is not None]
    if not felt or not known:
        return [None] * len(outputs)
    places, signals = [root.x for root in felt], [root.signal for root in felt]
    grads = iter(torch.autograd.grad(places, known, signals, retain_graph=True, allow_unused=True))
    return [None if edge is None else next(grads) for edge in outputs]


def _ages(leak: float, timesteps: int) -> list[float]:
    """Give the trace of a constant 1: what a layer that is called once is given all the time."""
    return list(accumulate([1.0] * timesteps, lambda trace, one: leak * trace + one))


def _weighed(roots: Sequence[_Root | None], shares: Sequence[float]) -> list[_Root | None]:
    """Weigh each timestep, whether there is a root for each or one for all."""
    found: list[_Root | None] = []
    for i, root in enumerate(roots):
        if root is not None:
            x = root.signal
            share = shares[i] if len(roots) == len(shares) else x.new_tensor(shares).view(-1, *[1] * (x.dim() - 1))
            root = _Root(root.x, x * share)
        found.append(root)
    return found


def _decayed(steps: list[Tensor], leak: float) -> Tensor:
    """Give b[t] = leak b[t+1] + grad[t]: the sum of grad[t] a[t] is that of s[t] b[t], so that no trace has to be kept."""
    grads = _joined(steps)
    if not leak or len(grads) == 1:
        return grads
    found = grads.clone()
    for t in reversed(range(len(grads) - 1)):
        found[t].add_(found[t + 1], alpha=leak)
    return found


def _joined(steps: list[Tensor]) -> Tensor:
    return torch.cat(steps) if len(steps) > 1 else steps[0]


def _adapter(view: ModelView) -> Adapter:
    assert view.adapter is not None
    return view.adapter


def _leak(view: ModelView, layer: Layer) -> float:
    if layer.neuron is None:
        return 0.0
    with naming(layer.neuron):
        return _adapter(view).leak(view.neurons[layer.neuron])
