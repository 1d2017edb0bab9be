"""The page in a real browser: nothing goes wrong in it, nothing is wider than the window, no figure is lost or cut."""

import html
import json
import re
import shutil
import subprocess

import pytest

from outcomes import comparison, report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")

WIDTHS = (1280, 390)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1400,1000",
)  # fmt: skip

# A window cannot be as narrow as a phone, a frame can. The frames share the wrapper's origin, so it can measure them.
PROBE = """<script>
window.addEventListener("error", event => parent.problems.push(String(event.message || event.target.outerHTML)), true);
console.error = (...words) => parent.problems.push(words.join(" "));
</script>"""
WRAPPER = """<!DOCTYPE html><meta charset="utf-8"><script>var problems = [];</script>%s<pre id="found"></pre><script>
function look(frame) {
  const page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach(one => one.open = true);
  const figures = [...page.querySelectorAll("svg")].map(svg => {
    const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
    const texts = [...svg.querySelectorAll("text")].filter(text => text.textContent.trim());
    const cut = texts.filter(text => {
      const own = text.getBoundingClientRect();
      return own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1;
    });
    return {width: box.width, height: box.height, cut: cut.map(text => text.textContent),
            smallest: Math.min(...texts.map(text => scale * parseFloat(getComputedStyle(text).fontSize)))};
  });
  return {page: root.scrollWidth, window: frame.contentWindow.innerWidth, figures: figures};
}
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(look);
  document.getElementById("found").textContent = JSON.stringify({problems: problems, frames: found});
};
</script>"""


def seen(page, folder):
    """Load a page at every width; give the problems it met and the measures of each frame."""
    source = html.escape(page.replace("<head>", f"<head>{PROBE}", 1), quote=True)
    frames = "".join(f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{source}"></iframe>' for width in WIDTHS)
    file = folder / "wrapper.html"
    file.write_text(WRAPPER % frames, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=120).stdout
    found = re.search(r'<pre id="found">(.+?)</pre>', dom, re.DOTALL)
    assert found, "the wrapper never measured the page"
    measured = json.loads(html.unescape(found[1]))
    return measured["problems"], dict(zip(WIDTHS, measured["frames"], strict=True))


LONG = tuple(f"a method <{i}> with a rather long name" for i in range(8))
PAGES = {
    "comparison": lambda: comparison().to_html(),
    "long names": lambda: comparison(("dense", *LONG), seeds=(0, 1), groups=("a budget", "x" * 200)).to_html(),
    "one network": lambda: report(0.1).to_html(),
}


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_and_shows_every_figure(name, tmp_path):
    page = PAGES[name]()
    problems, frames = seen(page, tmp_path)
    assert problems == []
    for width, frame in frames.items():
        assert frame["window"] == width
        assert frame["page"] <= width
        assert len(frame["figures"]) == page.count("<svg")
        for figure in frame["figures"]:
            assert min(figure["width"], figure["height"]) > 60
            assert figure["cut"] == []
            assert figure["smallest"] >= 8.5


def test_a_table_outside_its_box_is_noticed(tmp_path):
    page = comparison().to_html().replace('class="scroll"', 'class="loose"')
    assert seen(page, tmp_path)[1][390]["page"] > 390


def test_a_script_error_a_lost_image_and_a_logged_error_are_noticed(tmp_path):
    broken = '<script>console.error("logged"); missing();</script><img src="nowhere.png"></body>'
    problems, _ = seen(report().to_html().replace("</body>", broken), tmp_path)
    assert len(problems) == 2 * 3
    assert any("missing is not defined" in problem for problem in problems)


def test_a_hidden_and_a_cut_figure_are_noticed(tmp_path):
    page = report().to_html()
    hidden = page.replace("figure svg {", "figure svg { display: none; } figure b {")
    assert all(figure["width"] == 0 for figure in seen(hidden, tmp_path)[1][1280]["figures"])
    wide = page.replace("figure svg text {", "figure svg text { letter-spacing: 40px;")
    (tmp_path / "wide").mkdir()
    assert any(figure["cut"] for figure in seen(wide, tmp_path / "wide")[1][1280]["figures"])
