"""The page holds every number of the tables, asks the network for nothing, and trusts no label."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from outcomes import comparison, report
from spikeprune.errors import MeasureError, MissingExtra
from spikeprune.report.compare import CAPTION, TITLES, Comparison
from spikeprune.report.curves import Line, Panel, curves
from spikeprune.report.page import Claim, Plot, Section, render
from spikeprune.report.tables import Table

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADS = {"src", "srcset", "href", "xlink:href", "data", "poster", "action"}


class Reader(HTMLParser):
    """Collects text, ids and what would be loaded; says which tags are not closed in turn."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.ids, self.loads, self.wrong, self.tags = [], [], [], [], [], []
        self.feed(page)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.loads += [value for name, value in attrs if name in LOADS and tag != "a"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes something else")

    def handle_data(self, data):
        self.texts.append(data.replace("\u00a0", " "))

    @property
    def text(self):
        return "\n".join(self.texts)

    @property
    def outside(self):
        """What is loaded from elsewhere: neither a fragment of the page nor inline data."""
        return [value for value in self.loads if not value.startswith(("#", "data:"))]


def pages():
    return {
        "three seeds": comparison().to_html(),
        "one seed": comparison(seeds=(0,)).to_html(),
        "two groups": comparison(groups=("a budget", "another")).to_html(),
        "dense alone": comparison(labels=("dense",)).to_html(),
        "no dense": comparison(labels=("cqp",)).to_html(),
        "no rates": comparison(report=report(rates={})).to_html(),
        "nothing": Comparison((), {}).to_html(),
        "one network": report(0.1).to_html(),
        "one silent network": report(0.0, rates={}).to_html(),
    }


@pytest.fixture(scope="module")
def made():
    return {name: (page, Reader(page)) for name, page in pages().items()}


NAMES = [
    "three seeds", "one seed", "two groups", "dense alone", "no dense", "no rates", "nothing", "one network", "one silent network",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_page_is_whole_and_self_contained(made, name):
    page, read = made[name]
    assert page.startswith("<!DOCTYPE html>")
    assert read.wrong == []
    assert read.outside == []
    assert len(read.ids) == len(set(read.ids))
    assert "script" not in read.tags
    assert "@import" not in page
    assert "url(http" not in page


def test_the_reader_sees_what_is_wrong():
    assert Reader("<p><b></p></b>").wrong
    assert Reader("<p>").wrong
    assert Reader('<img src="https://example.org/a.png">').outside == ["https://example.org/a.png"]
    assert Reader('<a href="https://example.org">').outside == []


@pytest.mark.parametrize("name", ["three seeds", "one seed"])
def test_every_title_and_number_of_the_table_is_there(made, name):
    source = comparison() if name == "three seeds" else comparison(seeds=(0,))
    texts = [" ".join(text.split()) for text in made[name][1].texts]
    cells = [cell for row in source.rows("a budget") for cell in row]
    assert set(TITLES) | set(cells) <= set(texts)
    assert CAPTION in texts
    assert "made by hand" in texts


def test_one_seed_shows_no_deviation(made):
    assert "±" in "".join(made["three seeds"][1].texts)
    assert "±" not in "".join(text for text in made["one seed"][1].texts if text != CAPTION)


def test_every_figure_has_words_and_a_name(made):
    page, read = made["three seeds"]
    assert read.tags.count("figure") == read.tags.count("figcaption") == page.count('role="img"') == 4
    assert read.text.count("standard deviation of 3 seeds") == 4
    assert "validation split" in read.text


def test_without_rates_the_page_says_so(made):
    assert made["no rates"][1].tags.count("figure") == 3
    assert "No spike rates" in made["no rates"][1].text
    assert "No spike rates" not in made["three seeds"][1].text


def test_groups_are_named_and_linked(made):
    page, _ = made["two groups"]
    assert '<a href="#group-1">another</a>' in page
    assert '<section id="group-1"' in page


def test_one_network_shows_totals_layers_and_source(made):
    text = made["one network"][1].text
    for part in ("10.00 %", "244 of 2,440 weights", "fc1", "fc3", "MAC", "a made-up table", "T = 4 timesteps", "python 3.12.0"):
        assert part in text


def test_labels_are_escaped_wherever_they_stand():
    label = '<script>alert("&amp;")</script>'
    odd = replace(report(0.1), uncounted=(label,), rates={label: [0.1]}, energy_source=label, versions={label: label})
    source = comparison(labels=("dense", label), groups=(label,), report=odd)
    read = Reader(Comparison(source.outcomes, {label: {label: label}}).to_html())
    assert "script" not in read.tags
    assert read.wrong == []
    assert read.text.count(label) > 10


def test_equal_outcomes_give_an_equal_page(made):
    assert comparison().to_html() == made["three seeds"][0]


def test_page_is_the_same_in_another_process(made):
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); from outcomes import comparison; sys.stdout.reconfigure(encoding='utf-8'); "
    again = subprocess.run(
        [sys.executable, "-c", code + "sys.stdout.write(comparison().to_html())"],
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert again.stdout == made["three seeds"][0]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_names_its_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package}.*spikeprune\[recipes\]"):
        report().to_html()


def test_neither_package_is_imported_with_spikeprune():
    code = "import sys, spikeprune.report, spikeprune.report.page; assert not {'jinja2', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


VERDICTS = ("reproduced", "partly", "refuted", "not tested")


def study(words="a claim", **changes):
    """A page of two sections, every text of the first of which is `words`."""
    drawn = curves("figure", words, [Panel([Line(words, {1: [1.0]})], words, words, words, {1: words})])
    table = Table((words, words), [(words, words)], words, words, frozenset({1}))
    section = Section(
        "first", words, claims=[Claim(words, words, words, verdict) for verdict in VERDICTS], text=[words, words],
        tables=[table], plots=[Plot(drawn, words)], details=[table], details_title=words,
    )  # fmt: skip
    sections = [replace(section, **changes), Section("second", "another")]
    return render(words, sections, intro=f"{words}\n\n{words}", lead=words, footer={words: words})


def test_a_study_is_whole_and_trusts_no_text():
    odd = '<script>alert("&amp;")</script>'
    read = Reader(study(odd))
    assert read.wrong == []
    assert read.outside == []
    assert "script" not in read.tags
    assert read.text.count(odd) > 30
    assert study(odd) == study(odd)


def test_claims_are_a_table_with_verdicts_in_words():
    page = study()
    read = Reader(page)
    assert [text for text in read.texts if text in VERDICTS] == list(VERDICTS)
    assert [text for text in read.texts if text in ("claim", "paper", "here", "verdict")] == ["claim", "paper", "here", "verdict"]
    assert page.count('role="rowheader"') == page.count('data-title="paper"') == page.count('data-title="here"') == 4
    assert "1 reproduced, 1 partly, 1 refuted, 1 not tested" in read.text
    assert 'class="claims"' not in study(claims=())


def test_an_unknown_verdict_is_refused():
    with pytest.raises(MeasureError, match=r"'maybe'.*reproduced, partly, refuted, not tested"):
        Claim("a claim", "1", "2", "maybe")


def test_claims_come_first_then_prose_then_tables_then_figures():
    page = study()
    places = [page.index(mark) for mark in ('id="first-title"', 'class="claims"', 'class="text"', "<h3>", "<figure", "<details")]
    assert places == sorted(places)


def test_what_a_section_lacks_leaves_no_trace(made):
    bare = Reader(render("a study", [Section("only", "a section")]))
    assert {"figure", "dl", "details", "table", "nav", "h3"} & set(bare.tags) == set()
    assert "How it was made" in Reader(study(notes={"seed": "0"})).text
    assert "How it was made" not in Reader(study()).text
    assert "How it was made" in made["one network"][1].text


def test_only_a_comparison_says_what_is_compared(made):
    lead = "Networks are compared within a group, never across groups."
    assert lead in made["two groups"][1].text
    assert lead not in Reader(study()).text


def test_details_keep_their_title_unless_given(made):
    assert "Numbers of each layer" in made["three seeds"][1].text
    assert "Numbers of each layer" not in Reader(study()).text


def test_details_say_each_caption_once_in_a_row():
    first, second = (Table(("a",), [("b",)], caption, "name") for caption in ("one caption", "two captions"))
    read = Reader(study(details=[first, first, second]))
    assert (read.texts.count("one caption"), read.texts.count("two captions")) == (1, 1)


def test_columns_of_words_are_marked():
    assert '<td class="prose">a claim</td>' in study()
    assert 'class="prose"' not in report().to_html()


def test_a_figure_is_wide_when_it_says_so_or_stands_alone(made):
    plot = Plot("<svg></svg>", "words")
    assert study(plots=[plot]).count('<figure class="wide">') == 1
    assert study(plots=[plot, plot]).count('<figure class="wide">') == 0
    assert study(plots=[replace(plot, wide=True), plot]).count('<figure class="wide">') == 1
    assert '<figure class="wide">' not in made["three seeds"][0]


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("name", ["good", "half", "bad", "open"])
def test_badges_can_be_read_in_light_and_dark(name):
    page = study()
    papers, inks = (re.findall(rf"--{name}{end}: (#[0-9a-f]{{6}})", page) for end in ("", "-ink"))
    assert len(papers) == len(inks) == 2
    for paper, ink in zip(papers, inks, strict=True):
        dark, light = sorted((luminance(paper), luminance(ink)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5
