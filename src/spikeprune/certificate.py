"""The certificate of a smaller network: the same spikes, bit by bit, as the network in which the cut channels are silent."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from spikeprune.errors import ShrinkError, SpikepruneError
from spikeprune.masks import Masks
from spikeprune.measure import parts
from spikeprune.view.graph import Use
from spikeprune.view.model_view import ModelView, detached_copy, left_as_found

GAP = 1e-5


@dataclass(frozen=True)
class Certificate:
    """How a smaller network compares with the silenced one.

    Attributes:
        spikes: of the silenced network in float64, on all batches.
        differing: spikes that one of the two has and the other has not, in float64.
        leaked: spikes of channels that were to be silent.
        gap: largest difference of outputs in float64, over the largest output (or 1, if that is less).
        rounded: spikes that differ in float32, where the order of a sum decides charges that lie at the threshold.
        rounded_gap: as `gap`, in float32, of batches without such a spike.
    """

    spikes: int
    differing: int
    leaked: int
    gap: float
    rounded: int
    rounded_gap: float

    @property
    def holds(self) -> bool:
        """Whether the networks are the same."""
        return self.differing == 0 and self.leaked == 0 and self.gap <= GAP and self.rounded_gap <= GAP

    def check(self) -> "Certificate":
        """Return it if it holds.

        Raises:
            ShrinkError: it does not, with its numbers.
        """
        if not self.holds:
            raise ShrinkError(
                f"the smaller network is not the silenced one: {self.differing} of {self.spikes} spikes differ in float64, {self.leaked} come "
                f"from channels that were cut, outputs differ by {self.gap:.3g} (float32: {self.rounded_gap:.3g}). Does the forward add "
                "something to channels, or has the model changed since it was viewed? View it again; if that does not help, leave the layer out."
            )
        return self


def silenced(view: ModelView, masks: Masks) -> ModelView:
    """Copy a model, with what the masks hold set to zero."""
    twin = view.clone()
    masks.apply_(twin.net)
    return twin


def certify(quiet: ModelView, small: nn.Module, alive: Mapping[str, Tensor], batches: Iterable[Any] = ()) -> Certificate:
    """Compare a smaller network with the silenced one.

    Args:
        quiet: what `silenced` returned.
        small: the smaller network.
        alive: bool (C,) by family name: the channels that it keeps.
        batches: to run besides the view's example: `x`, or `(x, y)`.

    Raises:
        ShrinkError: the smaller network cannot run.
    """
    places = _places(quiet, alive)
    total = [0, 0, 0, 0.0, 0, 0.0]
    with _doubled(quiet.net) as dense, _doubled(small) as cut:
        for x in (quiet.example, *(parts(batch, quiet.device)[0] for batch in batches)):
            wide = _widened(x)
            exact = _compare(_run(quiet, dense, wide, torch.double), _run(quiet, cut, wide, torch.double), places)
            plain = _compare(_run(quiet, quiet.net, x), _run(quiet, small, x), places)
            total = [
                total[0] + exact.spikes,
                total[1] + exact.differing,
                total[2] + exact.leaked,
                max(total[3], exact.gap),
                total[4] + plain.differing,
                max(total[5], 0.0 if plain.differing else plain.gap),
            ]
    return Certificate(*total)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Comparison:
    spikes: int
    differing: int
    leaked: int
    gap: float


Run = tuple[dict[str, Tensor], list[Tensor]]


def _compare(dense: Run, cut: Run, places: Mapping[str, list[tuple[Use, Tensor]]]) -> _Comparison:
    spikes = differing = leaked = 0
    for name, fired in dense[0].items():
        spikes += int(fired.sum())
        keep, axis = _kept(fired, places.get(name, []))
        leaked += int(fired.index_select(axis, (~keep).nonzero().flatten()).sum())
        left, other = fired.index_select(axis, keep.nonzero().flatten()), cut[0].get(name)
        if other is None or other.shape != left.shape:
            raise ShrinkError(
                f"neuron {name!r} gives {tuple(left.shape)} spikes of living channels, but {_shape(other)} in the smaller network."
            )
        differing += int((left != other).sum())
    gap = max((_gap(a, b) for a, b in zip(dense[1], cut[1], strict=True)), default=0.0)
    return _Comparison(spikes, differing, leaked, gap)


def _gap(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        raise ShrinkError(f"the smaller network returns {tuple(other.shape)}, the silenced one {tuple(one.shape)}.")
    if not one.numel():
        return 0.0
    gap = float((one.double() - other.double()).abs().max() / max(1.0, float(one.double().abs().max())))
    return gap if gap == gap else float("inf")


def _shape(tensor: Tensor | None) -> Any:
    return "none" if tensor is None else tuple(tensor.shape)


def _places(view: ModelView, alive: Mapping[str, Tensor]) -> dict[str, list[tuple[Use, Tensor]]]:
    """Say where the channels of cut families lie at each neuron."""
    found: dict[str, list[tuple[Use, Tensor]]] = {}
    for family in view.graph.families:
        for use in family.neurons if family.name in alive else ():
            found.setdefault(use.module, []).append((use, alive[family.name]))
    return found


def _kept(fired: Tensor, places: list[tuple[Use, Tensor]]) -> tuple[Tensor, int]:
    """Give which entries of the channel axis stay, and that axis."""
    axis = fired.dim() - 1 - (places[0][0].trailing if places else 0)
    keep = torch.ones(fired.shape[axis], dtype=torch.bool, device=fired.device)
    for use, alive in places:
        keep[use.offset : use.offset + alive.numel() * use.repeat] = alive.to(keep.device).repeat_interleave(use.repeat)
    return keep, axis


@contextmanager
def _doubled(net: nn.Module) -> Iterator[nn.Module]:
    yield detached_copy(net).double()


def _widened(values: Any) -> Any:
    return tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, values)


def _run(view: ModelView, net: nn.Module, x: Any, dtype: torch.dtype = torch.float32) -> Run:
    """Run a network from rest; give the spikes of every neuron, all calls in a row, and what it returns."""
    adapter, fired = view.adapter, dict[str, list[Tensor]]()
    modules = dict(net.named_modules())

    def listen(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: object) -> Any:
            assert adapter is not None
            fired.setdefault(name, []).append(adapter.spikes(module, output).detach() != 0)
            return _widened(output) if dtype is torch.double else output  # snnTorch's spikes are float32 whatever it is given

        return hook

    before = torch.get_default_dtype()
    with left_as_found(net), torch.no_grad(), ExitStack() as hooks:
        net.eval()
        for module in modules.values():
            if adapter is not None and adapter.is_stateful(module):
                adapter.reset(module)
        for name in view.neurons:
            hooks.callback(modules[name].register_forward_hook(listen(name)).remove)
        torch.set_default_dtype(dtype if dtype is torch.double else before)
        try:
            out = view.forward(net, x)
        except SpikepruneError:
            raise
        except Exception as error:
            raise ShrinkError(
                f"the smaller network cannot run ({type(error).__name__}: {error}). Sizes that are written into the forward, such as "
                "view(-1, 512), cannot follow: use flatten(1) or sizes of the tensor. Or its forward makes float32 tensors by itself, and it "
                "is compared in float64."
            ) from error
        finally:
            torch.set_default_dtype(before)
    return {name: torch.stack(calls) for name, calls in fired.items()}, [v for v in tree_leaves(out) if isinstance(v, Tensor)]
