"""Rules of what takes whole samples: synapses, norms and pools; and of functions that a plan has no word for."""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from spikeprune.engine.arithmetic import PRODUCTS, REDUCTIONS, SUMS, added, multiplied, reduced, scale
from spikeprune.engine.book import Rows, Unknown
from spikeprune.engine.calls import DROPOUT, Call, Rule, key
from spikeprune.engine.plan import Operation, Outside, Pool, ReLU, Synapse, constant


def synapse(call: Call) -> Tensor:
    """linear, conv1d, conv2d and conv3d of a weight that comes of no value."""
    x, weight, bias = call.first, call.option(1, "weight"), call.option(2, "bias")
    space = weight.dim() - 2
    if x.dim() != space + 2 and space:
        raise Unknown("takes an input without an axis for samples")
    lead = 1 if space else x.dim() - 1
    form = {} if not space else _form(call, space)
    token = (call.name, key(weight), key(bias), *form.values())
    return _of_rows(
        call,
        lead,
        token,
        lambda **base: Synapse(
            **base, name=call.layer(weight), weight=_own(weight), bias=None if bias is None else constant(bias), **form
        ),
    )


def _own(weight: Tensor) -> Tensor:
    """Make a weight one of the plan; a parameter belongs to a copy of the network that is made for the plan, and is not copied again."""
    return weight.detach().to("cpu", torch.double) if isinstance(weight, nn.Parameter) else constant(weight)


def _form(call: Call, space: int) -> dict[str, Any]:
    weight = call.option(1, "weight")
    dilation = spaced(call.option(5, "dilation", default=1), space)
    padding = call.option(4, "padding", default=0)
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding == "same" and any(r % 2 for r in reach):
            raise Unknown("pads one side more than the other")
        padding = 0 if padding == "valid" else [r // 2 for r in reach]
    stride = spaced(call.option(3, "stride", default=1), space)
    groups = call.option(6, "groups", default=1)
    return {"stride": stride, "padding": spaced(padding, space), "dilation": dilation, "groups": groups}


def spaced(value: Any, axes: int) -> tuple[int, ...]:
    """Give one int for each axis of space.

    Example:
        >>> spaced(2, 3), spaced((2, 1), 2)
        ((2, 2, 2), (2, 1))
    """
    values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return values * axes if len(values) == 1 else values


def _of_rows(call: Call, lead: int, token: Any, make: Callable[..., Operation]) -> Tensor:
    """Number an operation on whole samples, and give the addresses of what it returned."""
    rows, shape = call.book.rows(call.first, lead), tuple(call.result.shape[lead:])
    number = _numbered(call, rows, shape, token, make)
    return call.book.spread(number, rows, tuple(call.result.shape[:lead]))


def _numbered(call: Call, rows: Rows, shape: tuple[int, ...], token: Any, make: Callable[..., Operation]) -> int:
    over_time = call.book.operations[rows.number].over_time
    return call.book.add((token, rows.number), lambda: make(inputs=(rows.number,), shape=shape, over_time=over_time))


def normed(call: Call) -> Tensor:
    """batch_norm and instance_norm with running statistics: a factor and a sum a channel."""
    if call.func not in (F.batch_norm, F.instance_norm):  # torch.batch_norm takes its arguments in another order
        raise Unknown("is not that of torch.nn.functional")
    batch = (
        call.option(5, "training", default=False)
        if call.name == "batch_norm"
        else call.option(5, "use_input_stats", default=True)
    )
    if batch:
        raise Unknown("normalizes by each batch; build the norm with track_running_stats=True, and train or recalibrate it")
    mean, var = (constant(call.option(i, name)) for i, name in ((1, "running_mean"), (2, "running_var")))
    gain = (var + call.option(7, "eps", default=1e-5)).rsqrt()
    weight, bias = call.option(3, "weight"), call.option(4, "bias")
    gain = gain if weight is None else gain * constant(weight)
    shift = -mean * gain if bias is None else constant(bias) - mean * gain
    rows = call.book.rows(call.first, 1)
    return call.book.spread(scale(call.book, rows.number, gain, shift), rows, tuple(call.result.shape[:1]))


def pooled(call: Call) -> Tensor:
    """Max and average pools; of a tensor without channels, as of one channel."""
    space, average = int(call.name[-2]), "avg" in call.name
    options = _adaptive(call, space) if call.name.startswith("adaptive") else _windows(call, space, average=average)
    x = call.first
    if x.dim() not in (space + 1, space + 2):
        raise Unknown("pools an input without an axis for samples")
    book, rows, result = call.book, call.book.rows(x, 1), tuple(call.result.shape[1:])
    channels = () if x.dim() == space + 2 else (1,)
    inside = book.reshaped(rows.number, (*channels, *x.shape[1:]))
    kind: Literal["average", "max"] = "average" if average else "max"
    number = _numbered(
        call,
        Rows(inside, rows.t, rows.n),
        (*channels, *result),
        (kind, *options.items()),
        lambda **base: Pool(**base, kind=kind, **options),
    )
    return book.spread(book.reshaped(number, result), rows, tuple(call.result.shape[:1]))


def _windows(call: Call, space: int, *, average: bool) -> dict[str, Any]:
    kernel = call.option(1, "kernel_size")
    stride, padding = call.option(2, "stride"), call.option(3, "padding", default=0)
    ceil_place = 4 if average else 5
    if average and call.option(6, "divisor_override") is not None:
        raise Unknown("divides by a number of its own")
    if not average and (
        set(spaced(call.option(4, "dilation", default=1), 1)) != {1} or call.option(6, "return_indices", default=False)
    ):
        raise Unknown("pools with gaps, or returns indices")
    return {
        "kernel": spaced(kernel, space),
        "stride": spaced(kernel if stride in (None, [], ()) else stride, space),
        "padding": spaced(padding, space),
        "ceil_mode": bool(call.option(ceil_place, "ceil_mode", default=False)),
        "count_include_pad": bool(call.option(5, "count_include_pad", default=True)) if average else True,
    }


def _adaptive(call: Call, space: int) -> dict[str, Any]:
    if call.option(2, "return_indices", default=False):
        raise Unknown("returns indices")
    given, left = call.args[0].shape[-space:], call.result.shape[-space:]
    if any(before % after for before, after in zip(given, left, strict=True)):
        raise Unknown("pools windows of different sizes")
    kernel = tuple(before // after for before, after in zip(given, left, strict=True))
    return {"kernel": kernel, "stride": kernel, "padding": (0,) * space}


def rectified(call: Call) -> Tensor:
    """relu, of each value by itself."""
    addresses = call.first
    for number in call.book.numbers(addresses):
        op = call.book.operations[number]
        make = {"inputs": (number,), "shape": op.shape, "over_time": op.over_time}
        addresses = call.book.onto(addresses, number, call.book.add(("relu", number), lambda make=make: ReLU(**make)))  # type: ignore[misc]
    return addresses


def outside(call: Call, reason: str, *, inplace: bool) -> Tensor:
    """Keep a function as it is, if it treats each row by itself.

    Raises:
        Unknown: it does not, or it writes in place.
    """
    if inplace or not call.known or call.name in DROPOUT:
        raise Unknown(reason)
    call.result  # noqa: B018  # refuses what returns several tensors
    for lead in (1, 2):
        run = _row_function(call, lead)
        if _by_rows(call, run, lead):
            try:
                rows = _common_rows(call, lead)
            except Unknown:
                continue
            return _kept(call, run, rows, lead, reason)
    raise Unknown(reason)


def _row_function(call: Call, lead: int) -> Callable[..., Tensor]:
    """Make a function of (rows, ...) tensors alone, in the order in which the call was given them."""
    tensors = [tensor for tensor, _ in call.known]

    def run(*inputs: Tensor) -> Tensor:
        given = {id(tensor): x if lead == 1 else x.unsqueeze(0) for tensor, x in zip(tensors, inputs, strict=True)}

        def swapped(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            plain = leaf.to(inputs[0].device, inputs[0].dtype) if leaf.is_floating_point() else leaf
            return given.get(id(leaf), plain)

        args, kwargs = tree_map(swapped, (call.args, call.kwargs))
        out: Tensor = call.func(*args, **kwargs)
        out = out if lead == 1 else out.squeeze(0)
        return out.to(inputs[0].dtype)

    return run


def _by_rows(call: Call, run: Callable[..., Tensor], lead: int) -> bool:
    """Whether the function gives the same of its rows in another order, and of the last row alone."""
    tensors, rows = [tensor for tensor, _ in call.known], call.result.shape[:lead]
    if any(tensor.shape[:lead] != rows or tensor.dim() < lead for tensor in tensors) or not prod(rows):
        return False
    flat = [tensor.reshape(-1, *tensor.shape[lead:]) for tensor in tensors]
    expected = call.result.reshape(-1, *call.result.shape[lead:]).to(flat[0].dtype)
    try:
        turned, last = run(*(x.flip(0) for x in flat)), run(*(x[-1:] for x in flat))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return all(
        got.shape == want.shape and torch.allclose(got, want, equal_nan=True)
        for got, want in ((turned, expected.flip(0)), (last, expected[-1:]))
    )


def _common_rows(call: Call, lead: int) -> list[Rows]:
    found = [call.book.rows(addresses, lead) for _, addresses in call.known]
    t = torch.stack([rows.t for rows in found]).amax(0)
    if any(not torch.equal(rows.n, found[0].n) or bool(((rows.t != t) & (rows.t >= 0)).any()) for rows in found):
        raise Unknown("joins different samples or timesteps")
    return [Rows(rows.number, t, rows.n) for rows in found]


def _kept(call: Call, run: Callable[..., Tensor], rows: list[Rows], lead: int, reason: str) -> Tensor:
    inputs, shape = tuple(r.number for r in rows), tuple(call.result.shape[lead:])
    over_time = any(call.book.operations[i].over_time for i in inputs)
    known = {id(tensor) for tensor, _ in call.known}
    token = tree_map(lambda leaf: "value" if id(leaf) in known else key(leaf), (call.args, call.kwargs))
    number = call.book.add(
        ("outside", call.name, lead, inputs, str(token)),
        lambda: Outside(
            inputs=inputs, shape=shape, over_time=over_time, name=call.name, call=run, reason=f"{call.name} {reason}"
        ),
    )
    return call.book.spread(number, rows[0], tuple(call.result.shape[:lead]))


def _table(*entries: tuple[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in entries for name in names.split()}


SYNAPSES = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
RULES: dict[str, Rule] = _table(
    (synapse, " ".join(SYNAPSES)),
    (normed, "batch_norm instance_norm"),
    (pooled, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"),
    (pooled, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
    (pooled, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d"),
    (rectified, "relu"),
    (added, " ".join(SUMS)),
    (multiplied, " ".join(PRODUCTS)),
    (reduced, " ".join(REDUCTIONS)),
)
