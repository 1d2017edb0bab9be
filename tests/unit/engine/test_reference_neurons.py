"""The equations of a neuron and the addresses of entries, on numbers written by hand."""

import pytest
import torch

from spikeprune.engine.arithmetic import readout
from spikeprune.engine.book import NOWHERE, Book, Unknown
from spikeprune.engine.plan import Input, Neuron, Plan, Readout, Scale, constant
from spikeprune.engine.reference import Reference

ZERO, ONE = constant(0.0), constant(1.0)


def one_neuron(**changes):
    fields = {"decay": constant(0.5), "gain": ONE, "rest": ZERO, "threshold": ONE, "strict": False, "reset": "hard"}
    fields |= {"reset_to": ZERO, "delayed": False, "start": ZERO, "name": "n"} | changes
    return Neuron(inputs=(0,), shape=(1,), over_time=True, **fields)


def course(currents, **changes):
    """Give charges and spikes of one neuron."""
    given = Input(inputs=(), shape=(1,), over_time=True, time_axis=0)
    operations = (given, one_neuron(**changes), one_neuron(**changes, gives="charge"))
    values = Reference(Plan(operations, outputs=(1,), timesteps=len(currents)), torch.double).values(
        torch.tensor(currents)[:, None, None]
    )
    return values[2].flatten().tolist(), values[1].flatten().tolist()


CURRENTS = [1.0, 0.5, 2.5, 0.0]


@pytest.mark.parametrize(
    ("changes", "charges", "spikes"),
    [
        ({}, [1.0, 0.5, 2.75, 0.0], [1, 0, 1, 0]),
        ({"strict": True}, [1.0, 1.0, 3.0, 0.0], [0, 0, 1, 0]),
        ({"reset": "soft"}, [1.0, 0.5, 2.75, 0.875], [1, 0, 1, 0]),
        ({"reset": "none"}, [1.0, 1.0, 3.0, 1.5], [1, 1, 1, 1]),
        ({"reset": "soft", "delayed": True, "strict": True}, [1.0, 1.0, 3.0, 0.5], [0, 0, 1, 0]),
        ({"gain": constant(0.5)}, [0.5, 0.5, 1.5, 0.0], [0, 0, 1, 0]),
        ({"rest": constant(-1.0), "reset_to": constant(-1.0), "start": constant(-1.0)}, [0.0, 0.0, 2.0, -1.0], [0, 0, 1, 0]),
    ],
)
def test_equations_by_hand(changes, charges, spikes):
    assert course(CURRENTS, **changes) == (charges, spikes)


def test_a_constant_a_channel():
    op = one_neuron(threshold=constant(torch.tensor([1.0, 3.0])))
    given = Input(inputs=(), shape=(2, 1, 2), over_time=False, time_axis=None)
    plan = Plan((given, Neuron(**{**vars(op), "shape": (2, 1, 2)})), outputs=(1,), timesteps=1)
    assert Reference(plan)(torch.full((1, 2, 1, 2), 2.0)).flatten().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("weights", "kind", "found"),
    [((1.0, 1.0), "sum", 7.0), ((0.5, 0.5), "mean", 3.5), ((0.0, 1.0), "last", 4.0), ((1.0, 0.25), "weighted", 4.0)],
)
def test_readouts_by_hand(weights, kind, found):
    op = Readout(inputs=(0,), shape=(1,), over_time=False, weights=weights)
    plan = Plan((Input(inputs=(), shape=(1,), over_time=True, time_axis=0), op), outputs=(1,), timesteps=2)
    assert op.kind == kind
    run = Reference(plan)
    assert run(torch.tensor([[[3.0]], [[4.0]]])).item() == found
    run.reset()
    assert sum(run.step(torch.tensor([[x]])).item() for x in (3.0, 4.0)) == found


def test_a_constant_output_comes_with_the_first_step():
    given = Input(inputs=(), shape=(1,), over_time=False, time_axis=None)
    double = Scale(inputs=(0,), shape=(1,), over_time=False, gain=constant(2.0), shift=ZERO)
    run = Reference(Plan((given, double), outputs=(1,), timesteps=2))
    assert [run.step(torch.ones(1, 1)).item() for _ in range(2)] == [2.0, 0.0]


def book():
    book = Book(2, 3)
    book.add("x", lambda: Input(inputs=(), shape=(4,), over_time=True, time_axis=0))
    book.add("y", lambda: Input(inputs=(), shape=(2,), over_time=False, time_axis=None))
    return book


def test_addresses_by_hand():
    found = book()
    e = found.read(torch.tensor([0, 5, 12, 23, 24, 29]))
    assert e.number.tolist() == [0, 0, 0, 0, 1, 1]
    assert e.t.tolist() == [0, 0, 1, 1, -1, -1]
    assert e.n.tolist() == [0, 1, 0, 2, 0, 2]
    assert e.place.tolist() == [0, 1, 0, 3, 0, 1]
    assert torch.equal(found.address(0, e.t[:4], e.n[:4], e.place[:4]), torch.tensor([0, 5, 12, 23]))


def test_rows_in_any_layout():
    found = book()
    rows = found.rows(found.whole(0).transpose(0, 1), 2)
    assert (rows.t.tolist(), rows.n.tolist()) == ([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2])
    both = found.rows(torch.cat([found.whole(0)[1], found.whole(1)], 1), 1)
    assert found.operations[both.number].shape == (6,)
    assert both.t.tolist() == [1, 1, 1]
    assert found.operations[found.rows(found.whole(0).view(2, 3, 2, 2), 2).number].shape == (2, 2)


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (lambda x: x[0].flip(1), "begin amid a sample"),
        (lambda x: x[0, :, :3], "not whole samples"),
        (lambda x: x[:, 0].reshape(1, 8), "several samples or timesteps"),
        (lambda x: torch.where(x[0] == 3, NOWHERE, x[0]), "neither of the input nor of a layer"),
        (lambda x: x[0, :0], "without entries"),
    ],
)
def test_rows_that_are_none(broken, text):
    found = book()
    with pytest.raises(Unknown, match=text):
        found.rows(broken(found.whole(0)), 1)


def test_one_key_is_one_value():
    found = book()
    assert readout(found, 0, (1.0, 0.0)) == readout(found, 0, (1.0, 0.0)) != readout(found, 0, (0.0, 1.0))
