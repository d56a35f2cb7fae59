"""The report looked at in a real browser: on a desk, on a phone, in the dark, by keyboard."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.faults import dropped_bias
from tests.page.browser import Tab, chromium, opened
from trt_qat.comparison.layerwise import compare_layers
from trt_qat.graph.load import load_graph
from trt_qat.graph.section import around
from trt_qat.page import SENSITIVITY, write
from trt_qat.runners.ort_tapped import OrtTapped

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt install chromium")

DESK, PHONE = (1400, 900), (390, 844)
FOCUSABLE = "a[href], button, input, select, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run with a fault put into its ONNX, so that every part is there."""
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(run_folder, folder)
    sound, faulty = folder / "model.onnx", folder / "faulty.onnx"
    fault = dropped_bias(onnx.load(sound), np.random.default_rng(1))
    assert fault is not None
    onnx.save(fault.model, faulty)
    images = np.random.default_rng(0).random((16, 1, 8, 8), dtype=np.float32)
    found = compare_layers(OrtTapped(sound), OrtTapped(faulty), [{"x": images}])
    assert found.first_divergence is not None
    compare = json.loads((folder / "compare.json").read_text())
    compare["layers"] = [asdict(layer) for layer in found.layers]
    compare["first_divergence"] = asdict(found.first_divergence)
    compare["section"] = around(load_graph(faulty), fault.node)
    (folder / "compare.json").write_text(json.dumps(compare))
    fp32 = json.loads((folder / "manifest.json").read_text())["artifacts"]["fp32.pt"]
    layers = [{"name": "stem.0", "alone_db": 38.8, "without_db": 37.4}]
    study = {"full_db": 35.9, "layers": layers, "suggestion": None, "fp32": fp32}
    (folder / SENSITIVITY).write_text(json.dumps(study))
    return write(folder)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    assert PROGRAM is not None
    with opened(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_is_loaded_and_nothing_is_wider_than_the_window(
    page: Path, tab: Tab, tmp_path: Path, size: tuple[int, int]
) -> None:
    tab.show(page, *size)
    assert tab.requests == [page.as_uri()]
    assert tab.value("document.documentElement.scrollWidth") <= size[0]
    picture = tab.picture(tmp_path / "page.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size > 50_000, "not a blank page"


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_text_is_outside_of_what_scrolls(page: Path, tab: Tab, size: tuple[int, int]) -> None:
    """Tables scroll in themselves; everything else fits, text in pictures too."""
    tab.show(page, *size)
    outside = """[...document.querySelectorAll('h1,h2,h3,p,li,summary,figcaption,svg text,.value')]
        .filter(e => !e.closest('.scroll') && !e.closest('.skip'))
        .filter(e => { const b = e.getBoundingClientRect();
                       return b.width && (b.left < -1 || b.right > innerWidth + 1) })
        .map(e => e.textContent)"""
    assert tab.value(outside) == []


def test_captions_are_whole_however_a_table_is_scrolled(page: Path, tab: Tab) -> None:
    """A caption is as wide as its table, which on a phone is wider than the window."""
    tab.show(page, *PHONE)
    outside = """[...document.querySelectorAll('caption')].filter(e => {
        const scroll = e.closest('.scroll'), words = document.createRange();
        words.selectNodeContents(e);
        return [0, scroll.scrollWidth].some(left => { scroll.scrollLeft = left;
            const b = words.getBoundingClientRect(), view = scroll.getBoundingClientRect();
            return b.width && (b.left < view.left - 1 || b.right > view.right + 1) })
    }).map(e => e.textContent)"""
    assert tab.value(outside) == []


def test_on_a_phone_no_column_is_hidden_and_none_scrolls_away(page: Path, tab: Tab) -> None:
    """Each row is a card there, with the titles in it."""
    tab.show(page, *PHONE)
    tab.value("document.querySelectorAll('details').forEach(e => { e.open = true })")
    hidden = """[...document.querySelectorAll('td:not([data-empty]), th[scope=row]')].filter(e => {
        const b = e.getBoundingClientRect();
        return !b.width || b.left < -1 || b.right > innerWidth + 1 }).map(e => e.textContent)"""
    assert tab.value(hidden) == []
    title = """getComputedStyle(document.querySelector('#layer-table td[data-label="zeros"]'),
        '::before').content"""
    assert "zeros" in tab.value(title)


ROWS = """[...document.querySelectorAll('#layer-table tbody tr')].filter(e => e.checkVisibility())
    .map(e => e.cells[0].textContent)"""


def test_layers_are_sorted_by_a_click_and_back(page: Path, tab: Tab) -> None:
    tab.show(page, *DESK)
    before = tab.value(ROWS)
    click = """[...document.querySelectorAll('#layer-table button')]
        .find(e => e.textContent == 'zeros').click()"""
    zeros = """[...document.querySelectorAll('#layer-table td[data-label="zeros"]')]
        .map(e => Number(e.dataset.v))"""
    tab.value(click)
    assert tab.value(zeros) == sorted(tab.value(zeros))
    tab.value(click)
    assert tab.value(zeros) == sorted(tab.value(zeros), reverse=True)
    assert tab.value("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == (
        "descending"
    )
    assert sorted(tab.value(ROWS)) == sorted(before)


def test_layers_are_filtered_by_word_and_kind(page: Path, tab: Tab) -> None:
    tab.show(page, *DESK)
    every = tab.value(ROWS)
    set_to = """(s, v) => { const e = document.querySelector('.filters ' + s); e.value = v;
        e.dispatchEvent(new Event(s == 'input' ? 'input' : 'change')) }"""
    tab.value(f"({set_to})('input', 'conv1')")
    assert tab.value(ROWS) == [name for name in every if "conv1" in name]
    tab.value(f"({set_to})('input', '')")
    tab.value(f"({set_to})('select', 'float')")
    assert tab.value(ROWS) == ["head"]
    assert tab.value("document.querySelector('.filters output').value") == f"1 of {len(every)}"


def test_printed_everything_is_open_and_black_on_white(page: Path, tab: Tab) -> None:
    tab.show(page, *DESK, dark=True)
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        shown = tab.value("""[getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('nav')).display]""")
        tab.value("dispatchEvent(new Event('beforeprint'))")
        closed = tab.value("[...document.querySelectorAll('details')].filter(e => !e.open).length")
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    assert shown == ["rgb(255, 255, 255)", "none"]
    assert closed == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_a_hundred_layers_of_long_names_fit_too(
    page: Path, tab: Tab, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    folder = tmp_path / "deep"
    shutil.copytree(page.parent, folder)
    for name, keys in (("preflight.json", ["layers"]), ("compare.json", ["weights", "histograms"])):
        document = json.loads((folder / name).read_text())
        for key in keys:
            document[key] = [
                item | {what: f"backbone.encoder.stages.{at}.{item[what]}"}
                for at in range(15)
                for item in document[key]
                for what in ["tensor" if key == "histograms" else "name"]
            ]
        (folder / name).write_text(json.dumps(document))
    deep = write(folder)
    tab.show(deep, *size, dark=dark)
    assert len(tab.value(ROWS)) == 15 * 7
    assert tab.value("document.documentElement.scrollWidth") <= size[0]
    cut = """[...document.querySelectorAll('#layer-table td')].filter(e => {
        const view = document.querySelector('#layer-table').parentElement.getBoundingClientRect();
        return e.getBoundingClientRect().right > view.right + 1 }).length"""
    assert tab.value(cut) == 0, "the table need not be scrolled"


def test_every_part_is_seen(page: Path, tab: Tab) -> None:
    tab.show(page, *PHONE)
    heights = tab.value("""Object.fromEntries(
        ['.intervals', '.errors', '.section-graph', '.two table', '.curves', '.first-divergence',
         '.facts', '.reasons', '.histograms svg', '.clip', '#layer-table']
        .map(s => [s, document.querySelector(s)?.getBoundingClientRect().height ?? 0]))""")
    assert min(heights.values()) > 5, heights
    titles = tab.value("""[...document.querySelectorAll('h2')]
        .map(e => e.firstChild.textContent.trim())""")
    assert {"PTQ against QAT", "Error, layer by layer", "Sensitivity to INT8"} <= set(titles)


def test_the_keyboard_reaches_everything_in_order(page: Path, tab: Tab) -> None:
    tab.show(page, *DESK)
    count = tab.value(f"""[...document.querySelectorAll("{FOCUSABLE}")]
        .filter(e => e.checkVisibility()).length""")
    assert count > 10
    tab.press("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    assert tab.value("document.activeElement.getBoundingClientRect().left") >= 0, "seen in focus"
    reached = []
    for _ in range(count - 1):
        tab.press("Tab")
        reached.append(
            tab.value("""(() => { const e = document.activeElement;
            const style = getComputedStyle(e);
            return [e.tagName, e.getBoundingClientRect().top + scrollY, style.outlineStyle] })()""")
        )
    assert {tag for tag, _, _ in reached} == {"A", "BUTTON", "INPUT", "SELECT", "SUMMARY", "DIV"}
    tops = [top for tag, top, _ in reached if tag in ("SUMMARY", "DIV")]
    assert tops == sorted(tops), "from the top down"
    assert all(outline != "none" for _, _, outline in reached), "focus is visible"


def test_the_skip_link_leads_to_the_content(page: Path, tab: Tab) -> None:
    tab.show(page, *DESK)
    tab.press("Tab")
    tab.press("Enter")
    assert tab.value("document.activeElement.id") == "content"


def test_details_open_by_keyboard(page: Path, tab: Tab) -> None:
    tab.show(page, *DESK)
    tab.value("document.querySelector('summary').focus()")
    tab.press("Enter")
    assert tab.value("document.querySelector('details').open")


CONTRAST = """(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => { const f = c => (c /= 255) <= .03928 ? c / 12.92
    : ((c + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b) };
  const back = e => { for (; e; e = e.parentElement) { const c = channels(
    getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c } };
  return [...document.querySelectorAll('h1,h2,p,td,th,li,caption,code,svg text,.value,.verdict')]
    .filter(e => e.textContent.trim() && e.checkVisibility()).map(e => {
      const style = getComputedStyle(e);
      const ink = channels(e.tagName == 'text' ? style.fill : style.color);
      const a = light(ink), b = light(back(e));
      return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.slice(0, 30)] })
    .sort((a, b) => a[0] - b[0])[0] })()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(page: Path, tab: Tab, dark: bool) -> None:
    """WCAG's 4.5 to 1 for every text."""
    tab.show(page, *DESK, dark=dark)
    least, text = tab.value(CONTRAST)
    assert least >= 4.5, text


def test_the_dark_page_is_dark_in_its_pictures_too(page: Path, tab: Tab, tmp_path: Path) -> None:
    colours = {}
    for dark in (False, True):
        tab.show(page, *DESK, dark=dark)
        colours[dark] = tab.value("""[getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('.errors circle.own')).fill,
            getComputedStyle(document.querySelector('.node rect')).fill]""")
    assert all(one != other for one, other in zip(colours[False], colours[True], strict=True))
    assert sum(map(int, re.findall(r"\d+", colours[True][0]))) < 150
