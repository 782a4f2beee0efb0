"""The report in a real browser, headless: nothing breaks, nothing is fetched, sorting and filtering work.

Needs Debian's `chromium` (or another Chromium on the path); where there is none, the tests are skipped and say so.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest

from dfeat.report.page import write_report

from .predictions import small_settings
from .test_report import CAPTIONS, EVIL, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium on the path; `apt-get install chromium` lets the report be tested in a browser",
)
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        arguments = ["--disable-gpu", "--disable-background-networking"]
        chromium = running.chromium.launch(
            executable_path=CHROMIUM, args=arguments, chromium_sandbox=hasattr(os, "getuid") and os.getuid() != 0
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("run")
    write_run(run, small_settings(note=EVIL))
    out = run / "report" / "index.html"
    write_report(run, small_settings(note=EVIL), out, CAPTIONS)
    return out.as_uri()


class Opened:
    """A page with what it said and what it asked for."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.page = browser.new_page(**{"viewport": WIDE, **options})
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(".chart svg")
        self.page.wait_for_selector("#gallery .controls:not([hidden])")

    def expect(self, locator: Any) -> Any:
        """Playwright's assertions, which wait: DataTables sorts and filters after the event, not within it."""
        return import_module("playwright.sync_api").expect(locator)

    def column(self, table: str, place: int) -> list[str]:
        """The first lines of a column's cells, as shown."""
        cells = self.page.locator(f"#{table} tbody tr > :nth-child({place})").all_inner_texts()
        return [text.split("\n")[0] for text in cells]

    def shown(self) -> list[str]:
        """Class and PSNR of each image shown in the gallery, and the methods of its pictures."""
        rows = self.page.locator("#gallery-table tbody tr").all()
        return [
            " | ".join(
                [row.locator("th").inner_text(), row.locator("td").nth(1).inner_text()]
                + [cell.get_attribute("data-method") for cell in row.locator("td[data-method]").all()]
            )
            for row in rows
        ]


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    opened = Opened(browser, address)
    yield opened
    opened.page.close()


def test_it_loads_without_an_error_and_asks_for_nothing(opened: Opened, address: str) -> None:
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("data:")] == [address]
    assert opened.page.locator(".chart svg").count() == 4
    assert opened.page.locator("h1").inner_text() == "D-Feat Occlusions: run synthetic"
    assert EVIL in opened.page.locator(".note").first.inner_text()


def test_a_click_on_a_head_sorts_by_the_number(opened: Opened) -> None:
    before = opened.column("table1-1", 5)
    head = opened.page.locator("#table1-1 thead tr:last-child th").nth(2)
    for order in ("ascending", "descending"):
        head.click()
        opened.expect(head).to_have_attribute("aria-sort", order)
        values = [float(re.match(r"[\d.]+", text)[0]) for text in opened.column("table1-1", 5)]
        assert values == sorted(values, reverse=order == "descending") and opened.column("table1-1", 5) != before


def test_the_keyboard_sorts_and_filters_too(opened: Opened) -> None:
    page = opened.page
    page.locator("#tables input").first.focus()
    page.keyboard.type("CutMix")
    opened.expect(page.locator("#tables")).to_contain_text("2 rows (of 6)")
    assert set(opened.column("table1-1", 1)) == {"CutMix"}
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('table')?.id") == "table1-1"
    page.keyboard.press("Enter")
    opened.expect(page.locator("#table1-1 [aria-sort]")).to_have_text(["Augmentation Method"])


def test_a_long_table_filters_by_a_list_of_values(opened: Opened) -> None:
    page = opened.page
    page.locator("#tables summary").first.click()
    page.locator("#table1-cells thead .dtcc-button").nth(1).click()
    page.locator(".dtcc-dropdown .dtcc-list-buttons button", has_text="CutMix").click()
    opened.expect(page.locator("#table1-cells_info")).to_contain_text("(of ")
    assert set(opened.column("table1-cells", 2)) == {"CutMix"}


def test_the_gallery_filters_by_class_and_method_and_sorts_by_likeness(opened: Opened) -> None:
    page = opened.page
    methods = "Original | Black-Out Parts | SD Inpaint"
    assert len(opened.shown()) == 4 and opened.shown()[3] == f"tench | 13.0 | {methods}"
    page.select_option("#gallery-class", "car")
    assert opened.shown() == [f"car | {psnr} | {methods}" for psnr in ("11.0", "12.0")]
    page.select_option("#gallery-method", "SD Inpaint")
    assert opened.shown() == [f"car | {psnr} | Original | SD Inpaint" for psnr in ("11.0", "12.0")]
    page.select_option("#gallery-class", "")
    page.select_option("#gallery-order", "desc")
    assert opened.column("gallery-table", 3) == ["13.0", "12.0", "11.0", "10.0"]
    page.select_option("#gallery-method", "")
    page.select_option("#gallery-class", EVIL)  # shown, and chosen, literally
    assert opened.shown() == [f"{EVIL} | 10.0 | {methods}"]
    assert opened.said == []


def test_a_phone_shows_the_page_without_scrolling_sideways(browser: Any, address: str) -> None:
    opened = Opened(browser, address, viewport=NARROW, is_mobile=True, has_touch=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    assert opened.said == []
    opened.page.close()


def test_a_phone_shows_every_caption_whole(browser: Any, address: str) -> None:
    """ "Demo, not a replication" and n stand above a table that scrolls, wherever it is scrolled to."""
    opened = Opened(browser, address, viewport=NARROW, is_mobile=True, has_touch=True)
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for share in (0, 0.5, 1):
        page.evaluate(
            "s => document.querySelectorAll('.dt-layout-full').forEach(e => e.scrollLeft = s * e.scrollWidth)", share
        )
        assert (page.locator("#table1-cells").bounding_box()["x"] < 0) == (share > 0)
        boxes = [caption.bounding_box() for caption in page.locator("caption").all()]
        assert len(boxes) > 6
        for box in boxes:
            assert box and box["width"] > 200 and box["x"] >= 0 and box["x"] + box["width"] <= NARROW["width"], share
    assert page.locator("#table1-1 caption").evaluate("e => e.scrollWidth <= e.clientWidth")
    assert page.locator("#table1-cells").bounding_box()["width"] > NARROW["width"]
    page.close()


def test_a_phone_shows_the_first_number_of_every_row_without_scrolling(browser: Any, address: str) -> None:
    opened = Opened(browser, address, viewport=NARROW, is_mobile=True, has_touch=True)
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    tables = page.locator("table.data:has(td.number)").all()
    assert len(tables) >= 6
    for table in tables:
        first = table.locator("tbody td.number").first
        name, edge = table.get_attribute("id"), first.evaluate("e => e.getBoundingClientRect().right")
        assert 0 < edge <= NARROW["width"], name
        head = table.locator("tbody th").first
        table.evaluate("e => e.parentElement.scrollLeft = 9999")
        assert head.evaluate("e => e.getBoundingClientRect().left") >= 0, f"{name}: the row's head is scrolled away"
    row = page.locator("#table1-1 tbody tr").first
    assert not row.locator("th").nth(1).is_visible()
    assert "ConvNeXt" in row.locator("th").first.evaluate("e => getComputedStyle(e, '::after').content")
    page.close()


def test_it_prints_on_a_few_sheets_without_what_only_a_screen_has(opened: Opened) -> None:
    pdf = opened.page.pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12
    opened.page.emulate_media(media="print")
    for hidden in (".hint", ".dt-search", ".claims details", "#gallery .controls"):
        assert opened.page.locator(hidden).count()
        assert not opened.page.locator(hidden).first.is_visible(), hidden
    assert opened.page.locator("#findings li").first.is_visible()
    assert opened.page.locator(".claims table").first.is_visible()


def test_open_tables_fit_a_desktop(opened: Opened) -> None:
    wide = opened.page.evaluate(
        """() => [...document.querySelectorAll('table.data')].filter(
             e => !e.closest('details:not([open])') && e.scrollWidth > e.parentElement.clientWidth
           ).map(e => e.id)"""
    )
    assert wide == []


def test_charts_of_one_question_share_their_range(opened: Opened) -> None:
    def ticks(chart: str) -> list[str]:
        return opened.page.locator(f"[data-spec={chart}] .role-axis-label").last.locator("text").all_text_contents()

    for question in ("chart-1", "chart-2"):
        assert len(ticks(f"{question}-1")) > 2 and ticks(f"{question}-1") == ticks(f"{question}-2")


def _colours(page: Any, selector: str) -> tuple[float, float]:
    """Lightness of an element's text, and of the body's background, 0 to 1."""
    texts = page.evaluate(
        "s => [getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    shades = [[float(part) for part in text[4:-1].split(",")[:3]] for text in texts]
    return sum(shades[0]) / 765, sum(shades[1]) / 765


def test_a_dark_page_is_dark_and_a_printed_one_is_not(browser: Any, address: str) -> None:
    opened = Opened(browser, address, color_scheme="dark")
    for selector in ("h1", "#table1-1 tbody td", "#table1-1 tbody td small", ".chart svg text"):
        ink, paper = _colours(opened.page, selector)
        assert paper < 0.2 and ink > 0.6, selector
    opened.page.emulate_media(media="print")
    ink, paper = _colours(opened.page, "#table1-1 tbody td")
    assert ink < 0.3 < 0.9 < paper
    assert not opened.page.locator("header nav").is_visible()
    opened.page.set_viewport_size({"width": 680, "height": 1000})  # A4 without its margins
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 680
    assert opened.page.locator("#table1-1").evaluate("e => e.getBoundingClientRect().right") <= 680
    opened.page.close()


def test_without_scripts_the_tables_and_pictures_are_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#table1-1 tbody tr").count() == 6
    assert page.locator("#gallery-table img").count() == 12
    assert not page.locator("#gallery .controls").is_visible()
    context.close()


def test_everything_that_can_be_used_can_be_reached_and_is_named(opened: Opened) -> None:
    """Each control has a name, each picture a text, and headings skip no level."""
    unnamed = opened.page.evaluate(
        """() => [...document.querySelectorAll('input, select, button, a, summary')].filter(e =>
             !(e.labels?.length || e.ariaLabel || e.innerText?.trim() || e.textContent.trim() || e.title)
           ).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []
    assert opened.page.locator("img:not([alt]), img[alt='']").count() == 0
    levels = opened.page.evaluate("() => [...document.querySelectorAll('h1,h2,h3,h4')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
