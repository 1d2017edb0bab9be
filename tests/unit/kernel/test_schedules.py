import math

import pytest

from spikeprune.errors import ScheduleError, SparsityError
from spikeprune.kernel.schedules import Schedule, Staircase, cubic, every, once, stages, staircase


def due(schedule, steps):
    return {step: target for step in range(steps) if (target := schedule(step)) is not None}


def test_once_is_due_once():
    assert due(once(0.9), 10) == {0: 0.9}
    assert due(once(0.9, at=3), 10) == {3: 0.9}


def test_stages_come_in_turn():
    assert due(stages([0.3, 0.6, 0.9], every=4), 20) == {0: 0.3, 4: 0.6, 8: 0.9}
    assert due(stages([0.3, 0.6], every=1, start=5), 20) == {5: 0.3, 6: 0.6}


def test_a_staircase_may_fall():
    assert due(staircase({0: 100, 20: 50, 40: 25}), 60) == {0: 100, 20: 50, 40: 25}


def test_a_target_of_zero_is_due_all_the_same():
    assert once(0.0)(0) == 0.0


def test_cubic_by_hand():
    # 0.8 * (1 - (1 - x)^3) at x = 0, 1/4, 1/2, 3/4, 1
    schedule = cubic(0.8, start=2, stop=10, every=2)
    assert due(schedule, 20) == {2: 0.0, 4: pytest.approx(0.4625), 6: pytest.approx(0.7), 8: pytest.approx(0.7875), 10: 0.8}


def test_cubic_starts_from_the_initial_sparsity():
    assert due(cubic(0.9, stop=2, every=1, initial=0.5), 5) == {0: 0.5, 1: pytest.approx(0.85), 2: 0.9}


def test_cubic_reaches_its_target_exactly_whatever_the_interval():
    assert list(due(cubic(0.9, stop=10, every=3), 20)) == [0, 3, 6, 9, 10]
    assert due(cubic(0.9, stop=10, every=3), 20)[10] == 0.9
    assert due(cubic(0.9, stop=10, every=100), 200) == {0: 0.0, 10: 0.9}


def test_cubic_rises():
    targets = list(due(cubic(0.97, stop=1000), 1001).values())
    assert targets == sorted(targets)
    assert len(targets) == 1001


def test_every_asks_for_the_same_again_and_again():
    assert due(every(0.9, 4), 14) == {0: 0.9, 4: 0.9, 8: 0.9, 12: 0.9}
    assert due(every(0.9, 4, start=3), 12) == {3: 0.9, 7: 0.9, 11: 0.9}
    assert every(0.9, every=100)(10**9) == 0.9


def test_every_stops():
    assert list(due(every(0.9, 4, stop=8), 20)) == [0, 4, 8]
    assert list(due(every(0.9, 4, start=1, stop=8), 20)) == [1, 5]
    assert list(due(every(0.9, 4, start=5, stop=5), 20)) == [5]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: stages([], every=1), "as many steps as targets, and at least one"),
        (lambda: Staircase((0, 1), (0.5,)), "as many steps as targets"),
        (lambda: stages([0.5], every=0), "every is 0, but must be at least 1"),
        (lambda: stages([0.5], every=1, start=-1), r"steps must be 0 or more and rise; got \(-1,\)"),
        (lambda: once(0.5, at=-3), "steps must be 0 or more"),
        (lambda: staircase({10: 0.5, 5: 0.9}), r"rise; got \(10, 5\)"),
        (lambda: Staircase((3, 3), (0.1, 0.2)), "rise"),
        (lambda: cubic(0.5, start=5, stop=5), "0 <= start < stop"),
        (lambda: cubic(0.5, start=-1, stop=5), "0 <= start < stop"),
        (lambda: cubic(0.5, stop=5, every=0), "every >= 1"),
        (lambda: every(0.5, 0), "need every >= 1"),
        (lambda: every(0.5, 1, start=-1), "0 <= start"),
        (lambda: every(0.5, 1, start=5, stop=4), "start <= stop; got every 1, start 5, stop 4"),
        (lambda: cubic(0.5, stop=5, initial=0.6), r"must rise, but falls from initial 0\.6 to target 0\.5"),
    ],
)
def test_senseless_schedules_are_refused(make, told):
    with pytest.raises(ScheduleError, match=told):
        make()


@pytest.mark.parametrize("sparsity", [90, 1.0, -0.1, math.nan])
def test_a_bad_sparsity_is_refused_before_training(sparsity):
    with pytest.raises(SparsityError, match=r"must be a fraction in \[0, 1\)"):
        every(sparsity, 10)
    with pytest.raises(SparsityError, match=r"must be a fraction in \[0, 1\)"):
        cubic(sparsity, stop=10)
    with pytest.raises(SparsityError, match=r"must be a fraction in \[0, 1\)"):
        cubic(0.9, stop=10, initial=sparsity)


@pytest.mark.parametrize("schedule", [once(0.5), stages([0.5], every=1), staircase({0: 0.5}), cubic(0.5, stop=1), every(0.5, 2)])
def test_schedules_fit_the_protocol_and_are_values(schedule):
    assert isinstance(schedule, Schedule)
    assert hash(schedule) == hash(type(schedule)(**vars(schedule)))
