"""Curves and bars show every value where it belongs, say each label once, and refuse what cannot be drawn."""

import re
from dataclasses import replace
from statistics import mean, stdev

import pytest

from spikeprune.errors import MeasureError
from spikeprune.report import drawing
from spikeprune.report.curves import Line, Panel, bars, curves
from spikeprune.report.drawing import COLORS, GREY, INK, looks

NAN = float("nan")
LAMP = Line("lamp", {80: [70.0, 72.0, 74.0], 90: [60.0, 61.0, 65.0]})
SNIP = Line("snip", {80: [68.0], 90: [50.0]})
PANEL = Panel([LAMP, SNIP], "sparsity, %", "accuracy, %")


def texts(svg):
    return [" ".join(re.sub(r"<[^>]*>", "", found).split()) for found in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


def ids(svg):
    return re.findall(r'\sid="([^"]*)"', svg)


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, to ask them where things lie."""
    kept = []

    def keep(name, title, height, paint):
        return drawing.draw(name, title, height, lambda figure: (paint(figure), kept.append(figure)))

    monkeypatch.setattr("spikeprune.report.curves.draw", keep)
    return kept


def test_equal_input_gives_equal_text_and_ids_of_its_own():
    drawn = curves("fig-1", "Accuracy", [PANEL])
    assert drawn == curves("fig-1", "Accuracy", [PANEL])
    assert ids(drawn)
    assert all(found.startswith("fig-1-") for found in [*ids(drawn), *ids(bars("fig-1-b", "Bars", [("fc", {"a": [1]})], "x"))])
    assert 'aria-label="Accuracy"' in drawn


def test_points_are_means_and_error_bars_sample_deviations(figures):
    curves("a", "t", [replace(PANEL, lines=[LAMP])])
    axes = figures[0].axes[0]
    (container,) = axes.containers
    line, _, (bars_,) = container
    assert line.get_xydata().tolist() == [[80.0, 72.0], [90.0, 62.0]]
    ends = [segment[:, 1].tolist() for segment in bars_.get_segments()]
    assert ends == [pytest.approx([72 - 2, 72 + 2]), pytest.approx([62 - stdev([60, 61, 65]), 62 + stdev([60, 61, 65])])]


def test_one_value_has_no_error_bar(figures):
    curves("a", "t", [replace(PANEL, lines=[SNIP])])
    assert not figures[0].axes[0].containers[0].has_yerr


def test_a_label_is_in_the_legend_once_and_looks_alike_in_all_panels(figures):
    drawn = curves("a", "t", [PANEL, replace(PANEL, y="loss")])
    assert texts(drawn).count("lamp") == texts(drawn).count("snip") == 1
    above, below = ([container[0].get_color() for container in axes.containers] for axes in figures[0].axes)
    assert above == below == list(COLORS[:2])


def test_given_looks_are_kept_and_the_rest_differ_from_them(figures):
    styles = looks(["snip"])
    own = replace(LAMP, label="own", look=looks("abcde")["e"])
    curves("a", "t", [replace(PANEL, lines=[LAMP, SNIP, own])], styles=styles)
    assert [container[0].get_color() for container in figures[0].axes[0].containers] == [COLORS[1], COLORS[0], COLORS[4]]


def test_a_reference_is_thin_grey_and_without_markers(figures):
    curves("a", "t", [replace(PANEL, lines=[LAMP, replace(SNIP, reference=True)])])
    first, second = (container[0] for container in figures[0].axes[0].containers)
    assert (second.get_color(), second.get_marker()) == (GREY, "")
    assert second.get_linestyle() != "-"
    assert second.get_linewidth() < first.get_linewidth()
    lone = replace(PANEL, lines=[replace(SNIP, points={80: [1.0]}, reference=True)])
    curves("a", "t", [lone])
    assert figures[1].axes[0].containers[0][0].get_marker() == "_"  # a line through one point would not be seen


def test_equal_horizontal_axes_are_shared_and_named_once(figures):
    other = replace(PANEL, lines=[replace(LAMP, points={0: [1], 1: [2]})])
    drawn = curves("a", "t", [other, PANEL, replace(PANEL, x="timesteps")])
    assert [texts(drawn).count(label) for label in ("sparsity, %", "timesteps", "90")] == [1, 1, 2]
    limits = [axes.get_xlim() for axes in figures[0].axes]
    assert limits[0] == limits[1] != limits[2]


def test_level_is_a_line_with_a_band_in_the_legend(figures):
    drawn = curves("a", "t", [replace(PANEL, level=("dense", [90.0, 92.0]))])
    assert texts(drawn).count("dense") == 1
    axes = figures[0].axes[0]
    assert [line.get_ydata() for line in axes.lines if line.get_color() == INK] == [[91.0, 91.0]]
    (band,) = axes.patches
    assert [band.get_y(), band.get_height()] == pytest.approx([91 - 2**0.5, 2 * 2**0.5])


def test_marks_are_written_beside_each_other_or_in_rows(figures):
    drawn = curves("a", "t", [replace(PANEL, marks={82: "t*", 88: "alpha = 0.5", 89: "another one"})])
    assert {"t*", "alpha = 0.5", "another one"} <= set(texts(drawn))
    boxes = [text.get_window_extent() for text in figures[0].axes[0].texts]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_points_of_three_lines_do_not_hide_each_other(figures):
    three = [replace(LAMP, label=label) for label in "abc"]
    curves("a", "t", [replace(PANEL, lines=three)])
    curves("a", "t", [replace(PANEL, lines=three[:2])])
    first, second = ([container[0].get_xdata()[0] for container in figure.axes[0].containers] for figure in figures)
    assert len(set(first)) == 3
    assert mean(first) == pytest.approx(80.0)
    assert second == [80.0, 80.0]


@pytest.mark.parametrize(
    ("values", "written"), [([0.002, 0.04], {"0.002", "0.01"}), ([1e-6, 1.0], {"10⁻⁶", "10⁰"}), ([3e-5], {"5·10⁻⁵"})]
)
def test_a_logarithmic_axis_has_plain_numbers(values, written):
    points = {i: [value] for i, value in enumerate(values)}
    drawn = curves("a", "t", [Panel([Line("a", points)], "x", "y", scale="log")])
    found = set(texts(drawn))
    assert written & found
    assert "$" not in "".join(found)


def test_a_deviation_that_reaches_zero_does_not_stretch_a_logarithmic_axis(figures):
    curves("a", "t", [Panel([Line("a", {0: [0.01, 4.0], 1: [3.0]})], "x", "y", scale="log")])
    assert figures[0].axes[0].get_ylim()[0] > 0.5


def test_range_is_kept(figures):
    curves("a", "t", [replace(PANEL, y_range=(0.0, 100.0))])
    assert figures[0].axes[0].get_ylim() == (0.0, 100.0)


def test_ticks_stand_at_the_points_and_numbers_apart(figures):
    line = Line("a", {x: [1.0] for x in (70, 80, 97, 98, 99)})
    curves("a", "t", [Panel([line], "x", "y")])
    axes = figures[0].axes[0]
    assert axes.get_xticks().tolist() == [70, 80, 97, 98, 99]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["70", "80", "97", "", "99"]


def test_stops_are_named_in_place_of_their_numbers(figures):
    line = Line("a", {0.0: [1.0], 1.0: [2.0], 2.0: [3.0]})
    drawn = curves("a", "t", [Panel([line], "density", "y", names={0.0: "50 %", 1.0: "20 %"})])
    axes = figures[0].axes[0]
    assert axes.get_xticks().tolist() == [0.0, 1.0, 2.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50 %", "20 %", "2"]
    assert {"50 %", "20 %"} <= set(texts(drawn))


def test_many_points_become_a_band(figures):
    curves("a", "t", [Panel([Line("a", {x: [1.0, 2.0] for x in range(40)})], "epoch", "y")])
    assert not figures[0].axes[0].containers
    assert len(figures[0].axes[0].collections) == 1


def test_long_labels_are_folded_not_cut():
    label = "a method with a rather long name, calibrated on noise, and measured again"
    drawn = curves("a", "t", [replace(PANEL, lines=[replace(LAMP, label=label)])])
    assert label in " ".join(texts(drawn))


@pytest.mark.parametrize(
    ("panel", "words"),
    [
        (replace(PANEL, lines=[]), "no lines"),
        (replace(PANEL, lines=[LAMP, LAMP]), "one label.*'lamp'"),
        (replace(PANEL, lines=[replace(SNIP, points={})]), "'snip'.*no values"),
        (replace(PANEL, lines=[replace(SNIP, points={80: []})]), "'snip'.*no value at 80"),
        (replace(PANEL, lines=[LAMP, replace(SNIP, points={80: [1.0, NAN]})]), "'snip'.*not finite at 80"),
        (replace(PANEL, lines=[replace(SNIP, points={NAN: [1.0]})]), "'snip'.*not finite"),
        (replace(PANEL, level=("dense", [])), "'dense'.*no value"),
        (replace(PANEL, lines=[replace(SNIP, points={80: [0.0]})], scale="log"), "'snip'.*logarithmic"),
    ],
)
def test_what_cannot_be_drawn_is_refused(panel, words):
    with pytest.raises(MeasureError, match=words):
        curves("a", "t", [PANEL, panel])


def test_a_figure_without_panels_or_rows_is_refused():
    with pytest.raises(MeasureError, match="one panel or more"):
        curves("a", "t", [])
    with pytest.raises(MeasureError, match="one row or more"):
        bars("a", "t", [], "x")


@pytest.mark.parametrize(
    ("row", "words"), [({}, "'fc'.*no values"), ({"kept": []}, "'fc'.*'kept'"), ({"kept": [NAN]}, "'fc'.*not finite at 'kept'")]
)
def test_a_bar_without_a_number_is_refused(row, words):
    with pytest.raises(MeasureError, match=words):
        bars("a", "t", [("conv", {"kept": [1.0]}), ("fc", row)], "weights")


ROWS = [("conv", {"kept": [3.0, 5.0], "dead": [0.0]}), ("fc", {"kept": [2000.0]}), ("gap", {"dead": [-1.5]})]


@pytest.mark.parametrize("scale", ["linear", "symlog"])
def test_every_bar_says_its_mean_and_zero_too(figures, scale):
    drawn = bars("a", "t", ROWS, "weights", scale=scale)
    assert drawn == bars("a", "t", ROWS, "weights", scale=scale)
    axes = figures[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["4", "0", "2,000", "−1.5"]
    assert [patch.get_width() for patch in axes.patches] == [4.0, 0.0, 2000.0, -1.5]
    assert [text.get_position()[0] for text in axes.texts] == [3, 3, 3, -3]  # points away from the end of the bar
    assert {"conv", "fc", "gap", "weights"} <= set(texts(drawn))
    assert texts(drawn).count("kept") == texts(drawn).count("dead") == 1


def test_bars_of_zeros_alone_are_drawn(figures):
    for scale in ("linear", "symlog"):
        assert "0" in texts(bars("a", "t", [("conv", {"": [0, 0]})], "dead channels", scale=scale))
        assert [text.get_text() for text in figures[-1].axes[0].texts] == ["0"]


def test_a_deviation_leaves_zero_only_where_values_do(figures):
    bars("a", "t", [("conv", {"": [0.0, 4.0]})], "channels")
    bars("a", "t", [("conv", {"": [-1.0, 4.0]})], "points")
    assert [figure.axes[0].get_xlim()[0] < 0 for figure in figures] == [False, True]


def test_the_smallest_bar_is_seen_on_a_symmetric_logarithmic_axis(figures):
    bars("a", "t", [("a", {"": [1.0]}), ("b", {"": [1e6]})], "x", scale="symlog")
    axes = figures[0].axes[0]
    small, large = (patch.get_window_extent().width for patch in axes.patches)
    assert 0.05 < small / large < 0.3
