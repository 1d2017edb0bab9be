"""The user's model seen as synaptic layers, neurons, and a forward over all timesteps.

The view owns no weights and writes no attribute on the model. What it needs to know it learns from one dry forward of
an example: which layers are called, in which order, and where time and batch lie in what they are given.
"""

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import ModelError, NoPrunableLayers
from spikeprune.view.adapters import FRAMEWORKS, Adapter, loaded
from spikeprune.view.graph import ChannelGraph, Family
from spikeprune.view.layer import Layer, Norm
from spikeprune.view.survey import Survey, survey
from spikeprune.view.trace import trace

Forward = Callable[[nn.Module, Any], Any]


def _call(net: nn.Module, batch: Any) -> Any:
    return net(batch)


class ModelView:
    """A model as layers, neurons and a forward over T timesteps. Made by `model_view`.

    Calling the view resets the neurons, runs all timesteps and returns what the model returns.

    Attributes:
        net: the user's model.
        layers: its synaptic layers, in the order in which they are called.
        neurons: its spiking neurons by qualified name, in the order in which they are called.
        timesteps: T, as the neurons see it.
        uncounted: names of weight-like parameters (two or more axes) that belong to no layer.
        example: the batch that the model was viewed with, kept so that it can be viewed again.

    Example:
        >>> view = model_view(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(5, 4), spiking=False)
        >>> view.layers[0].kind, view.timesteps, view(torch.rand(2, 4)).shape
        ('Linear', 1, torch.Size([2, 3]))
    """

    def __init__(self, net: nn.Module, adapter: Adapter | None, forward: Forward, found: Survey, *, example: Any) -> None:
        self.net = net
        self.adapter = adapter
        self.forward = forward
        self.layers: tuple[Layer, ...] = found.layers
        self.neurons: dict[str, nn.Module] = found.neurons
        self.timesteps: int = found.timesteps
        self.uncounted: tuple[str, ...] = found.uncounted
        self.example = example

    def __call__(self, batch: Any) -> Any:
        """Reset the neurons, run all timesteps, and return what the model returns."""
        self.reset()
        return self.forward(self.net, batch)

    def reset(self) -> None:
        """Put every stateful module back to rest."""
        for module in self._stateful():
            assert self.adapter is not None
            self.adapter.reset(module)

    @property
    def device(self) -> torch.device:
        """Where the first layer's weight lies."""
        return self.layers[0].weight.device

    def select(self, names: str | Iterable[str] | None = None) -> tuple[Layer, ...]:
        """Pick layers by name or shell pattern ("fc1", "features.*"); None picks all.

        Raises:
            NoPrunableLayers: a name or pattern fits no layer.
        """
        if names is None:
            return self.layers
        patterns = [names] if isinstance(names, str) else list(names)
        known = [layer.name for layer in self.layers]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                near = difflib.get_close_matches(pattern, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise NoPrunableLayers(f"no synaptic layer fits {pattern!r}.{hint} The layers are: {', '.join(known)}.")
        return tuple(layer for layer in self.layers if any(fnmatchcase(layer.name, pattern) for pattern in patterns))

    @cached_property
    def graph(self) -> ChannelGraph:
        """The channel graph, from one dry forward of the example: which layers' channels go together, and who reads them."""
        with self.undisturbed():
            return trace(self.net, self.adapter, self.layers, self.forward, self.example)

    def channel_layers(self, names: str | Iterable[str] | None = None) -> tuple[Layer, ...]:
        """Pick layers whose output channels can be removed, each with its family and the norms behind it; None picks all.

        A shell pattern passes over layers that cannot lose channels.

        Raises:
            NoPrunableLayers: a layer that was named cannot lose channels, or only together with others that were not; or none can.
        """
        wanted = [names] if isinstance(names, str) else list(names or [])
        for name in wanted:
            family = self.graph.of(name) if name in [layer.name for layer in self.layers] else None
            if family is not None and family.why is not None:
                raise NoPrunableLayers(f"the output channels of layer {name!r} must stay, because {family.why}.")
        families = {layer.name: self.graph.of(layer.name) for layer in self.select(names)}
        free = {name: family for name, family in families.items() if family.why is None}
        for name, family in free.items():
            if missing := [other for other in family.layers if other not in free]:
                raise NoPrunableLayers(
                    f"the output channels of layer {name!r} can only be removed together with those of {', '.join(missing)}; name them too."
                )
        if not free:
            told = "; ".join(f"{family.name}: {family.why}" for family in dict.fromkeys(families.values()))
            raise NoPrunableLayers(f"no layer can lose output channels ({told or 'no layer was named'}). See view.explain().")
        return tuple(self._with_family(layer, free[layer.name]) for layer in self.layers if layer.name in free)

    def _with_family(self, layer: Layer, family: Family) -> Layer:
        norms = tuple(Norm(use.module, self.net.get_submodule(use.module), use.offset, use.repeat) for use in family.norms)
        return replace(layer, family=family.name, norms=norms, bare=layer.name in family.bare)

    def explain(self) -> str:
        """Tell which layers' output channels can be removed, together with which others, and why some cannot.

        Example:
            >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
            >>> print(model_view(net, torch.rand(5, 4), spiking=False).explain())
            0: 3 channels
                read by 2
            2: 2 channels that must stay
                because the network returns them
        """
        return self.graph.explain()

    def clone(self) -> "ModelView":
        """Copy the model and return a view of the copy, whose neurons are at rest; live state cannot be copied."""
        with left_as_found(self.net):
            self.reset()
            net = detached_copy(self.net)
        modules = dict(net.named_modules())
        layers = tuple(replace(layer, module=modules[layer.name]) for layer in self.layers)
        neurons = {name: modules[name] for name in self.neurons}
        found = Survey(layers, neurons, self.timesteps, self.uncounted)
        twin = ModelView(net, self.adapter, self.forward, found, example=self.example)
        if "graph" in vars(self):
            twin.graph = self.graph  # it knows names only
        return twin

    @contextmanager
    def undisturbed(self, *, seed: int = 0) -> Iterator[None]:
        """Lend the model for a pass: evaluation mode, neurons at rest, noise from `seed`; all left as found after.

        Training flags, neuron state, buffers and attributes, and the random state of the CPU and of the model's devices
        return; for the limits see `left_as_found`.
        """
        with left_as_found(self.net, seed=seed):
            self.net.eval()
            self.reset()
            yield

    def _stateful(self) -> list[nn.Module]:
        adapter = self.adapter
        return [] if adapter is None else [m for m in self.net.modules() if adapter.is_stateful(m)]


def model_view(net: nn.Module, example: Any, *, forward: Forward | None = None, spiking: bool = True) -> ModelView:
    """View a model: find its framework, its synaptic layers, its neurons and its timesteps.

    Args:
        net: a feed-forward model of Linear and Conv layers with snnTorch or SpikingJelly neurons.
        example: one batch, as the model's forward takes it: on the model's device, labels left out.
        forward: `forward(net, batch) -> output` for models whose call is unusual, such as a loop over timesteps
            outside of the model; by default `net(batch)`.
        spiking: False for an ordinary network without neurons; it is seen with T = 1.

    Raises:
        ModelError: no neuron of a supported framework, or the example cannot be run.
        NoPrunableLayers: no Linear or Conv layer was called.
        LayoutError: time and batch cannot be told apart in what a layer was given.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> view = model_view(net, torch.rand(5, 4), spiking=False)
        >>> [layer.name for layer in view.layers]
        ['0', '2']
    """
    if not isinstance(net, nn.Module):
        raise ModelError(f"model_view needs a torch.nn.Module, but was given {type(net).__name__}.")
    adapter = _adapter(net) if spiking else None
    forward = forward or _call
    stateful = [] if adapter is None else [m for m in net.modules() if adapter.is_stateful(m)]
    with left_as_found(net), torch.no_grad():
        net.eval()
        for module in stateful:
            assert adapter is not None
            adapter.reset(module)
        found = survey(net, adapter, lambda: forward(net, example))
    return ModelView(net, adapter, forward, found, example=example)


def check_view(view: object) -> None:
    """Refuse what is no view, such as the model itself.

    Raises:
        ModelError: it is no ModelView.
    """
    if not isinstance(view, ModelView):
        raise ModelError(f"a view is needed, but {type(view).__name__} was given; make one with model_view(net, example).")


def _adapter(net: nn.Module) -> Adapter:
    users = [(name, adapter) for name, adapter in loaded() if any(adapter.is_neuron(m) for m in net.modules())]
    if len(users) > 1:
        raise ModelError(f"the model mixes neurons of {' and '.join(name for name, _ in users)}; a view takes one framework.")
    if not users:
        raise ModelError(
            f"{type(net).__name__} holds no spiking neuron of a supported framework ({', '.join(FRAMEWORKS)}). "
            "For an ordinary network pass spiking=False."
        )
    return users[0][1]


@contextmanager
def left_as_found(net: nn.Module, *, seed: int = 0) -> Iterator[None]:
    """Return training flags, buffers, neuron state and attributes of all modules, and random states as they were.

    An attribute that the pass sets, even anew to another object, returns to the object that it was. What the model's
    forward changes in place *inside* such an object is not undone: a list that it appends to, a counter in a dict, a
    tensor that is neither buffer nor neuron state, anything outside of the model.
    """
    states = [(module, _snapshot(module)) for module in net.modules()]
    devices = sorted({p.device.index or 0 for p in net.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: it would seed every device of the process, and only these are put back.
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        try:
            yield
        finally:
            for module, state in states:
                _restore(module, state)


def _snapshot(module: nn.Module) -> dict[str, Any]:
    """Keep a module's own attributes; live tensors are swapped for copies, so that no pass can write on the originals."""
    state = {k: dict(v) if k in ("_buffers", "_memories") else v for k, v in vars(module).items()}
    for name in ("_buffers", "_memories"):
        live = vars(module).get(name, {})
        for key, value in live.items():
            if isinstance(value, Tensor):
                live[key] = value.detach().clone()
    return state


def bare_copy(module: nn.Module) -> nn.Module:
    """Copy one module as `detached_copy` does, without the hooks on it and its parts and all that hangs on them."""
    attributes = [item for part in module.modules() for item in vars(part).items()]
    hooks = {id(own): type(own)() for name, own in attributes if name.endswith("_hooks") and isinstance(own, dict)}
    return detached_copy(module, hooks)


def detached_copy(net: nn.Module, memo: Mapping[int, Any] = MappingProxyType({})) -> nn.Module:
    """Copy a model or a part of one; what it kept of a forward is copied without its graph, which cannot be copied.

    Args:
        net: what to copy.
        memo: copies to use for parts of it, by the id of the part.
    """
    live = [tensor for module in net.modules() for tensor in _tensors(vars(module)) if tensor.grad_fn is not None]
    return copy.deepcopy(net, {**memo, **{id(tensor): tensor.detach().clone() for tensor in live}})


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _restore(module: nn.Module, state: dict[str, Any]) -> None:
    own = vars(module)
    for name in ("_buffers", "_memories"):
        if name in own:
            own[name].clear()
            own[name].update(state[name])
    for key in [key for key in own if key not in state]:
        del own[key]
    own.update({k: v for k, v in state.items() if k not in ("_buffers", "_memories")})
