"""The report in a browser: headless Chromium, offline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import attacked, chip_records, cost, on_grid, on_memory

from noiseproof import report

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing(what: str, remedy: str) -> None:
    """Skip with the remedy; where CI is set a missing browser is a failure."""
    reason = f"{what} is missing: {remedy}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the Python package playwright", "pip install playwright")
        raise
    if not shutil.which(CHROMIUM):
        missing("the Debian package chromium", "apt-get install -y --no-install-recommends chromium chromium-driver")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def file(full_runs, tmp_path) -> Path:
    path = tmp_path / "report.html"
    report.write(full_runs, path, title="Checked in a browser")
    return path


@pytest.fixture
def file_with_long_names(make_run, tmp_path) -> Path:
    path = tmp_path / "long.html"
    name = "Forward noise and the adversary on the weights together, " * 3
    report.write([make_run(chip_records(k, {0.3: [0.7, 0.8]}), name=f"{name}{k}", kind=k) for k in ("standard", "dropout")], path)
    return path


@pytest.fixture
def file_of_comparison(make_run, tmp_path) -> Path:
    """Two tasks, with chips through time, on a grid, and a sweep of the training."""
    path = tmp_path / "comparison.html"
    runs = []
    for data in ("fashion-mnist", "ecg"):
        runs.append(make_run([*on_memory(f"{data}0", 0.9, 0.05), *on_grid(f"{data}0", 0.9, 0.9), *cost(f"{data}0", 1)], data=data))
        for beta in (0.05, 0.1, 0.5):
            run, loss = f"{data}{beta}", 0.02 - 0.03 * beta
            records = [*on_memory(run, 0.92, loss), *on_grid(run, 0.92, 0.3), *cost(run, 12)]
            method = {"beta_rob": beta, "zeta_attack": 0.1, "steps": 10}
            runs.append(make_run(records, name=f"β, beta_rob {beta}", kind="weight-adversary", data=data, method=method))
    report.write(runs, path, title="Comparison", required=0.85)
    return path


@pytest.fixture
def open_page(browser, file):
    """Open the report offline and collect what it asks for and complains about."""
    contexts = []

    def opened(**options):
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.requests, page.complaints = [], []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


def methods_of(page) -> list[str]:
    return [text.strip() for text in page.locator("table.sortable").first.locator("tbody th").all_text_contents()]


def test_it_opens_offline_and_asks_for_nothing(open_page, file):
    page = open_page()
    assert page.title() == "Checked in a browser"
    page.mouse.wheel(0, 100_000)
    page.emulate_media(media="print")
    assert page.requests == [file.as_uri()]
    assert page.complaints == []


def test_columns_sort_by_click_and_by_keyboard(open_page):
    page = open_page()
    table = page.locator("table.sortable").first
    header = table.locator("thead th").filter(has_text="ζ = 0.7").first
    before = methods_of(page)

    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    best_first = methods_of(page)
    assert best_first != before
    assert best_first[0] == "forward noise + β"
    assert best_first[-1] == "standard"

    header.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert methods_of(page) == best_first[::-1]

    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") is None
    assert table.locator("th[aria-sort]").count() == 1

    table.locator("thead th").first.get_by_role("button").click()
    assert methods_of(page) == sorted(before)


def test_without_javascript_the_table_is_complete(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("table.sortable").first.locator("tbody tr").count() == 5
    assert page.locator("button").count() == 0


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_no_page_is_wider_than_its_screen(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    for details in page.locator("details").all():
        details.evaluate("element => { element.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside = page.locator(".scroll").first.evaluate("element => [element.scrollWidth, element.clientWidth]")
    assert width > 375 or inside[0] > inside[1], "the wide table scrolls in its own frame"


def test_long_names_fit_a_phone(open_page, file_with_long_names):
    page = open_page(viewport={"width": 375, "height": 800})
    page.goto(file_with_long_names.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert texts_outside(page) == []


def test_dark_and_light_have_contrast(open_page):
    seen = []
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        body = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        text = page.locator("svg.figure text").first.evaluate("element => getComputedStyle(element).fill")
        assert contrast(*body) > 12
        assert contrast(body[0], text) > 12
        panel = page.locator("figure").first.evaluate("element => getComputedStyle(element).backgroundColor")
        for index in range(8):
            colour = page.evaluate(COLOUR_OF, f"--series-{index}")
            assert contrast(panel, colour) > 4, f"series {index}, {scheme}"
        for index in range(6):
            assert contrast(panel, page.evaluate(COLOUR_OF, f"--level-{index}")) > 4, f"level {index}, {scheme}"
        seen.append(body[0])
    assert seen[0] != seen[1]


COLOUR_OF = "name => { document.body.style.outlineColor = `var(${name})`; return getComputedStyle(document.body).outlineColor }"


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2 for two rgb(…) colours."""

    def luminance(colour: str) -> float:
        channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : colour.index(")")].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_print_shows_all_on_white(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("nav").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    assert len(page.pdf(format="A4")) > 10_000


def test_every_picture_says_what_it_shows(open_page):
    page = open_page()
    pictures = page.locator("svg:not([aria-hidden=true])")
    assert pictures.count() > 10
    assert page.get_by_role("img").count() == pictures.count()
    for picture in pictures.all():
        title, description = (picture.locator(f"xpath=./*[local-name()='{tag}']").text_content() for tag in ("title", "desc"))
        assert title
        assert any(character.isdigit() for character in description)
        assert picture.get_attribute("aria-labelledby")


def test_figures_keep_their_text_inside(open_page):
    """Fonts differ from machine to machine: no axis label may be cut off."""
    assert texts_outside(open_page()) == []


def texts_outside(page) -> list[str]:
    return page.evaluate("""[...document.querySelectorAll("svg.figure")].flatMap(svg => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter(text => {
            const r = text.getBoundingClientRect();
            return r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1;
        }).map(text => text.textContent);
    })""")


def test_a_comparison_fits_a_phone_and_its_list_of_chapters_leads_somewhere(open_page, file_of_comparison):
    page = open_page(viewport={"width": 375, "height": 800})
    page.goto(file_of_comparison.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert texts_outside(page) == []
    links = page.locator("nav a").all()
    assert len(links) > 10
    for link in links:
        assert page.locator(f"[id='{link.get_attribute('href')[1:]}']").count() == 1
    assert page.get_by_role("heading", level=2).all_text_contents() == ["Summary", "fashion-mnist", "ecg", "Provenance"]
    assert page.complaints == []


PIXEL_OF = """cell => {
    const canvas = document.createElement("canvas").getContext("2d");
    for (const colour of [getComputedStyle(document.body).backgroundColor, getComputedStyle(cell).backgroundColor]) {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
    }
    return `rgb(${[...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)})`;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_heat_maps_are_readable_and_their_shades_differ(open_page, file_of_comparison, scheme):
    page = open_page(color_scheme=scheme)
    page.goto(file_of_comparison.as_uri())
    fields = page.locator("table.heat").first.locator("td").all()
    shades = {field.evaluate(PIXEL_OF) for field in fields}
    assert len(shades) > 4
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert min(contrast(shade, ink) for shade in shades) > 4.5
    assert page.locator("table.heat button").count() == 0, "the rows of a heat map have their order"


@pytest.fixture
def file_under_attack(make_run, tmp_path) -> Path:
    """Two honest methods, and one whose gradients lead nowhere."""
    path = tmp_path / "attack.html"
    runs = [
        make_run(attacked(f"{k}{s}", 0.88, left + 0.01 * s), kind=k, seed=s)
        for k, left in (("standard", 0.05), ("hire", 0.3))
        for s in (0, 1)
    ]
    report.write([*runs, make_run(attacked("masked", 0.88, 0.52, masked=True), kind="masked")], path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_banner_of_a_failed_check_cannot_be_missed(browser, file_under_attack, scheme):
    from playwright.sync_api import expect

    with browser.new_context(offline=True, viewport={"width": 360, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(file_under_attack.as_uri())
        for details in page.locator("details").all():
            details.evaluate("element => { element.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert texts_outside(page) == []
        banner = page.get_by_role("alert")
        assert banner.count() == 1
        assert banner.bounding_box()["y"] < 200, "it stands above everything but the title"
        assert "Accuracy under attack of masked" in banner.inner_text().replace("\xa0", " ")
        paper = banner.evaluate("element => getComputedStyle(element).backgroundColor")
        for part in (banner, banner.locator(".kind"), banner.get_by_role("link")):
            assert contrast(paper, part.evaluate("element => getComputedStyle(element).color")) > 4.5
        banner.get_by_role("link").click()
        expect(page.locator("#checks")).to_be_in_viewport()
        page.emulate_media(media="print", color_scheme=scheme)
        assert banner.is_visible()
        assert banner.evaluate("element => getComputedStyle(element).borderTopWidth") == "3px"
