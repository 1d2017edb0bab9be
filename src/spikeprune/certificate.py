"""The certificate of a smaller network: the same spikes, bit by bit, as the network in which the cut channels are silent."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.hooks import RemovableHandle

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
        differing: spikes of living channels that one of the two has and the other has not, in float64.
        leaked: how often a layer of the silenced network read something other than zero from a channel that is cut, in float64.
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
                f"the smaller network is not the silenced one: {self.differing} of {self.spikes} spikes differ in float64, {self.leaked} times "
                f"a layer read something from a channel that was cut, outputs differ by {self.gap:.3g} (float32: {self.rounded_gap:.3g}). Does "
                "the forward add something to channels, or has the model changed since it was viewed? View it again; if that does not help, "
                "leave the layer out."
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
        ShrinkError: one of the two cannot run.
    """
    fired, read = _places(quiet, alive, "neurons"), _places(quiet, alive, "readers")
    dense, cut = _Runner(quiet, quiet.net, read), _Runner(quiet, small, {})
    total = [0, 0, 0, 0.0, 0, 0.0]
    for x in (quiet.example, *(parts(batch, quiet.device)[0] for batch in batches)):
        exact = _compare(dense.run(x, wide=True), cut.run(x, wide=True), fired)
        plain = _compare(dense.run(x), cut.run(x), fired)
        total = [
            total[0] + exact.spikes,
            total[1] + exact.differing,
            total[2] + exact.leaked,
            max(total[3], exact.gap),
            total[4] + plain.differing,
            max(total[5], 0.0 if plain.differing else plain.gap),
        ]
    return Certificate(*total)  # type: ignore[arg-type]


Places = dict[str, list[tuple[Use, Tensor]]]


def _places(view: ModelView, alive: Mapping[str, Tensor], kind: str) -> Places:
    """Say where the channels of cut families lie at each neuron, or reader."""
    found: Places = {}
    for family in view.graph.families:
        for use in getattr(family, kind) if family.name in alive else ():
            found.setdefault(use.module, []).append((use, alive[family.name]))
    return found


def _kept(size: int, places: list[tuple[Use, Tensor]], device: torch.device) -> Tensor:
    """Give which of the entries along a channel axis stay."""
    keep = torch.ones(size, dtype=torch.bool, device=device)
    for use, alive in places:
        keep[use.offset : use.offset + alive.numel() * use.repeat] = alive.to(device).repeat_interleave(use.repeat)
    return keep


@dataclass(frozen=True)
class _Comparison:
    spikes: int
    differing: int
    leaked: int
    gap: float


@dataclass
class _Run:
    """What one pass showed: spikes by neuron, all calls in a row; what it returned; what dead channels were read as."""

    spikes: dict[str, list[Tensor]]
    outputs: list[Tensor]
    leaked: int = 0


def _compare(dense: _Run, cut: _Run, places: Places) -> _Comparison:
    spikes = differing = 0
    for name, calls in dense.spikes.items():
        fired, others = torch.stack(calls), cut.spikes.get(name)
        spikes += int(fired.sum())
        axis = fired.dim() - 1 - (places[name][0][0].trailing if name in places else 0)
        keep = _kept(fired.shape[axis], places.get(name, []), fired.device)
        left = fired.index_select(axis, keep.nonzero().flatten())
        other = None if others is None else torch.stack(others)
        if other is None or other.shape != left.shape:
            raise ShrinkError(
                f"neuron {name!r} gives {tuple(left.shape)} spikes of living channels, but "
                f"{'none' if other is None else tuple(other.shape)} in the smaller network."
            )
        differing += int((left != other).sum())
    gap = max((_gap(a, b) for a, b in zip(dense.outputs, cut.outputs, strict=True)), default=0.0)
    return _Comparison(spikes, differing, dense.leaked, gap)


def _gap(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        raise ShrinkError(f"the smaller network returns {tuple(other.shape)}, the silenced one {tuple(one.shape)}.")
    if not one.numel():
        return 0.0
    gap = float((one.double() - other.double()).abs().max() / max(1.0, float(one.double().abs().max())))
    return gap if gap == gap else float("inf")


class _Runner:
    """Runs one of the two networks from rest, as it is or in float64, and listens.

    snnTorch's spikes are float32 whatever a neuron is given, so what a module with weights is given is made float64 first.
    """

    def __init__(self, view: ModelView, net: nn.Module, read: Places) -> None:
        self._view, self._read = view, read
        self._plain, self._wide = net, detached_copy(net).double()

    def run(self, x: Any, *, wide: bool = False) -> _Run:
        """Run one batch."""
        net, run = self._wide if wide else self._plain, _Run({}, [])
        adapter, before = self._view.adapter, torch.get_default_dtype()
        with left_as_found(net), torch.no_grad(), ExitStack() as hooks:
            net.eval()
            for module in net.modules():
                if adapter is not None and adapter.is_stateful(module):
                    adapter.reset(module)
            for handle in self._listen(net, run, wide=wide):
                hooks.callback(handle.remove)
            torch.set_default_dtype(torch.double if wide else before)
            try:
                out = self._view.forward(net, _widened(x) if wide else x)
            except SpikepruneError:
                raise
            except Exception as error:
                raise self._unrunnable(error) from error
            finally:
                torch.set_default_dtype(before)
        run.outputs += [v for v in tree_leaves(out) if isinstance(v, Tensor)]
        return run

    def _listen(self, net: nn.Module, run: _Run, *, wide: bool) -> Iterator[RemovableHandle]:
        for module in net.modules() if wide else ():
            if next(module.parameters(recurse=False), None) is not None:
                yield module.register_forward_pre_hook(lambda _, args: _widened(args))
        for name in self._view.neurons:
            yield net.get_submodule(name).register_forward_hook(self._hear(name, run))
        for name in self._read:
            yield net.get_submodule(name).register_forward_pre_hook(self._leak(name, run))

    def _hear(self, name: str, run: _Run) -> Any:
        def hook(module: nn.Module, _: Any, output: object) -> None:
            assert self._view.adapter is not None
            run.spikes.setdefault(name, []).append(self._view.adapter.spikes(module, output).detach() != 0)

        return hook

    def _leak(self, name: str, run: _Run) -> Any:
        def hook(module: Any, args: Any) -> None:
            x = args[0]
            axis = x.dim() - 1 - max(0, module.weight.dim() - 2)
            dead = ~_kept(x.shape[axis], self._read[name], x.device)
            run.leaked += int((x.index_select(axis, dead.nonzero().flatten()) != 0).sum())

        return hook

    def _unrunnable(self, error: Exception) -> ShrinkError:
        told = f"({type(error).__name__}: {error})"
        if self._plain is self._view.net:
            return ShrinkError(
                f"the model cannot run a batch that it is to be compared on {told}. Give calibration batches as the model takes them, x or "
                "(x, y). Or its forward makes float32 tensors by itself, and it is compared in float64."
            )
        return ShrinkError(
            f"the smaller network cannot run {told}. Sizes that are written into the forward, such as view(-1, 512), cannot follow: use "
            "flatten(1) or sizes of the tensor."
        )


def _widened(values: Any) -> Any:
    return tree_map(lambda v: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v, values)
