"""Train with what lives alone: layers of which most weights are dead run forward and backward by sparse native code.

The model is not touched. Its layers call torch's functions with their weights, and these calls are what is taken over: where the
weight is one that the masks hold, by native code over the living weights, and by torch as before wherever that does not apply.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikeprune.kernel.allocate import kept
from spikeprune.masks import Masks, refuse_other, weight_of
from spikeprune.runtime.sparse_cost import advantage
from spikeprune.runtime.sparse_layers import SparseWeight, obstacle, sparse_conv2d, sparse_linear
from spikeprune.view.layer import Layer
from spikeprune.view.model_view import ModelView, check_view

WORTH = 1.1  # times faster than dense code that sparse code must promise to be
Pair = tuple[int, int]


class SparseTraining:
    """What `sparse_training` yields: which layers run how, and why."""

    def __init__(self, view: ModelView, masks: Masks, chosen: Iterable[Layer], min_sparsity: float) -> None:
        names = {layer.name for layer in chosen}
        found = [_Entry(layer, masks, min_sparsity if layer.name in names else None) for layer in view.layers]
        self._entries = {entry.layer.name: entry for entry in found}
        self._by_weight = {id(entry.weight): entry for entry in found}

    def explain(self) -> str:
        """Tell of each layer how many of its calls ran by sparse code and how many by dense, and why those did.

        Example:
            >>> from spikeprune import Masks, model_view
            >>> net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
            >>> view = model_view(net, torch.rand(1, 32), spiking=False)
            >>> with sparse_training(view, Masks({"2": torch.eye(32, dtype=torch.bool)})) as training:
            ...     net(torch.rand(2, 32)).sum().backward()
            >>> print(training.explain())
            0: dense in 1 call, because it has no mask
            2: dense in 1 call, because dense wins here: sparse code promises x0.0
        """
        return "\n".join(f"{name or 'the model'}: {entry.told()}" for name, entry in self._entries.items())

    def calls(self, layer: str) -> tuple[int, int]:
        """Count the calls of a layer that ran by sparse code, and those that ran by dense."""
        entry = self._entries[layer]
        return entry.sparse, entry.dense.total()

    def _of(self, weight: Any) -> "_Entry | None":
        entry = self._by_weight.get(id(weight))
        return entry if entry is not None and entry.weight is weight else None


@contextmanager
def sparse_training(
    view: ModelView, masks: Masks, *, min_sparsity: float = 0.8, layers: str | Iterable[str] | None = None
) -> Iterator[SparseTraining]:
    """Run layers whose masks are sparse enough by native code that computes what lives alone, on the CPU in float32.

    Forward, gradient of the input and gradient of the weight then take time by living weights. Gradients equal the dense ones up to
    the order of sums, those of dead weights are zero, and dead weights are not read. So use it together with `hold`, in either order:
    this makes steps fast, and `hold` keeps the dead at zero whatever the optimizer remembers. If the masks are replaced meanwhile
    (`masks.replace_`), the new ones are followed from the next forward on.

    A call runs as before where the native code does not apply or would be slower; see `SparseTraining.explain`. So do calls in
    evaluation mode that record gradients of the weight: this is how `measure` sees the gradients of dead weights, by which RigL
    regrows. Calls are seen in the thread that entered, and nothing is written on the model.

    Args:
        view: the model.
        masks: which weights live.
        min_sparsity: the share of a layer's weights that must be dead, in [0, 1), to the nearest weight.
        layers: names or shell patterns of the layers that may run by sparse code; None is all.

    Yields:
        What tells which layers run how, and why.

    Raises:
        SparsityError: `min_sparsity` is out of range.
        MaskMismatch: the masks belong to another model.
        ModelError: a weight has been parametrized since the model was viewed.
        NoPrunableLayers: a name or pattern fits no layer.

    Example:
        >>> from spikeprune import hold, methods, model_view, prune
        >>> net = nn.Conv2d(64, 64, 3, padding=1)
        >>> view, optimizer = model_view(net, torch.rand(1, 64, 8, 8), spiking=False), torch.optim.SGD(net.parameters(), lr=0.1)
        >>> masks = prune(view, methods.Magnitude(), 0.9)
        >>> with hold(optimizer, view, masks), sparse_training(view, masks) as training:
        ...     net(torch.rand(32, 64, 8, 8)).sum().backward()
        ...     optimizer.step()
        >>> training.explain(), int((net.weight != 0).sum())
        ('the model: sparse in 1 call', 3686)
    """
    check_view(view)
    refuse_other(masks)
    masks.check(view.layers)
    kept(1, min_sparsity)
    training = SparseTraining(view, masks, view.select(layers), min_sparsity)
    with _TakeOver(training):
        yield training


class _Entry:
    """One layer: its living weights, for as long as its mask stays what it is, and how its calls ran."""

    def __init__(self, layer: Layer, masks: Masks, least: float | None) -> None:
        self.layer, self.weight = layer, layer.weight
        self.sparse, self.dense = 0, Counter[str]()
        self._masks, self._least = masks, least
        self._mask: Tensor | None = None
        self._living: SparseWeight | str = ""

    def told(self) -> str:
        """Say how the calls ran."""
        parts = [f"sparse in {_calls(self.sparse)}"] if self.sparse else []
        parts += [f"dense in {_calls(count)}, because {why}" for why, count in self.dense.items()]
        living = self.living()
        return "; ".join(parts) or (f"dense, because {living}" if isinstance(living, str) else "not run")

    def living(self) -> SparseWeight | str:
        """Give the living weights, or say why the layer runs dense whatever it is given."""
        mask = self._masks.held.get(weight_of(self.layer.name))
        if self._least is None:
            return "it was not named"
        if self.layer.name not in self._masks:
            return "it has no mask"
        if mask is None:
            return "the norms behind it silence its channels; shrink the network"
        if not isinstance(self.layer.module, nn.Linear | nn.Conv2d):
            return f"it is a {self.layer.kind}"
        if mask is not self._mask:
            self._mask, alive = mask, int(mask.sum())
            why = f"its mask removes {1 - alive / mask.numel():.1%}, less than {self._least:.1%}"
            self._living = SparseWeight(mask) if alive <= kept(mask.numel(), self._least) else why
        return self._living


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


class _TakeOver(TorchFunctionMode):
    """Sees the calls of linear layers and convolutions, and answers those that sparse code can."""

    def __init__(self, training: SparseTraining) -> None:
        super().__init__()
        self._training = training

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function, or sparse code in its place."""
        kwargs = kwargs or {}
        answer = _ANSWERS.get(func)
        entry = None
        if answer is not None:
            entry = self._training._of(kwargs["weight"] if "weight" in kwargs else args[1])
        if answer is None or entry is None:
            return func(*args, **kwargs)
        found = answer(entry, *args, **kwargs)
        if isinstance(found, str):
            entry.dense[found] += 1
            return func(*args, **kwargs)
        entry.sparse += 1
        return found


def _linear(entry: _Entry, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | str:
    """Give what F.linear does, or say why not."""
    x = input.reshape(-1, input.shape[-1]) if input.numel() and input.dim() else input
    living = _living(entry, x, weight, bias, (0, 0))
    if isinstance(living, str):
        return living
    packing = living.packed(x)
    why = _slow(advantage(packing, len(x)))
    return why or sparse_linear(x, weight, bias, packing).view(*input.shape[:-1], len(weight))


def _conv2d(entry: _Entry, *args: Any, **kwargs: Any) -> Tensor | str:
    """Give what F.conv2d does, or say why not."""
    x, weight, bias, stride, padding, dilation, groups = _of_conv2d(*args, **kwargs)
    if groups != 1 or _pair(dilation) != (1, 1):
        return "it has groups" if groups != 1 else "it is dilated"
    if (margin := _margin(padding, weight)) is None:
        return "its padding is not the same on both sides"
    living = _living(entry, x, weight, bias, margin)
    if isinstance(living, str):
        return living
    packing = living.packed(x, _pair(stride), margin)
    return _slow(advantage(packing, len(x))) or sparse_conv2d(x, weight, bias, packing)


_ANSWERS = {F.linear: _linear, F.conv2d: _conv2d}


def _living(entry: _Entry, x: Tensor, weight: Tensor, bias: Tensor | None, margin: Pair) -> SparseWeight | str:
    """Give the living weights for this call, or say why it cannot be theirs."""
    living = entry.living()
    if isinstance(living, str):
        return living
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    if torch.is_grad_enabled() and weight.requires_grad and not entry.layer.module.training:
        return "in evaluation mode gradients are those of all weights"
    return obstacle(x, weight, bias, margin) or living


def _slow(gain: float) -> str | None:
    return None if gain >= WORTH else f"dense wins here: sparse code promises x{gain:.1f}"


def _of_conv2d(
    input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Tensor, Tensor, Tensor | None, Any, Any, Any, int]:
    return input, weight, bias, stride, padding, dilation, groups


def _pair(value: Any) -> Pair:
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def _margin(padding: Any, weight: Tensor) -> Pair | None:
    """Give rows and columns of zeros on either side; None if the sides differ."""
    if not isinstance(padding, str):
        return _pair(padding)
    height, width = weight.shape[2:] if padding == "same" else (1, 1)  # "same" takes a stride of 1
    return (height // 2, width // 2) if height % 2 and width % 2 else None
