"""Run a model for fewer timesteps, without changing it.

A model is told its T in one of two ways: by an attribute of a module, or by the first axis of what it is given. Both are
tried, and believed only after viewing: every neuron must have seen exactly the timesteps asked for, of the same samples.
Frames that are too many are cut off, or added up.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeprune.errors import LayoutError, ModelError, SpikepruneError
from spikeprune.measure import parts
from spikeprune.temporal.rebin import rebin as add_up
from spikeprune.view.model_view import Forward, ModelView, check_view, model_view

# Names under which models keep T.
NAMES = ("T", "Ts", "timestep", "timesteps", "time_step", "time_steps", "num_steps", "num_timesteps", "num_time_steps", "n_steps",
         "n_timesteps", "nb_steps", "steps", "time_window")  # fmt: skip


def truncate(view: ModelView, timesteps: int, *, forward: Forward | None = None, rebin: bool = False) -> ModelView:
    """View the same model so that it runs only its first timesteps, or, with `rebin`, all of its input in fewer.

    Weights are shared, so the view serves for training too. An attribute that holds T is changed while the model runs,
    and put back afterwards, whatever happens; batches in which time comes first are cut, or re-binned, as they come in.
    A view made here may be truncated again: the whole input is cut or re-binned anew.

    Args:
        view: the model; the batch that it was viewed with is run again.
        timesteps: how many to run, 1 to T.
        forward: `forward(net, batch) -> output` that runs that many, for models in which nothing that sets T is found.
        rebin: add frames up (see `spikeprune.temporal.rebin`) rather than cut them off; for batches of event frames.

    Raises:
        ModelError: timesteps is no integer from 1 to T, nothing gives exactly that many, or there are no frames to re-bin.

    Example:
        >>> import snntorch, torch
        >>> from spikeprune import model_view
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc, self.lif = nn.Linear(4, 2), snntorch.Leaky(beta=0.9, init_hidden=True)
        ...     def forward(self, x):
        ...         return torch.stack([self.lif(self.fc(step)) for step in x])
        >>> view = model_view(Net(), torch.rand(8, 3, 4))  # T = 8, N = 3
        >>> truncate(view, 5)(torch.rand(8, 3, 4)).shape
        torch.Size([5, 3, 2])
    """
    check_view(view)
    if not isinstance(timesteps, int) or isinstance(timesteps, bool) or not 1 <= timesteps <= view.timesteps:
        raise ModelError(f"timesteps must be an integer from 1 to the view's T = {view.timesteps}; got {timesteps!r}.")
    if forward is not None and rebin:
        raise ModelError("give forward, which says itself what becomes of the frames, or rebin=True, not both.")
    if forward is not None:
        return _verified(view, timesteps, forward)
    candidates = list(_candidates(view, timesteps, rebin))
    if rebin and not candidates:
        raise ModelError(_no_frames(view))
    return view if _runs(view, timesteps, rebin) else _first_of(view, timesteps, candidates)


def _runs(view: ModelView, timesteps: int, rebin: bool) -> bool:
    """Whether the view is already what is asked for: frames that it cuts off cannot be added up, and the reverse."""
    first = view.forward
    return timesteps == view.timesteps and not (isinstance(first, _First) and first.cut and first.rebin != rebin)


def _first_of(view: ModelView, timesteps: int, candidates: "list[_First]") -> ModelView:
    """View the model with the first candidate that runs as asked."""
    failures = []
    for candidate in candidates:
        try:
            return _verified(view, timesteps, candidate)
        except SpikepruneError as error:
            failures.append(f"{candidate.told}: {str(error).removesuffix('.')}")
    tried = f" Tried: {'; '.join(failures)}." if failures else ""
    if any(candidate.rebin for candidate in candidates):
        raise ModelError(f"{_no_frames(view)}{tried}")
    raise ModelError(
        f"nothing was found that sets the T = {view.timesteps} timesteps of {type(view.net).__name__} to {timesteps}: neither an attribute "
        f"of that value ({', '.join(NAMES)}) nor a first axis of the batch.{tried} Pass forward=lambda net, "
        f"batch: ... that runs {timesteps} timesteps."
    )


def _no_frames(view: ModelView) -> str:
    shape = tuple(view.example.shape) if isinstance(view.example, Tensor) else f"a {type(view.example).__name__}"
    return (
        f"{type(view.net).__name__} has no frames to re-bin: its batch, {shape}, must have the T = {_whole(view)[1]} timesteps for its first "
        "axis, and they must be what its neurons run over. Leave rebin out to run fewer timesteps of direct or Poisson input."
    )


@dataclass(frozen=True)
class _First:
    """A forward that runs fewer timesteps; holds names, not modules, so that it serves a clone too."""

    forward: Forward
    full: int
    steps: int
    attributes: tuple[tuple[str, str], ...]
    cut: bool
    rebin: bool = False

    def __call__(self, net: nn.Module, batch: Any) -> Any:
        with _set(net, self.attributes, self.steps):
            return self.forward(net, self._shortened(batch))

    def _shortened(self, batch: Any) -> Any:
        if not self.cut:
            return batch
        if not self.rebin:
            return batch[: self.steps]
        if len(batch) != self.full:
            raise LayoutError(
                f"a batch of shape {tuple(batch.shape)} has {len(batch)} frames, but T = {self.full} are re-binned to {self.steps}."
            )
        return add_up(batch, self.steps)

    @property
    def told(self) -> str:
        """How it sets T, for a message."""
        names = ", ".join(f"{module}.{name}".lstrip(".") for module, name in self.attributes)
        ways = [f"attribute {names}"] * bool(names) + ["the batch's first axis"] * self.cut
        return " and ".join(ways)


@contextmanager
def _set(net: nn.Module, attributes: tuple[tuple[str, str], ...], steps: int) -> Iterator[None]:
    before = [(module := net.get_submodule(path), name, getattr(module, name)) for path, name in attributes]
    try:
        for module, name, _ in before:
            setattr(module, name, steps)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _whole(view: ModelView) -> tuple[Forward, int]:
    """Give forward and T of the whole: of a truncated view, what sets T still says the full number."""
    first = view.forward
    return (first.forward, first.full) if isinstance(first, _First) else (first, view.timesteps)


def _candidates(view: ModelView, steps: int, rebin: bool) -> Iterator[_First]:
    forward, full = _whole(view)
    held = tuple(
        (path, name)
        for path, module in view.net.named_modules()
        for name, value in vars(module).items()
        if name in NAMES and type(value) is int and value == full
    )
    sliceable = isinstance(view.example, Tensor) and view.example.dim() > 0 and view.example.shape[0] == full
    if held and not rebin:
        yield _First(forward, full, steps, held, cut=False)
    if sliceable:
        yield _First(forward, full, steps, (), cut=True, rebin=rebin)
    if held and sliceable:
        yield _First(forward, full, steps, held, cut=True, rebin=rebin)


def _verified(view: ModelView, steps: int, forward: Forward) -> ModelView:
    """View the model with `forward`, and believe it only if every neuron is given what it was, but over other timesteps."""
    found = model_view(view.net, _example(view), forward=forward, spiking=view.adapter is not None)
    if found.timesteps != steps:
        raise ModelError(f"the model ran {found.timesteps} timesteps, not the {steps} asked for.")
    # A model that folds time into the batch may take the timesteps that are left over for samples.
    before, after = _shapes(view), _shapes(found)
    for name in before:
        if before[name] != after.get(name):
            raise ModelError(f"neuron {name!r} was given {after.get(name)} at a timestep, where it was given {before[name]}.")
    return found


def _shapes(view: ModelView) -> dict[str, tuple[int, ...]]:
    """Tell the shape (N, ...) that each neuron is given at a timestep of the example."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, first: int) -> Callable[[nn.Module, Any], None]:
        def hook(_: nn.Module, args: Any) -> None:
            shapes[name] = tuple(args[0].shape[first:])

        return hook

    with view.undisturbed(), torch.no_grad(), ExitStack() as hooks:
        for name, neuron in view.neurons.items():
            assert view.adapter is not None
            hooks.callback(neuron.register_forward_pre_hook(note(name, int(view.adapter.takes_sequence(neuron)))).remove)
        view(_example(view))
    return shapes


def _example(view: ModelView) -> Any:
    return parts((view.example,), view.device)[0]
