"""Texts along the horizontal axis: every one where it belongs, and none that touches the next."""

import pytest
from matplotlib.figure import Figure

from spikeprune.report.ticks import SIGN, marks, ticks


@pytest.fixture
def axes():
    made = Figure().subplots()
    made.set_xlim(0.0, 10.0)
    return made


def texts(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_points_are_numbered_in_order_and_once(axes):
    ticks(axes, [8.0, 2.0, 5.0, 2.0], {})
    assert axes.get_xticks().tolist() == [2.0, 5.0, 8.0]
    assert texts(axes) == ["2", "5", "8"]


def test_a_name_stands_for_its_number(axes):
    ticks(axes, [1.0, 5.0, 9.0], {5.0: "conv2", 7.0: "nowhere"})
    assert texts(axes) == ["1", "conv2", "9"]


def test_of_texts_that_would_touch_the_right_one_stays(axes):
    ticks(axes, [4.0, 5.0, 9.0], {4.0: "a long name", 5.0: "b long name"})
    assert axes.get_xticks().tolist() == [4.0, 5.0, 9.0]  # the tick is there, without its text
    assert texts(axes) == ["", "b long name", "9"]


@pytest.mark.parametrize(("more", "shown"), [(0.01, "aaaa"), (-0.01, "")])
def test_a_text_fits_where_half_of_both_does(axes, more, shown):
    half = 0.5 * SIGN * 5 * 10  # four signs and a space, as a share of an axis of length 10
    ticks(axes, [5.0, 5.0 + 2 * half + more], {5.0: "aaaa", 5.0 + 2 * half + more: "bbbb"})
    assert texts(axes) == [shown, "bbbb"]


def test_a_lone_point_has_room_around_it(axes):
    axes.set_xlim(3.0, 3.0 + 1e-9)
    ticks(axes, [3.0], {3.0: "only"})
    low, high = axes.get_xlim()
    assert low <= 2.9 < 3.1 <= high
    assert texts(axes) == ["only"]


def test_many_points_have_plain_ticks(axes):
    few, many = Figure().subplots(), Figure().subplots()
    ticks(few, range(12), {})
    ticks(many, range(13), {})
    assert len(few.get_xticks()) == 12
    assert many.get_xticks().tolist() != list(range(13))


def test_marks_share_a_row_where_they_fit_and_stay_within_the_axes(axes):
    assert marks(axes, {1.0: "a", 9.0: "b"}) == 1
    assert marks(axes, {5.0: "some words", 5.2: "other words", 9.5: "c"}) == 2
    assert marks(axes, {}) == 0
    assert all(0 <= text.xy[0] <= 1 for text in axes.texts)
    assert [text.get_text() for text in axes.texts] == ["a", "b", "some words", "other words", "c"]
