"""How each tensor function passes channels on, a rule a kind; what has none here is refused by name."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import prod

from torch import Tensor

from spikeprune.view.spaces import Call, Carried, Label, Unknown

Rule = Callable[[Call], Label]


def passed(call: Call) -> Label:
    """Apply the function's rule.

    Raises:
        Unknown: there is none, or it does not cover this call.
    """
    rule = RULES.get(call.name)
    if rule is None:
        raise Unknown("is not known to keep channels apart")
    return rule(call)


def kept(call: Call) -> Label:
    """Pass on a label through what acts on every channel alike and in place."""
    x, label = call.one
    if call.out.dim() != x.dim() or call.out.shape[label.axis] != x.shape[label.axis]:
        raise Unknown("acts across channels")
    return label


def pooled(call: Call) -> Label:
    """Pass on a label through a pool, which must leave the axis alone even where its size would stay."""
    x, label = call.one
    if label.axis >= x.dim() - int(call.name.removesuffix("d")[-1]):
        raise Unknown("pools across channels")
    return kept(call)


def joined(call: Call) -> Label:
    """Add, subtract or multiply: channels of several layers become one family, in order; constants must be alike for all."""
    found: Carried | None = None
    for x, label in call.labels:
        moved = replace(label, axis=label.axis + call.out.dim() - x.dim())
        found = moved if found is None else together(call, found, moved)
    assert found is not None
    for x in call.plain:
        axis = found.axis + x.dim() - call.out.dim()
        if axis >= 0 and x.shape[axis] > 1:
            raise Unknown(f"joins them with {x.shape[axis]} values that come from no layer, one each")
    if call.name in DIVISION and call.args[1:] and any(call.args[1] is x for x, _ in call.labels):
        raise Unknown("divides by them")
    if call.name in ADDITIVE and _constant(call):
        raise Unknown("adds a constant, so that silent channels are silent no more")
    return found


def together(call: Call, one: Carried, other: Carried) -> Carried:
    """Tie two labels part by part.

    Raises:
        Unknown: their channels do not lie alike.
    """
    alike = one.axis == other.axis and len(one.parts) == len(other.parts)
    pairs = list(zip(one.parts, other.parts, strict=False))
    if not alike or any((a.channels, a.repeat) != (b.channels, b.repeat) for a, b in pairs):
        raise Unknown("joins channels that do not lie alike")
    for a, b in pairs:
        call.tie(a, b)
    return replace(one, bare=one.bare | other.bare)


def _constant(call: Call) -> bool:
    """Whether something other than channels, and other than zero, is added."""
    numbers = [arg for arg in (*call.args, call.kwargs.get("other")) if isinstance(arg, int | float) and arg]
    return bool(numbers or any(bool(x.any()) for x in call.plain))


def reshaped(call: Call) -> Label:
    """Follow the axis through flatten, view, reshape, squeeze and their kin, by the entries that lie before it."""
    x, label = call.one
    before, size = prod(x.shape[: label.axis]), x.shape[label.axis]
    new = call.out.shape
    places = [axis for axis in range(len(new)) if prod(new[:axis]) == before and new[axis] % size == 0 and new[axis]]
    exact = [axis for axis in places if new[axis] == size] or places
    if not exact:
        raise Unknown(f"folds them with other axes, from {tuple(x.shape)} to {tuple(new)}")
    axis = exact[-1] if size > 1 else exact[0]
    more = new[axis] // size
    return replace(label, axis=axis, parts=tuple(replace(part, repeat=part.repeat * more) for part in label.parts))


def expanded(call: Call) -> Label:
    """Follow the axis through expand and repeat, which may add axes in front."""
    x, label = call.one
    axis = label.axis + call.out.dim() - x.dim()
    if call.out.shape[axis] != x.shape[label.axis]:
        raise Unknown("repeats them")
    return replace(label, axis=axis)


def permuted(call: Call) -> Label:
    """Follow the axis through permute, transpose and their kin."""
    x, label = call.one
    order = list(range(x.dim()))
    if call.name == "permute":
        dims = call.option(1, "dims")
        order = [_axis(d, x) for d in (call.args[1:] if isinstance(dims, int) else dims)]
    elif call.name in {"t", "T"}:
        order.reverse()
    else:
        pair = (-2, -1) if call.name == "mT" else [call.option(i, f"dim{i - 1}", f"axis{i - 1}") for i in (1, 2)]
        a, b = (_axis(d, x) for d in pair)
        order[a], order[b] = order[b], order[a]
    return replace(label, axis=order.index(label.axis))


def reduced(call: Call) -> Label:
    """Follow the axis through a mean or sum over others."""
    x, label = call.one
    dims = call.option(1, "dim", "axis")
    if not isinstance(dims, int | Sequence) or isinstance(dims, str) or dims == ():
        raise Unknown("reduces all axes to one number")
    gone = {_axis(d, x) for d in ([dims] if isinstance(dims, int) else dims)}
    if label.axis in gone:
        raise Unknown("reduces them to one number")
    if call.out.dim() == x.dim():
        return label
    return replace(label, axis=label.axis - sum(d < label.axis for d in gone))


def picked(call: Call) -> Label:
    """Follow the axis through x[...] that leaves it whole."""
    x, label = call.one
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(not isinstance(i, int | slice | type(None) | type(...)) or isinstance(i, bool) for i in index):
        raise Unknown("picks by a list or a tensor")
    given = sum(i is not None and i is not ... for i in index)
    rest = [slice(None)] * (x.dim() - given)
    at = next((k for k, i in enumerate(index) if i is ...), len(index))
    new, old = 0, 0
    for i in (*index[:at], *rest, *index[at + 1 :]):
        if i is None:
            new += 1
            continue
        if old == label.axis:
            if not isinstance(i, slice) or range(*i.indices(x.shape[old])) != range(x.shape[old]):
                raise Unknown("picks some of them")
            return replace(label, axis=new)
        new, old = new + isinstance(i, slice), old + 1
    raise AssertionError("the axis lies behind the last one")


def split(call: Call) -> Label:
    """Follow the axis through unbind, split, chunk, select and narrow along another."""
    x, label = call.one
    place = 1 if call.name in {"unbind", "select", "narrow"} else 2
    along = _axis(call.option(place, "dim", default=0), x)
    if along == label.axis:
        raise Unknown("splits them")
    return replace(label, axis=label.axis - (call.out.dim() < x.dim() and along < label.axis))


def stacked(call: Call) -> Label:
    """Follow the axis through stack: all must carry the same channels."""
    along = call.option(1, "dim", default=0) % call.out.dim()
    label = _all_alike(call)
    return replace(label, axis=label.axis + (along <= label.axis))


def concatenated(call: Call) -> Label:
    """Follow the axis through cat: parts in a row along it; along another, all must carry the same channels."""
    along = call.option(1, "dim", "axis", default=0) % call.out.dim()
    if along != call.labels[0][1].axis:
        return _all_alike(call)
    if call.plain or any(label.axis != along for _, label in call.labels):
        raise Unknown("appends values that come from no layer")
    return Carried(
        along,
        tuple(part for _, label in call.labels for part in label.parts),
        frozenset().union(*(label.bare for _, label in call.labels)),
    )


def _all_alike(call: Call) -> Carried:
    (_, found), *others = call.labels
    if call.plain:
        raise Unknown("joins them with values that come from no layer")
    for _, label in others:
        found = together(call, found, label)
    return found


def _axis(dim: int, x: Tensor) -> int:
    return dim % x.dim()


def _table(entries: Iterable[tuple[Rule, str]]) -> dict[str, Rule]:
    return {name: rule for rule, names in entries for name in names.split()}


ADDITIVE = frozenset({"add", "sub", "rsub", "maximum", "minimum"})
DIVISION = frozenset({"div", "divide", "true_divide"})
RULES: dict[str, Rule] = _table(
    [
        (
            kept,
            "relu dropout alpha_dropout feature_alpha_dropout clone detach contiguous to type type_as float double half bfloat16 cpu cuda",
        ),
        (kept, "data neg abs square sqrt zeros_like requires_grad interpolate upsample dropout1d dropout2d dropout3d"),
        (kept, "relu6 leaky_relu tanh hardtanh elu selu celu gelu silu softsign"),
        (pooled, "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d"),
        (pooled, "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
        (pooled, "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d"),
        (joined, "add sub rsub mul multiply div divide true_divide maximum minimum"),
        (reshaped, "flatten reshape view unflatten squeeze unsqueeze view_as reshape_as"),
        (expanded, "expand expand_as repeat broadcast_to"),
        (permuted, "permute transpose swapaxes swapdims t T mT"),
        (reduced, "mean sum amax amin max"),
        (picked, "getitem"),
        (split, "unbind split chunk tensor_split select narrow"),
        (stacked, "stack"),
        (concatenated, "cat concat concatenate"),
    ]
)
