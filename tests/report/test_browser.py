"""The page in a real browser: it draws, it listens to mouse and keys, and it asks the network for nothing."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import HARSH, bowl, write_run

from landscape_lab.report import write_report

playwright = pytest.importorskip("playwright.sync_api")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
EXECUTABLE = next((path for name in BROWSERS if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium or Chrome on the path")
TABS = [
    "overview",
    "surfaces",
    "trajectories",
    "curvature",
    "quality",
    "similarity",
    "noise",
    "groups",
    "tables",
    "recipe",
]
# A pane's contour plot as plotly holds it: z, the hover's true values, and the colours' ends.
PANE = """side => {
  const plot = document.querySelector(`[data-pane=${side}] .flat`), trace = plot.data[0];
  const rows = (array) => array.map(row => [...row]);
  return {z: rows(trace.z), true: rows(trace.customdata), low: trace.zmin, high: trace.zmax};
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    runs = {HARSH: write_run(folder / "one"), "two": write_run(folder / "two", height=9.0, groups=False, seed=1)}
    write_report(runs, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as program:
        # Software rendering: WebGL without a graphics card.
        options = ["--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        opened = program.chromium.launch(executable_path=EXECUTABLE, args=options)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def loaded(browser: Any, report: Path) -> Iterator[tuple[Callable[..., Any], list[str]]]:
    """A page for each width and colour scheme, loaded once, and what went wrong in any of them."""
    problems: list[str] = []
    pages: dict[tuple[int, str], Any] = {}

    def page_of(width: int, scheme: str) -> Any:
        if (width, scheme) not in pages:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.set_default_timeout(120_000)
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda request: problems.append(request.url) if request.url != report.as_uri() else None)
            page.goto(report.as_uri())
            pages[width, scheme] = page
        return pages[width, scheme]

    yield page_of, problems
    for page in pages.values():
        page.close()


@pytest.fixture
def show(loaded: tuple[Callable[..., Any], list[str]]) -> Iterator[Callable[..., Any]]:
    """Show a tab; at the end there must have been no error, no dialog and no request but for the page itself."""
    page_of, problems = loaded

    def opened(tab: str = "overview", *, width: int = 1440, scheme: str = "dark") -> Any:
        page = page_of(width, scheme)
        page.locator(f"#tab-{tab}").click()
        return page

    yield opened
    assert problems == []


@pytest.mark.parametrize(("width", "scheme"), [(1440, "dark"), (420, "light")])
def test_every_tab_draws(show: Callable[..., Any], width: int, scheme: str) -> None:
    page = show(width=width, scheme=scheme)
    tabs = page.locator("[role=tab]")
    assert [tab.get_attribute("aria-controls") for tab in tabs.all()] == TABS
    charts = 0
    for tab in tabs.all():
        tab.click()
        panel = page.locator(f"#{tab.get_attribute('aria-controls')}")
        assert panel.is_visible()
        assert page.locator("[role=tabpanel]:visible").count() == 1
        for chart in panel.locator(".chart:visible").all():
            chart.locator(".main-svg").first.wait_for()
            # Something of the data is there: a curve, or the picture of a heat map.
            assert chart.locator(".trace path.js-line, .hm image").count() > 0, chart.get_attribute("aria-label")
            charts += 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab.text_content()
    assert charts >= 15


def test_the_slider_moves_both_surfaces(show: Callable[..., Any]) -> None:
    page = show("surfaces")
    page.locator("[data-pane=left] .solid canvas").first.wait_for()
    slider = page.locator("#epoch-slider")
    slider.press("End")
    scales = set()
    for epoch in (4, 2, 0):
        assert slider.get_attribute("aria-valuetext") == f"epoch {epoch}"
        for side, height, more in (("left", 4.0, 0.1), ("right", 8.0, 0.3)):
            pane = page.evaluate(PANE, side)
            expected = bowl(height, epoch, more)
            assert pane["true"] == [pytest.approx(row, rel=1e-5) for row in expected.tolist()]
            assert pane["z"] == [pytest.approx(row, rel=1e-4, abs=1e-6) for row in expected.log10().tolist()]
            scales.add((pane["low"], pane["high"]))
        slider.press("ArrowLeft")
    assert len(scales) == 1  # head and tail, at all epochs, on one scale
    # Every loss of both runs: from 0.1 at epoch 0 to 4 + 18 * 0.5 + 0.3.
    assert scales.pop() == pytest.approx((-1.0, math.log10(13.3)), rel=1e-5)


def test_linear_scale_accuracy_and_another_run(show: Callable[..., Any]) -> None:
    page = show("surfaces")
    page.locator("#epoch-slider").press("End")
    page.locator("input[name=surface-scale][value=linear]").check()
    pane = page.evaluate(PANE, "left")
    assert pane["z"] == [pytest.approx(row, rel=1e-5) for row in bowl(4.0, 4, 0.1).tolist()]
    page.locator("[data-pane=left] select").first.select_option(label="two")
    assert page.evaluate(PANE, "left")["z"][0][0] == pytest.approx(4 + 9 * 0.5 + 0.1, rel=1e-5)
    page.locator("input[name=surface-quantity][value=accuracy]").check()
    pane = page.evaluate(PANE, "left")
    assert pane["z"][0][0] == pytest.approx(1 / (1 + 8.6), rel=1e-5)
    assert (pane["low"], pane["high"]) == (0, 1)
    page.locator("input[name=surface-quantity][value=loss]").check()
    page.locator("input[name=surface-scale][value=log]").check()
    page.locator("[data-pane=left] select").first.select_option(label=HARSH)


def test_surfaces_turn_together(show: Callable[..., Any]) -> None:
    page = show("surfaces")
    page.locator("[data-pane=right] .solid canvas").first.wait_for()
    page.evaluate("""() => Plotly.relayout(document.querySelector('[data-pane=left] .solid'),
        {'scene.camera': {eye: {x: 2, y: 0.5, z: 0.25}, up: {x: 0, y: 0, z: 1}, center: {x: 0, y: 0, z: 0}}})""")
    page.wait_for_function(
        "() => document.querySelector('[data-pane=right] .solid').layout.scene.camera.eye.x === 2", timeout=10_000
    )


def test_tabs_by_keyboard(show: Callable[..., Any]) -> None:
    page = show()
    selected = lambda: page.locator("[role=tab][aria-selected=true]").get_attribute("aria-controls")  # noqa: E731
    keys = {"ArrowRight": "surfaces", "End": "recipe", "Home": "overview", "ArrowLeft": "recipe"}
    for key, expected in keys.items():
        page.keyboard.press(key)
        assert selected() == expected
        assert page.evaluate("document.activeElement.id") == f"tab-{expected}"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # the focus is seen
    assert page.locator("[role=tab][tabindex='0']").count() == 1
    page.keyboard.press("ArrowRight")
    assert selected() == "overview"  # round the end
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "overview"


def test_names_are_text(show: Callable[..., Any]) -> None:
    page = show()
    assert page.locator("h1").count() == 1
    finding = page.locator(".findings li:visible p").first
    assert finding.inner_text() == f"Class {HARSH} loses 0.5 ± 0.1."
    labels = page.locator("#overview .chart:visible .xtick text").all_text_contents()
    assert any(HARSH in label for label in labels)
    assert HARSH in page.locator("#overview .chart:visible .legendtext").first.text_content()
    page.locator("#tab-surfaces").click()
    assert page.locator("[data-pane=left] select").first.locator("option").first.text_content() == HARSH
    assert page.evaluate("document.querySelectorAll('script').length") == 3


def test_controls_choose_what_is_shown(show: Callable[..., Any]) -> None:
    page = show("quality")
    titles = lambda: page.locator("#quality figure:visible h3").all_text_contents()  # noqa: E731
    assert titles() == [f"Head and tail: {HARSH}", f"Each class, training images: {HARSH}"]
    page.locator("#quality [data-control=run] input[value='1']").check()
    assert titles() == ["Head and tail: two", "Each class, training images: two"]


def test_the_theme_changes_the_charts(show: Callable[..., Any]) -> None:
    page = show("quality")
    ink = "getComputedStyle(document.querySelector('#quality figure:not([hidden]) .xtick text')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    page.locator("#quality .xtick text:visible").first.wait_for()
    dark = page.evaluate(ink), page.evaluate(ground)
    page.locator("input[name=theme][value=light]").check()
    light = page.evaluate(ink), page.evaluate(ground)
    page.locator("input[name=theme][value=auto]").check()
    brightness = [
        sum(map(int, "".join(c if c.isdigit() else " " for c in text).split()[:3])) for text in (*dark, *light)
    ]
    assert brightness[0] > 500 > brightness[1]
    assert brightness[2] < 300 < brightness[3]


def test_everything_is_printed(show: Callable[..., Any]) -> None:
    page = show()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("[role=tabpanel]:visible").count() == len(TABS)
    assert page.locator("[role=tablist]:visible").count() == 0
    every = "[...document.querySelectorAll('.chart')].every(e => e.closest('[hidden]') || e.querySelector('.main-svg'))"
    page.wait_for_function(f"() => {every}")
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("[role=tabpanel]:visible").count() == 1


def test_without_scripts_the_texts_and_tables_are_there(browser: Any, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert page.locator("noscript p").is_visible()
    assert page.locator("table:visible").count() > 5
    page.close()
