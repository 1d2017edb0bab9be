"""From a view to a plan: one dry forward of the example in float64, followed function by function, then checked.

Neurons speak for themselves, by hooks. All else that the forward does is seen as calls of tensor functions, inside of modules or not:
a rule makes an operation of it (`modules`), or it only moves entries (`book`), or it is kept as it is where it treats every sample by
itself, or its result is lost. What is lost is an error only if a neuron or an output needs it: networks may count and log.
"""

from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from spikeprune.engine.arithmetic import one_step, readout
from spikeprune.engine.book import Book, Unknown, simplest
from spikeprune.engine.fold import fold_scales
from spikeprune.engine.listen import Heard, Neurons
from spikeprune.engine.mode import Follow
from spikeprune.engine.plan import Input, Plan
from spikeprune.engine.verify import verify
from spikeprune.errors import PlanError, SpikepruneError
from spikeprune.view.model_view import ModelView, check_view, detached_copy, left_as_found


def make_plan(view: ModelView) -> Plan:
    """Make the plan of a network in evaluation mode, and check it on the view's example before it is handed out.

    The check runs plan and network in float64: the input, spikes and last membrane of every neuron layer and all outputs must agree.

    Args:
        view: of a feed-forward network whose example is one tensor: (N, ...), (T, N, ...) or (N, T, ...).

    Raises:
        PlanError: the network does something that a plan has no word for, or the plan is not the network.

    Example:
        >>> from spikeprune import model_view
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
        >>> print(make_plan(model_view(net, torch.rand(2, 4), spiking=False)).explain())
        0 Input (4)
        1 Synapse 0 of 0 (3)
        2 ReLU of 1 (3)
        returns 2
    """
    check_view(view)
    x = _example(view.example)
    with left_as_found(view.net):
        view.reset()
        net = detached_copy(view.net).double()
    best: tuple[int, PlanError] | None = None
    for axis, samples in _readings(tuple(x.shape), view.timesteps):
        attempt = _Attempt(view, net, axis, samples)
        try:
            plan = attempt.plan()
            attempt.refuse_dependent()
            return plan
        except PlanError as error:
            reached = len(attempt.mode.book.operations)
            best = (reached, error) if best is None or reached > best[0] else best
    if best is None:
        raise PlanError(
            f"the example {tuple(x.shape)} holds no batch of T = {view.timesteps} timesteps, nor one of single images."
        )
    raise best[1]


def _example(example: Any) -> Tensor:
    x = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
    if len(x) != 1 or not x[0].is_floating_point():
        raise PlanError(
            f"a plan takes one tensor of real numbers, but the example of the view holds {len(x)} tensors"
            f"{' of ' + str(x[0].dtype) if len(x) == 1 else ''}. View the model with such an example, and forward=fn(net, batch)."
        )
    return x[0]


def _readings(shape: tuple[int, ...], steps: int) -> list[tuple[Literal[0, 1] | None, int]]:
    """List what the axes of an input may be: where time lies, and how many samples there are then. A wrong one makes no plan."""
    found: list[tuple[Literal[0, 1] | None, int]] = []
    if len(shape) > 1 and shape[0] == steps:
        found.append((0, shape[1]))
    if shape:
        found.append((None, shape[0]))
    if len(shape) > 1 and shape[1] == steps > 1:
        found.append((1, shape[0]))
    return found


class _Attempt:
    """One reading of the example, followed through a float64 copy of the network.

    Attributes:
        mode: what follows the functions.
        other: whether the example is another: half of it, and its first sample once more.

    Args:
        view: of the network.
        net: the copy.
        axis: where time lies.
        samples: N.
        first: of the example itself, if this one is of the other.
    """

    def __init__(
        self, view: ModelView, net: nn.Module, axis: Literal[0, 1] | None, samples: int, first: "_Attempt | None" = None
    ) -> None:
        self.view, self.net, self.axis, self.other = view, net, axis, first is not None
        book = Book(view.timesteps, samples) if first is None else Book(view.timesteps, samples + 1, first.mode.book.synapses)
        self.mode: Follow = Follow(book)

    def plan(self) -> Plan:
        view, mode, net = self.view, self.mode, self.net
        mode.layers = {id(net.get_submodule(layer.name).weight): layer.name for layer in view.layers}
        x = tree_map(lambda leaf: self._example(leaf) if isinstance(leaf, Tensor) else leaf, view.example)
        given = next(leaf for leaf in tree_leaves(x) if isinstance(leaf, Tensor))
        mode.label(given, self._input(given))
        heard = Heard()
        answer = self._run(x, Neurons(view, net, mode, heard))
        outputs = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
        if not outputs or len(outputs) != len(tree_leaves(answer)):
            raise PlanError(f"a plan gives tensors, but the network returned {type(answer).__name__} of other things.")
        numbers = [_output(mode, i, leaf) for i, leaf in enumerate(outputs)]
        operations, ends = fold_scales(*simplest(mode.book.operations, numbers))
        plan = Plan(operations, ends, view.timesteps, _notes(mode, operations))
        drawn = torch.stack(mode.drawn).reshape(view.timesteps, mode.book.samples, *operations[0].shape) if mode.drawn else given
        verify(plan, drawn if plan.input.drawn else given, heard, outputs)
        return plan

    def refuse_dependent(self) -> None:
        """The forward must do the same, with the same constants, to another example: no value and no batch size is part of the plan.

        That plan is checked as well.
        """
        twin = _Attempt(self.view, self.net, self.axis, self.mode.book.samples, self)
        try:
            twin.plan()
        except SpikepruneError as error:  # the network's own too, if time was taken for samples
            raise PlanError(f"with half of the example's values and one sample more: {error}") from error
        if twin.mode.book.keys != self.mode.book.keys:
            raise PlanError(
                "the forward does something else, or takes other constants, if the values of the example are halved and its first sample comes "
                "twice: what it does depends on values of its input or on the batch size, and a plan does one thing. Scale and check batches "
                "before the network is given them."
            )

    def _example(self, x: Tensor) -> Tensor:
        samples = 1 if self.axis == 0 else 0
        return torch.cat([x, x.narrow(samples, 0, 1)], samples).double() / 2 if self.other else x.double()

    def _input(self, x: Tensor) -> Tensor:
        book, axis = self.mode.book, self.axis
        shape = tuple(x.shape[1 if axis is None else 2 :])
        number = book.add("input", lambda: Input(inputs=(), shape=shape, over_time=axis is not None, time_axis=axis))
        return book.whole(number).transpose(0, 1) if axis == 1 else book.whole(number)

    def _run(self, x: Any, neurons: Neurons) -> Any:
        """Run the copy from rest. snnTorch's spikes are float32 whatever it is given, so layers' inputs are made float64."""
        before, net = torch.get_default_dtype(), self.net
        with left_as_found(net), torch.no_grad(), ExitStack() as stack:
            net.eval()
            neurons.listen(stack)
            for module in net.modules():
                if next(module.parameters(recurse=False), None) is not None:
                    stack.callback(module.register_forward_pre_hook(_widen).remove)
            torch.set_default_dtype(torch.double)
            try:
                with self.mode:
                    return self.view.forward(net, x)
            except SpikepruneError:
                raise
            except Exception as error:
                raise PlanError(f"the model cannot run its example in float64 ({type(error).__name__}: {error}).") from error
            finally:
                torch.set_default_dtype(before)


def _widen(_: nn.Module, args: Any) -> Any:
    return tree_map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, args)


def _output(mode: "Follow", place: int, tensor: Tensor) -> int:
    """Number what the network returns: a value over time (T, N, ...), or one that is the same at all of them (N, ...)."""
    book, what = mode.book, f"output {place} of the network"
    addresses = mode.address(tensor, what)
    steps, samples = torch.arange(book.timesteps), torch.arange(book.samples)
    for lead in (2, 1):
        try:
            rows = book.rows(addresses, lead)
        except Unknown:
            continue
        over_time = book.operations[rows.number].over_time
        if (
            lead == 2
            and torch.equal(rows.n, samples.repeat(len(steps)))
            and torch.equal(rows.t, steps.repeat_interleave(len(samples)))
        ):
            return rows.number
        if lead == 1 and torch.equal(rows.n, samples) and bool((rows.t == rows.t[0]).all()):
            return readout(book, rows.number, one_step(book, int(rows.t[0]))) if over_time else rows.number
    raise PlanError(
        f"{what}, {tuple(tensor.shape)}, is neither one value a timestep, (T, N, ...), nor one for all, (N, ...), with T = {book.timesteps} "
        f"and N = {book.samples}. View the model with a forward that returns such an output."
    )


def _notes(mode: "Follow", operations: Any) -> tuple[str, ...]:
    inputs = [op for op in operations if isinstance(op, Input)]
    if len(inputs) > 1:
        raise PlanError("layers read both the batch and what is drawn from it by chance, or two draws; a plan takes one input.")
    notes = list(mode.notes)
    if inputs and inputs[0].drawn:
        notes.append("The network draws its input from the batch by chance; the plan takes what was drawn, (T, N, ...).")
    return tuple(notes)
