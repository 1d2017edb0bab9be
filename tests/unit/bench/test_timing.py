import pytest

from spikeprune.bench.timing import Ratio, Times, race, turned


def times(*values, wall=None):
    return Times(values, wall or values)


def test_a_ratio_is_taken_round_by_round_and_not_of_averages():
    found = Ratio.of(times(2.0, 12.0, 3.0), times(1.0, 4.0, 1.0))
    assert (found.median, found.least, found.most) == (3.0, 2.0, 3.0)
    assert found.of_medians == 3.0
    assert found.of_minima == 2.0


def test_the_ratio_is_of_processor_time_and_the_wall_clock_stands_beside_it():
    found = Ratio.of(Times((4.0,), (9.0,)), Times((2.0,), (3.0,)))
    assert (found.median, found.wall) == (2.0, 3.0)
    assert not found.clocks_agree
    assert Ratio.of(Times((4.0,), (6.8,)), Times((2.0,), (3.0,))).clocks_agree  # 2.27 is within 15 % of 2


def test_every_round_begins_with_another():
    assert [turned("abc", turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert turned("abc", 2) == ["c", "a", "b"]


def test_a_race_calls_all_in_turns(monkeypatch):
    called = []
    contestants = {name: lambda name=name: called.append(name) for name in "ab"}
    monkeypatch.setattr("spikeprune.bench.timing._calls", lambda run, seconds: 2)
    found = race(contestants, rounds=3, seconds=1)
    assert "".join(called) == "aabb" + "bbaa" + "aabb"
    assert all(len(one.cpu) == len(one.wall) == 3 for one in found.values())


def test_times_are_those_of_one_call(monkeypatch):
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("spikeprune.bench.timing._calls", lambda run, seconds: 3)
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    found = race({"a": lambda: None}, rounds=2, seconds=1)
    assert found["a"].cpu == (2.0, 2.0)


@pytest.mark.parametrize(("seconds", "least"), [(0.0, 1), (0.02, 20)])
def test_short_calls_are_repeated_until_they_can_be_measured(seconds, least):
    count = 0

    def run():
        nonlocal count
        count += 1

    race({"a": run}, rounds=1, seconds=seconds)
    assert count >= least
