"""The built book needs no network, its links lead somewhere, and everyone can read it, phones included."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Locator, Page

from autograder.exercises import stems
from autograder.levels import ROOT, find_level

DESKTOP, PHONE = 1280, 390


def pages_of(entry: dict) -> list[str]:
    """Return the pages that an entry of _toc.yml names, its sections included."""
    own = [entry[key] for key in ("root", "file") if key in entry]
    nested = [
        page
        for key in ("parts", "chapters", "sections")
        for part in entry.get(key, [])
        for page in pages_of(part)
    ]
    return own + nested


PAGES = pages_of(yaml.safe_load((ROOT / "_toc.yml").read_text()))
every_page = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(scope="session")
def book(tmp_path_factory) -> Path:
    """The folder of the book, built by the one command that `make book` uses."""
    output = tmp_path_factory.mktemp("book")
    command = [sys.executable, ROOT / "tools/build_book.py", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return output / "_build/html"


def test_every_chapter_and_its_exercises_are_in_the_table_of_contents():
    chapters = {f"chapters/{source.stem}" for source in ROOT.glob("chapters/level*.py")}
    exercises = {f"exercises/{find_level(stem).assignment}" for stem in stems()}
    assert chapters | exercises <= set(PAGES)


# Read as text


def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@every_page
def test_page_loads_nothing_from_elsewhere(book, page):
    loading = soup(book / f"{page}.html").select("[src], link[href], object[data], image[href]")
    addresses = [tag.get("src") or tag.get("href") or tag.get("data") for tag in loading]
    assert addresses
    assert [address for address in addresses if urlsplit(address).scheme not in ("", "data")] == []


def test_style_sheets_load_nothing_from_elsewhere(book):
    for sheet in book.rglob("*.css"):
        loaded = re.findall(
            r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"']+""", sheet.read_text(encoding="utf-8")
        )
        assert not loaded, sheet


@every_page
def test_links_within_the_book_lead_somewhere(book, page):
    here = book / f"{page}.html"
    for link in soup(here).select("a[href]"):
        parts = urlsplit(link["href"])
        if parts.scheme:
            continue
        target = (here.parent / unquote(parts.path)).resolve() if parts.path else here
        assert target.exists(), link
        if parts.fragment and target.suffix == ".html":
            assert soup(target).find(id=unquote(parts.fragment)), link


@every_page
def test_images_say_what_they_show(book, page):
    for image in soup(book / f"{page}.html").select("article img"):
        assert len(image.get("alt", "")) >= 20, image
        assert " " in image["alt"], f"a file name is no description: {image}"


# Read in a browser, with the network cut


@pytest.fixture
def visit(browser, book):
    """Return a function that opens a page of the book offline and waits for its formulas."""
    contexts = []

    def visit(page: str, scheme: str = "light", width: int = DESKTOP) -> Page:
        context = browser.new_context(
            offline=True,
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            reduced_motion="reduce",
        )
        contexts.append(context)
        tab = context.new_page()
        tab.complaints = []
        tab.on("console", lambda said: said.type == "error" and tab.complaints.append(said.text))
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.on("request", lambda sent: sent.url.startswith("http") and tab.complaints.append(sent.url))
        tab.goto((book / f"{page}.html").as_uri(), wait_until="load")
        tab.evaluate("window.MathJax?.startup?.promise")
        return tab

    yield visit
    for context in contexts:
        context.close()


@pytest.mark.browser
@every_page
def test_page_works_offline_without_a_complaint(visit, page):
    tab = visit(page)
    assert tab.complaints == []


@pytest.mark.browser
@every_page
def test_formulas_are_drawn(visit, page):
    tab = visit(page)
    raw = tab.locator(".math:not(:has(mjx-container))")
    assert raw.count() == 0, raw.all_inner_texts()
    assert tab.locator("mjx-merror").count() == 0


@pytest.mark.browser
@every_page
@pytest.mark.parametrize(("scheme", "width"), [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)])
def test_page_is_accessible(visit, page, scheme, width):
    tab = visit(page, scheme, width)
    assert tab.locator("html").get_attribute("data-theme") == scheme
    # preload would read the style sheets by XMLHttpRequest, which no browser allows from a folder.
    # The corner of a table may be empty. Labels must hold the text one sees, for those who say it aloud.
    rules = {"empty-table-header": False, "label-content-name-mismatch": True}
    options = {"preload": False, "rules": {rule: {"enabled": enabled} for rule, enabled in rules.items()}}
    found = Axe().run(tab, options=options)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.browser
@every_page
def test_page_fits_a_phone(visit, page):
    tab = visit(page, width=PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE


@pytest.fixture
def explorer(visit):
    """The first attention explorer of level 2."""
    return visit("chapters/level2_attention").locator("figure.attn").first


def told(explorer: Locator) -> str:
    return explorer.get_by_role("status").inner_text()


@pytest.mark.browser
def test_explorer_answers_to_the_arrow_keys(explorer):
    queries = explorer.locator("label").all_inner_texts()
    chosen = explorer.locator("input:checked")
    start = [box.is_checked() for box in explorer.get_by_role("radio").all()].index(True)
    chosen.focus()
    assert told(explorer).startswith(f"{queries[start]} attends to ")
    explorer.page.keyboard.press("ArrowDown")
    assert told(explorer).startswith(f"{queries[(start + 1) % len(queries)]} attends to ")


@pytest.mark.browser
def test_explorer_shows_the_weights_it_tells(explorer):
    for label in explorer.locator("label").all():
        label.click()
        weights = [float(text.split()[-1]) for text in explorer.locator("li").all_inner_texts()]
        assert abs(sum(weights) - 1) < 0.01 * len(weights)
        assert f"{max(weights):.2f}" in told(explorer)


@pytest.mark.browser
def test_explorer_goes_back_to_the_chosen_query_when_the_mouse_leaves(explorer):
    before = told(explorer)
    explorer.locator("label:not(:has(:checked))").first.hover()
    assert told(explorer) != before
    explorer.page.mouse.move(0, 0)
    assert told(explorer) == before


@pytest.mark.browser
def test_explorer_shows_its_first_query_without_script(browser, book):
    with browser.new_context(offline=True, java_script_enabled=False) as context:
        tab = context.new_page()
        tab.goto((book / "chapters/level2_attention.html").as_uri())
        figure = tab.locator("figure.attn").first
        assert " attends to " in told(figure)
        assert figure.locator("svg path").count() > 0
