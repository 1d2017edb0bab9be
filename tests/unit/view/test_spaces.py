"""Labels through tensor functions, held against what really happens when one channel changes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spikeprune.view.graph import Notes
from spikeprune.view.spaces import Carried, Opaque, Part
from spikeprune.view.trace import _Follow

SHAPE = (2, 3, 5, 4, 4)  # time, batch, channels, height, width
KNOWN = {
    "relu": lambda x: x.relu(),
    "clone": lambda x: x.clone(),
    "to": lambda x: x.to(torch.float64),
    "detached data": lambda x: x.detach().data,
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "scaled": lambda x: 2 * x / 3,
    "negated, less zero": lambda x: -x - 0,
    "scaled over time": lambda x: x * torch.rand(2, 1, 1, 1, 1),
    "added in place": lambda x: x.clone().add_(x),
    "added to nothing": lambda x: sum([x, x]),
    "added to zeros alike": lambda x: torch.zeros_like(x) + x,
    "max pool": lambda x: F.max_pool2d(x.flatten(0, 1), 2),
    "mean pool": lambda x: F.adaptive_avg_pool2d(x.flatten(0, 1), 1),
    "mean pool, module": lambda x: nn.AvgPool2d(2)(x[0]),
    "upsampled": lambda x: F.interpolate(x[0], scale_factor=2),
    "folded": lambda x: x.flatten(0, 1),
    "folded and back": lambda x: x.reshape(6, 5, 4, 4).unflatten(0, (2, 3)),
    "features": lambda x: x.flatten(2),
    "features, by a module": lambda x: nn.Flatten()(x[1]),
    "features, by numbers": lambda x: x.view(2, 3, 80),
    "one batch": lambda x: x.reshape(6, -1),
    "half flat": lambda x: x.flatten(2, 3),
    "axes of one": lambda x: x.unsqueeze(2).unsqueeze(0).squeeze(0),
    "expanded": lambda x: x[0].expand(4, *SHAPE[1:]),
    "repeated in time": lambda x: x.repeat(3, 1, 1, 1, 1),
    "permuted": lambda x: x.permute(2, 0, 3, 4, 1),
    "permuted by a list": lambda x: torch.permute(x, (1, 2, 0, 3, 4)),
    "transposed": lambda x: x.transpose(1, -3),
    "swapped": lambda x: x.swapaxes(2, 0),
    "turned": lambda x: x[0, :, :, 0, 0].t(),
    "turned by attribute": lambda x: x[0, 0, :, 0].mT,
    "mean over time": lambda x: x.mean(0),
    "sum over space": lambda x: x.sum((-1, -2)),
    "mean that keeps axes": lambda x: x.mean(dim=(0, 3), keepdim=True),
    "largest over time": lambda x: x.max(dim=0)[0],
    "a step": lambda x: x[1],
    "a slice": lambda x: x[:, 1:, :, ::2],
    "an ellipsis": lambda x: x[..., 0],
    "a new axis": lambda x: x[None, :, 0],
    "all of them": lambda x: x[0, :, 0:5],
    "unbound": lambda x: x.unbind(0)[1],
    "iterated": lambda x: next(iter(x.unbind())),
    "split in time": lambda x: x.split(1, dim=0)[1],
    "selected": lambda x: x.select(1, 0),
    "narrowed": lambda x: x.narrow(3, 0, 2),
    "stacked": lambda x: torch.stack([x[1], x[0]]),
    "stacked behind": lambda x: torch.stack([x[1], x[0]], dim=-1),
    "concatenated in time": lambda x: torch.cat([x, x]),
    "concatenated channels": lambda x: torch.cat([x, 2 * x], dim=2),
    "concatenated and flat": lambda x: torch.cat([x, 2 * x], dim=2).flatten(2),
}
REFUSED = {
    "softmax": (lambda x: x.softmax(2), "softmax is not known"),
    "flipped": (lambda x: x.flip(2), "flip is not known"),
    "multiplied": (lambda x: x[0, 0].flatten(1).T @ torch.rand(5, 5), "matmul is not known"),
    "compared": (lambda x: (x > 0).float(), "gt is not known"),
    "a constant": (lambda x: x + 1, "adds a constant"),
    "the rest of one": (lambda x: 1 - x, "adds a constant"),
    "a constant tensor": (lambda x: x + torch.ones(2, 1, 1, 1, 1), "adds a constant"),
    "one each": (lambda x: x * torch.rand(5, 1, 1), "joins them with 5 values that come from no layer"),
    "zeros of its own": (lambda x: torch.zeros(SHAPE) + x, "joins them with 5 values"),
    "a divisor": (lambda x: torch.ones(1) / x, "divides by them"),
    "a divided number": (lambda x: 2 / x, "is not known|divides by them"),
    "pool across": (lambda x: F.avg_pool1d(x.transpose(2, 4)[0, 0], 1), "pools across channels"),
    "pool across to one": (lambda x: F.max_pool2d(x[0].transpose(1, 2), 1), "pools across channels"),
    "folded": (lambda x: x.flatten(1, 2), "folds them with other axes"),
    "groups": (lambda x: torch.cat([x, x], 2).unflatten(2, (2, 5)), "folds them with other axes"),
    "repeated": (lambda x: x.repeat(1, 1, 2, 1, 1), "repeats them"),
    "mean over channels": (lambda x: x.mean(2), "reduces them"),
    "mean over all": (lambda x: x.mean(), "reduces all axes"),
    "some": (lambda x: x[:, :, 1:], "picks some of them"),
    "one": (lambda x: x[:, :, 1], "picks some of them"),
    "reversed by a list": (lambda x: x[:, :, [4, 3, 2, 1, 0]], "picks by a list"),
    "by a mask": (lambda x: x[torch.ones(2, dtype=torch.bool)], "picks by a list or a tensor"),
    "split": (lambda x: x.split(1, dim=2)[0], "splits them"),
    "chunks": (lambda x: x.chunk(5, 2)[0], "splits them"),
    "shifted": (lambda x: x[..., :1, :1] + x[..., :1, :1].transpose(2, 4), "do not lie alike"),
    "appended": (lambda x: torch.cat([x, torch.zeros(2, 3, 1, 4, 4)], 2), "appends values that come from no layer"),
    "stacked with zeros": (lambda x: torch.stack([x, torch.zeros(SHAPE)]), "values that come from no layer"),
    "written": (lambda x: torch.zeros(SHAPE).index_copy_(0, torch.tensor([0, 1]), x), "index_copy is not known"),
}


def followed(act, start=None):
    """Run a function on a labelled tensor; its output, its label, and the notes."""
    notes = Notes()
    notes.open("conv", SHAPE[2])
    mode = _Follow(notes)
    x = noise() if start is None else start
    mode.label(x, Carried(2, (Part("conv", SHAPE[2]),)))
    with mode:
        out = act(x)
    return out, mode.of(out), notes


def noise():
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) + 0.5


def places(label, channel):
    """Where along its axis a label says that a channel lies."""
    found, offset = [], 0
    for part in label.parts:
        found += range(offset + channel * part.repeat, offset + (channel + 1) * part.repeat)
        offset += part.channels * part.repeat
    return found


def moved(act, channel):
    """Where along each axis the output changes when one channel does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = act(noise()).double()
        changed = noise()
        changed[:, :, channel] *= 1.5
        torch.manual_seed(0)
        return before, (act(changed).double() != before)


@pytest.mark.parametrize("act", KNOWN.values(), ids=KNOWN)
def test_a_label_says_where_a_channel_really_lies(act):
    _, label, notes = followed(act)
    assert isinstance(label, Carried)
    assert label.spaces == {"conv"}
    assert notes.why == {}
    for channel in (0, 3, 4):
        _, changed = moved(act, channel)
        along = changed.movedim(label.axis, 0).reshape(changed.shape[label.axis], -1).any(1)
        assert along.nonzero().flatten().tolist() == places(label, channel)


@pytest.mark.parametrize("act", KNOWN.values(), ids=KNOWN)
def test_a_silent_channel_stays_silent(act):
    silent = noise()
    silent[:, :, 3] = 0
    out, label, _ = followed(act, silent)
    assert not out.movedim(label.axis, 0)[places(label, 3)].any()


@pytest.mark.parametrize(("act", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_understood_is_refused_by_name(act, why):
    _, label, notes = followed(act)
    assert isinstance(label, Opaque)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(notes.why["conv"])


def test_what_comes_of_an_unknown_function_stays_unknown():
    _, label, notes = followed(lambda x: x.flip(2).relu() + x)
    assert isinstance(label, Opaque)
    assert "flip" in notes.why["conv"]


@given(st.permutations(range(5)), st.integers(0, 4), st.sampled_from(["none", "flatten", "fold", "mean"]))
def test_any_order_of_axes(order, channel, then):
    def act(x):
        y = x.permute(*order)
        axis = order.index(2)
        if then == "flatten" and axis < 4:
            return y.flatten(axis)
        if then == "fold" and axis > 1:
            return y.flatten(0, axis - 1)
        return y.mean(0 if axis else 1) if then == "mean" else y

    _, label, _ = followed(act)
    _, changed = moved(act, channel)
    along = changed.movedim(label.axis, 0).reshape(changed.shape[label.axis], -1).any(1)
    assert along.nonzero().flatten().tolist() == places(label, channel)
