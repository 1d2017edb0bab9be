"""Neurons as a forward is followed: hooks make operations of them, and keep what the check will compare."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spikeprune.engine.book import Book, Rows, Unknown
from spikeprune.engine.labels import Label, Lost
from spikeprune.engine.neurons import at_rest, dynamics, keeps_charge, membrane
from spikeprune.engine.plan import Neuron
from spikeprune.errors import PlanError
from spikeprune.view.model_view import ModelView


@dataclass
class Heard:
    """What each neuron layer did, by name: its inputs and spikes, a tensor (N, ...) a timestep, and its last membrane or charge."""

    currents: dict[str, list[Tensor]] = field(default_factory=dict)
    spikes: dict[str, list[Tensor]] = field(default_factory=dict)
    membranes: dict[str, Tensor] = field(default_factory=dict)
    charges: dict[str, Tensor] = field(default_factory=dict)


class Mode(Protocol):
    """What hooks need of the mode that follows functions."""

    book: Book
    depth: int

    def label(self, tensor: Tensor, label: Label) -> None:
        """Label a tensor."""
        ...

    def address(self, tensor: Tensor, who: str) -> Tensor:
        """Give a tensor's addresses."""
        ...


class Neurons:
    """Hooks on the neurons of a network that is followed."""

    def __init__(self, view: ModelView, net: nn.Module, mode: Mode, heard: Heard) -> None:
        self._view, self._net, self._mode, self._heard = view, net, mode, heard
        self._fields: dict[str, Any] = {}
        self._fed: dict[str, int] = {}

    def listen(self, stack: ExitStack) -> None:
        """Hook every neuron, until the stack is closed; put all that has state to rest."""
        adapter = self._view.adapter
        for module in self._net.modules():
            if adapter is not None and adapter.is_stateful(module):
                adapter.reset(module)
        for name in self._view.neurons:
            module = self._net.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(self._enter(name)).remove)
            stack.callback(module.register_forward_hook(self._leave(name), with_kwargs=True).remove)

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            mode, adapter = self._mode, self._view.adapter
            assert adapter is not None
            if not mode.depth and name not in self._fields:
                lead = 2 if adapter.takes_sequence(module) else 1
                self._fields[name] = dynamics(name, module, adapter, tuple(args[0].shape[lead:]))
            mode.depth += 1

        return hook

    def _leave(self, name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            self._mode.depth -= 1
            if not self._mode.depth:
                self._note(name, module, (*args, *kwargs.values()), out)

        return hook

    def _note(self, name: str, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        adapter, heard, book = self._view.adapter, self._heard, self._mode.book
        assert adapter is not None
        sequence, first = adapter.takes_sequence(module), len(heard.spikes.get(name, []))
        self._refuse_handed(name, given[1:], first)
        rows = self._rows(name, given[0], first, sequence=sequence)
        if self._fed.setdefault(name, rows.number) != rows.number:
            raise PlanError(
                f"neuron {name!r} cannot be planned: at timestep {first} its input is made by other operations than before."
            )
        spikes = adapter.spikes(module, out)
        lead = tuple(spikes.shape[: 2 if sequence else 1])
        number = self._numbered(name, rows.number, charge=False)
        t = torch.arange(first, first + (lead[0] if sequence else 1)).repeat_interleave(book.samples)
        here = Rows(number, t, rows.n)
        self._mode.label(spikes, book.spread(number, here, lead))
        for other in out[1:] if isinstance(out, tuple | list) else ():
            charge = self._numbered(name, rows.number, charge=True)
            lost = Lost(f"neuron {name!r} returns its membrane after reset, which a plan does not give", behind=True)
            self._mode.label(other, book.spread(charge, here, lead) if keeps_charge(module) else lost)
        heard.currents.setdefault(name, []).extend(given[0] if sequence else [given[0].clone()])
        heard.spikes.setdefault(name, []).extend(spikes if sequence else [spikes.clone()])
        if (kept := membrane(module)) is not None:
            (heard.charges if keeps_charge(module) else heard.membranes)[name] = kept.clone()

    def _numbered(self, name: str, number: int, *, charge: bool) -> int:
        book, fields = self._mode.book, self._fields[name]
        return book.add(
            ("neuron", name, number, charge),
            lambda: Neuron(
                inputs=(number,),
                shape=book.operations[number].shape,
                over_time=True,
                name=name,
                gives="charge" if charge else "spikes",
                **fields,
            ),
        )

    def _rows(self, name: str, x: Tensor, first: int, *, sequence: bool) -> Rows:
        """Read what a neuron is given: whole samples of one value, in order, at the timesteps that it is called for."""
        book, who = self._mode.book, f"the input of neuron {name!r}"
        try:
            rows = book.rows(self._mode.address(x, who), 2 if sequence else 1)
        except Unknown as why:
            raise PlanError(f"{who} cannot be planned: the neuron {why}.") from why
        steps = x.shape[0] if sequence else 1
        t = torch.arange(first, first + steps).repeat_interleave(book.samples)
        right_time = bool((rows.t == -1).all()) or torch.equal(rows.t, t)
        if not right_time or not torch.equal(rows.n, torch.arange(book.samples).repeat(steps)):
            raise PlanError(
                f"{who} cannot be planned: in its calls from timestep {first} it is not given those timesteps of all {book.samples} samples, "
                "in order."
            )
        return rows

    def _refuse_handed(self, name: str, state: tuple[Any, ...], first: int) -> None:
        """A membrane that is handed to a neuron must be rest, and then what the neuron itself returned."""
        if not state or state[0] is None or (not first and at_rest(state[0])):
            return
        if not first or len(state) > 1 or not isinstance(state[0], Tensor):
            raise PlanError(f"neuron {name!r} cannot be planned: it starts from a membrane that is not at rest.")
        addresses = self._mode.address(state[0], f"the membrane that is handed to neuron {name!r}")
        book = self._mode.book
        mine = [i for i, op in enumerate(book.operations) if isinstance(op, Neuron) and op.name == name and op.gives == "charge"]
        if not any(torch.equal(addresses, book.whole(i)[first - 1]) for i in mine):
            raise PlanError(
                f"neuron {name!r} cannot be planned: the membrane that it is handed is not what it returned a timestep before."
            )
