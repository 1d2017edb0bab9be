"""A function's call as its rule sees it, and the rules of those functions that only move entries."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from spikeprune.engine.book import NOWHERE, Book, Unknown

Rule = Callable[["Call"], Tensor]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a tensor function.

    Attributes:
        func: the function.
        name: its name, without what says that it writes in place.
        args: its positional arguments.
        kwargs: its keyword arguments.
        out: what it returned.
        book: of the values so far.
        of: gives the addresses of a tensor, None of one that comes of no value.
        layer: names the layer whose weight this is.
    """

    func: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    book: Book
    of: Callable[[Tensor], Tensor | None]
    layer: Callable[[Tensor], str]

    def option(self, place: int, *names: str, default: Any = None) -> Any:
        """Give an argument by its place, or by any of its names."""
        found = [self.kwargs[name] for name in names if name in self.kwargs]
        if found:
            return found[0]
        return self.args[place] if len(self.args) > place else default

    @property
    def known(self) -> list[tuple[Tensor, Tensor]]:
        """Its tensor arguments that have addresses, with them."""
        found = [(leaf, self.of(leaf)) for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]
        return [(leaf, addresses) for leaf, addresses in found if addresses is not None]

    @property
    def first(self) -> Tensor:
        """The addresses of its first argument, which alone has any."""
        known = self.known
        if len(known) != 1 or not (self.args and self.args[0] is known[0][0]):
            raise Unknown("joins several values")
        return known[0][1]

    @property
    def result(self) -> Tensor:
        """What it returned, if that is one tensor."""
        if not isinstance(self.out, Tensor):
            raise Unknown("returns no single tensor")
        return self.out


def key(value: Any) -> Any:
    """Tell constants apart by what they hold: a tensor by its shape and bytes, all else by itself.

    The bytes of a tensor that was not written on since are not read again: a loop over timesteps calls with the same weights T times.

    Example:
        >>> key(torch.ones(2)) == key(torch.ones(2)), key(torch.ones(2)) == key(torch.zeros(2))
        (True, False)
    """
    if not isinstance(value, Tensor):
        return tuple(key(part) for part in value) if isinstance(value, list | tuple) else value
    if value.is_inference():  # such tensors do not tell whether they were written on
        return _digest(value)
    version, found = _digests.get(value, (None, None))
    if version != value._version:
        found = _digest(value)
        _digests[value] = value._version, found
    return found


_digests: MutableMapping[Tensor, tuple[int, Any]] = WeakTensorKeyDictionary()


def _digest(value: Tensor) -> tuple[str, tuple[int, ...], str]:
    plain = value.detach().cpu().contiguous()
    return str(plain.dtype), tuple(plain.shape), sha256(plain.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def moved(call: Call) -> Any:
    """Run a function that only moves entries on addresses; entries of other tensors are of no value.

    A tensor that is an index stays one.
    """
    indexed = call.name in INDEXED

    def swapped(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        addresses = call.of(leaf)
        if addresses is None and indexed and leaf.dtype in (torch.long, torch.int, torch.bool):
            return leaf.cpu()
        return torch.full(leaf.shape, NOWHERE) if addresses is None else addresses

    args = (swapped(call.args[0]) if call.args else None, *(tree_map(swapped, arg) for arg in call.args[1:]))
    if call.args and not isinstance(call.args[0], Tensor):
        args = tree_map(swapped, call.args)
    return call.func(*args, **tree_map(swapped, call.kwargs))


def written(call: Call) -> Tensor:
    """Write addresses where x[...] = y or x.copy_(y) wrote values."""
    target, source = call.args[0], call.args[-1]
    before = call.of(target)
    after = torch.full(target.shape, NOWHERE) if before is None else before.clone()
    found = call.of(source) if isinstance(source, Tensor) else None
    value = torch.tensor(NOWHERE) if found is None else found
    if call.name == "copy":
        return value.expand(after.shape).clone()
    index = tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, Tensor) else leaf, call.args[1])
    after[index] = value
    return after


def same(call: Call) -> Tensor:
    """Keep addresses through what changes no value: casts, copies, dropout in evaluation mode."""
    if call.name in DROPOUT and not torch.equal(call.result, call.args[0]):
        raise Unknown("drops entries; a plan is of a network in evaluation mode")
    return call.first


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


INDEXED = _names("getitem gather index_select take_along_dim repeat_interleave")
DROPOUT = _names("dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout")
SAME = DROPOUT | _names("clone detach contiguous to type type_as float double cpu cuda data requires_grad positive")
MOVES = INDEXED | _names(
    "flatten ravel reshape view unflatten squeeze unsqueeze view_as reshape_as expand expand_as repeat tile broadcast_to permute "
    "transpose swapaxes swapdims movedim moveaxis t T mT unbind split chunk tensor_split select narrow stack cat concat concatenate "
    "hstack vstack flip roll"
)
WRITES = _names("setitem copy")
