"""How a figure becomes part of a page: ids of its own, text left alone, settings put back."""

import re
import sys

import matplotlib
import pytest

from spikeprune.errors import MissingExtra
from spikeprune.report.drawing import COLORS, draw, embed, folded, looks, short


def paint(figure):
    figure.subplots().set_title('a <b> & "c" id="x" $d$')


def ids(svg):
    return {found for tag in re.findall(r"<[^>]*>", svg) for found in re.findall(r'\sid="([^"]*)"', tag)}


def test_two_figures_share_no_id_and_refer_to_their_own():
    one, two = draw("one", "a title", 2.0, paint), draw("two", "a title", 2.0, paint)
    assert ids(one)
    assert not ids(one) & ids(two)
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', one)) <= ids(one)


def test_without_a_prefix_they_would_clash():
    svg = '<?xml?><svg width="1pt"><g id="axes"/></svg>'
    assert ids(svg) & ids(svg.replace("xml", "other"))
    assert not ids(embed(svg, "one", "")) & ids(embed(svg, "two", ""))


def test_equal_input_gives_equal_text_without_a_date():
    assert draw("one", "a title", 2.0, paint) == draw("one", "a title", 2.0, paint)
    assert "metadata" not in draw("one", "a title", 2.0, paint)


def test_text_stays_as_it_is():
    assert 'a &lt;b&gt; &amp; "c" id="x" $d$' in draw("one", "a title", 2.0, paint)


def test_title_is_escaped():
    assert 'aria-label="a &lt;&quot;&amp;"' in draw("one", 'a <"&', 2.0, paint)


def test_size_is_left_to_the_page():
    head = draw("one", "a title", 2.0, paint).split(">")[0]
    assert "viewBox" in head
    assert "width=" not in head
    assert "height=" not in head


def test_settings_are_put_back_and_not_believed():
    before = matplotlib.rcParams["font.size"]
    plain = draw("one", "a title", 2.0, paint)
    try:
        matplotlib.rcParams["font.size"] = 30
        assert draw("one", "a title", 2.0, paint) == plain
        assert matplotlib.rcParams["font.size"] == 30
    finally:
        matplotlib.rcParams["font.size"] = before


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"spikeprune\[recipes\]"):
        draw("one", "a title", 2.0, paint)


def test_looks_differ_though_colours_start_over():
    labels = [f"method {i}" for i in range(2 * len(COLORS))]
    found = looks(["dense", *labels])
    assert len({(look.color, look.hatch) for look in found.values()}) == len(labels) + 1
    assert len({(look.color, look.marker, str(look.line)) for look in found.values()}) == len(labels) + 1
    assert looks(labels)["method 1"] == found["method 1"]


def test_long_names_are_cut_in_the_middle_or_folded():
    assert short("") == "(model)"
    assert short("abcdefghij", 6) == "ab…hij"
    assert folded("fc1") == "fc1"
    assert folded("features.block10.convolution") == "features.block10.\nconvolution"
    assert max(map(len, folded("x" * 100).split("\n"))) <= 22
