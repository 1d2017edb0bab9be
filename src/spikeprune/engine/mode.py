"""The mode that sees every function of a forward, and labels what it returns."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from spikeprune.engine.book import Book, Unknown
from spikeprune.engine.calls import DROPOUT, MOVES, SAME, WRITES, Call, moved, same, written
from spikeprune.engine.labels import Drawn, Label, Lost
from spikeprune.engine.modules import RULES, SYNAPSES, outside
from spikeprune.engine.plan import Input, Neuron, Synapse
from spikeprune.errors import PlanError

READING = frozenset(
    {"equal", "allclose", "is_nonzero", "bool", "int", "float", "index", "item", "tolist", "numpy", "array", "complex"}
)
RANDOM = frozenset(
    {
        "bernoulli",
        "rand",
        "rand_like",
        "randn",
        "randn_like",
        "randint",
        "randint_like",
        "randperm",
        "normal",
        "poisson",
        "uniform",
    }
    | {"multinomial", "exponential"}
)
CREATING = frozenset(
    {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"}
)


class Follow(TorchFunctionMode):
    """Labels the tensors that functions return: with addresses, or as drawn from the input by chance, or as lost."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self.book = book
        self.depth = 0  # inside how many neurons
        self.layers: dict[int, str] = {}
        self.drawn: list[Tensor] = []
        self.notes: dict[str, None] = {}
        self._labels: Any = WeakTensorKeyDictionary()

    def label(self, tensor: Tensor, label: Label) -> None:
        """Label a tensor for as long as it lives."""
        self._labels[tensor] = label, tensor._version

    def found(self, tensor: Tensor) -> Label | None:
        """Give a tensor's label; what was written on since, through another tensor of the same memory, is lost."""
        label, version = self._labels.get(tensor, (None, 0))
        if label is not None and version != tensor._version:
            return Lost("it was written on through another tensor of the same memory", behind=True)
        return label  # type: ignore[no-any-return]

    def address(self, tensor: Tensor, who: str) -> Tensor:
        """Give the addresses of what somebody needs.

        Raises:
            PlanError: it has none; the text says why.
        """
        label = self.found(tensor)
        if isinstance(label, Tensor):
            return label
        why = label.why if isinstance(label, Lost) else "it comes neither of the input nor of a layer"
        why = "it is drawn by chance, and no layer lies in between" if isinstance(label, Drawn) else why
        raise PlanError(f"{who} cannot be planned: {why}.")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, and label what it returns."""
        kwargs = kwargs or {}
        given = [] if self.depth else [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        labels = {id(leaf): label for leaf in given if (label := self.found(leaf)) is not None}  # before it is written on
        out = func(*args, **kwargs)
        if self.depth:
            return out
        name = str(getattr(func, "__name__", func))
        name = (name if name != "__get__" else str(func.__self__.__name__)).strip("_")
        if (labels or name in RANDOM) and name not in CREATING:
            known = {key: label for key, label in labels.items() if isinstance(label, Tensor)}
            call = Call(func, name, args, kwargs, out, self.book, lambda tensor: known.get(id(tensor)), self._name)
            self._follow(call, labels)
        return out

    def _name(self, weight: Tensor) -> str:
        return self.layers.get(id(weight), "a weight of no layer")

    def _follow(self, call: Call, labels: dict[int, Label]) -> None:
        if call.name in READING:
            self._read(call, labels)
        targets = [call.args[0]] if call.name in WRITES else [x for x in tree_leaves(call.out) if isinstance(x, Tensor)]
        if not targets:
            return
        inplace = bool(call.args) and targets[0] is call.args[0] and call.name not in SAME | MOVES
        found = self._passed(call, labels, inplace=inplace)
        each = found if isinstance(found, list) else [found] * len(targets)
        for tensor, label in zip(targets, each, strict=True):
            self.label(tensor, label)
        if inplace and isinstance(base := targets[0]._base, Tensor):
            self.label(base, Lost(f"{call.name} wrote on a part of it", behind=True))

    def _passed(self, call: Call, labels: dict[int, Label], *, inplace: bool) -> Label | list[Label]:
        lost = next((label for label in labels.values() if isinstance(label, Lost)), None)
        if lost is not None:
            return Lost(lost.why, self._any_behind(labels))
        random = call.name in RANDOM or (call.name in DROPOUT and not torch.equal(call.result, call.args[0]))
        if random or any(isinstance(label, Drawn) for label in labels.values()):
            if self._any_behind(labels):
                return Lost(f"{call.name} draws by chance behind a layer, or joins what was drawn", behind=True)
            if call.name not in SYNAPSES or not isinstance(labels.get(id(call.args[0])), Drawn):
                return Drawn()
            drawn = self._draw(call.args[0], call.option(1, "weight").dim() - 1)
            call = replace(call, of=lambda tensor: drawn if tensor is call.args[0] else None)
        try:
            return _ruled(call)
        except Unknown as reason:
            try:
                return outside(call, str(reason), inplace=inplace)
            except Unknown as why:
                return Lost(f"{call.name} {why}", self._any_behind(labels))

    def _draw(self, x: Tensor, inner: int) -> Tensor:
        """Take what was drawn for the plan's input: all timesteps at once, or, of T calls, the next."""
        book, shape = self.book, tuple(x.shape[x.dim() - inner :])
        steps = x.numel() // max(1, torch.Size(shape).numel() * book.samples)
        if steps not in (1, book.timesteps) or x.numel() != steps * book.samples * torch.Size(shape).numel():
            raise PlanError(f"what is drawn from the input, {tuple(x.shape)}, is neither one timestep nor all {book.timesteps}.")
        make = lambda: Input(inputs=(), shape=shape, over_time=True, time_axis=0, drawn=True)  # noqa: E731
        number = book.add(("drawn", len(self.drawn) // book.timesteps), make)
        first = len(self.drawn) % book.timesteps
        self.drawn.extend(x.detach().reshape(steps, book.samples, *shape))
        addresses = book.whole(number)[first : first + steps].reshape(x.shape)
        self.label(x, addresses)
        return addresses

    def _read(self, call: Call, labels: dict[int, Label]) -> None:
        """Values that the forward looks at may decide what it does: of the input, that is noted; behind layers, refused."""
        if self._any_behind(labels):
            raise PlanError(
                f"the forward looks at values behind a layer ({call.name}), so that what it does may depend on them; a plan does one thing. "
                "Take the question out of the forward."
            )
        self.notes["The forward looks at values of its input, to check them or otherwise; the plan does not."] = None

    def _any_behind(self, labels: dict[int, Label]) -> bool:
        return any(map(self._behind, labels.values()))

    def _behind(self, label: Label) -> bool:
        """Whether something comes of a layer or neuron, and not of the input alone."""
        if not isinstance(label, Tensor):
            return isinstance(label, Lost) and label.behind
        todo = self.book.numbers(label[label >= 0])
        while todo:
            op = self.book.operations[todo.pop()]
            if isinstance(op, Synapse | Neuron):
                return True
            todo.extend(op.inputs)
        return False


def _ruled(call: Call) -> Label | list[Label]:
    if call.name in WRITES:
        return written(call)
    if call.name in SAME:
        return same(call)
    if call.name in MOVES:
        found = moved(call)
        return found if isinstance(found, Tensor) else list(found)
    if call.name not in RULES:
        raise Unknown("is not known to plans")
    return RULES[call.name](call)
