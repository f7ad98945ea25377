import json
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from tx_course.explorer import attention_explorer
from tx_course.plots import _STYLE, BLUE, CARD, GREEN, INK, MUTED, ORANGE, PURPLE, heatmap, house_style

WORDS = ["i", "have", "a", "dream"]
WEIGHTS = torch.tensor(
    [[0.1, 0.5, 0.2, 0.2], [0.47, 0.1, 0.13, 0.3], [0.05, 0.15, 0.1, 0.7], [0.3, 0.47, 0.13, 0.1]]
)


def luminance(colour: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


@pytest.mark.parametrize(
    ("colour", "least"), [(INK, 7), (MUTED, 4.5), (BLUE, 3), (ORANGE, 3), (GREEN, 3), (PURPLE, 3)]
)
def test_ink_and_lines_stand_out_from_the_card(colour, least):
    assert (luminance(CARD) + 0.05) / (luminance(colour) + 0.05) >= least


def test_lines_differ_in_marker_as_well_as_colour():
    markers = [line["marker"] for line in _STYLE["axes.prop_cycle"]]
    assert len(set(markers)) == len(markers)


def test_house_style_gives_every_later_figure_the_card():
    with plt.rc_context():
        house_style()
        assert plt.figure().get_facecolor()[:3] == pytest.approx(to_rgb(CARD))
        plt.close()


def test_heatmap_names_rows_and_columns_and_writes_each_weight():
    axes = heatmap(WEIGHTS[:2], ["x", "y"], WORDS)
    assert [label.get_text() for label in axes.get_xticklabels()] == WORDS
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    assert [text.get_text() for text in axes.texts] == [f"{w:.2f}" for w in WEIGHTS[:2].flatten()]
    plt.close()


def test_heatmap_text_is_light_on_dark_cells_and_dark_on_light_ones():
    axes = heatmap([[0.05, 0.95]], ["q"], ["a", "b"])
    assert [text.get_color() for text in axes.texts] == [INK, "white"]
    plt.close()


@pytest.mark.parametrize("draw", [heatmap, attention_explorer])
def test_names_that_do_not_fit_the_weights_are_refused(draw):
    with pytest.raises(ValueError, match=r"got \(4, 4\)"):
        draw(WEIGHTS, WORDS, WORDS[:3])


def test_explorer_gives_the_same_bytes_for_the_same_weights():
    assert attention_explorer(WEIGHTS, WORDS, WORDS).html == attention_explorer(WEIGHTS, WORDS, WORDS).html


def test_two_explorers_on_a_page_do_not_share_their_radio_buttons():
    first, second = (attention_explorer(w, WORDS, WORDS).html for w in (WEIGHTS, WEIGHTS.T))
    assert set(re.findall(r'name="([^"]+)"', first)).isdisjoint(re.findall(r'name="([^"]+)"', second))


def test_explorer_asks_for_nothing_outside_the_page():
    html = attention_explorer(WEIGHTS, WORDS, WORDS)._repr_html_()
    assert not re.search(r"https?:|//\w|src=|@import|url\(", html)
    assert len(html) < 8192


def test_console_says_whom_the_first_query_attends_to():
    explorer = attention_explorer(WEIGHTS, WORDS, WORDS, start=3)
    assert repr(explorer) == "dream attends to have: 0.47, i: 0.30, a: 0.13"


def test_start_must_be_a_query():
    with pytest.raises(ValueError, match="one of the 4 queries, got 4"):
        attention_explorer(WEIGHTS, WORDS, WORDS, start=4)


class Reader(HTMLParser):
    """Collects what is visible without script, and checks that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "input":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4),
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4),
)
def test_any_text_may_name_a_query_or_a_key(queries, keys):
    weights = torch.full((len(queries), len(keys)), 1 / len(keys))
    html = attention_explorer(weights, queries, keys).html
    reader = Reader()
    reader.feed(html)
    assert reader.open == [] and reader.tags.count("script") == 1
    assert reader.tags.count("input") == len(queries) and reader.tags.count("li") == len(keys)


def test_without_script_the_first_query_its_lines_and_all_weights_are_there():
    html = attention_explorer(WEIGHTS, WORDS, WORDS, start=3).html
    reader = Reader()
    reader.feed(html)
    assert html.count('<path class="on"') == 4
    numbers = [text for text in reader.text if re.fullmatch(r"\d\.\d\d", text)]
    assert numbers == [f"{w:.2f}" for w in [*WEIGHTS[3], *WEIGHTS.flatten()]]


def test_several_heads_get_a_menu_and_all_their_weights():
    heads = torch.stack([WEIGHTS, WEIGHTS.flip(1)])
    html = attention_explorer(heads, WORDS, WORDS).html
    assert html.count("<option") == 2
    stored = json.loads(re.search(r"W=(\[.*?\]),Q=", html).group(1))
    assert torch.allclose(torch.tensor(stored), heads, atol=1e-4)


@pytest.fixture
def show(browser, tmp_path):
    """Opens an explorer as a page from the disk, as wide as a telephone."""
    contexts = []

    def open_page(html, theme="light", **options):
        page_html = (
            f'<!doctype html><html lang="en" data-theme="{theme}"><title>Explorer</title><main><h1>1</h1>'
        )
        (tmp_path / "page.html").write_text(page_html + html, encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": 390, "height": 800}, **options))
        page = contexts[-1].new_page()
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


def said(page):
    return page.locator("[role=status]").inner_text()


@pytest.mark.browser
def test_arrow_keys_choose_the_query_and_the_live_text_says_whom_it_attends_to(show):
    page = show(attention_explorer(WEIGHTS, WORDS, WORDS).html)
    assert said(page) == "i attends to have: 0.50, a: 0.20, dream: 0.20"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    assert said(page) == "dream attends to have: 0.47, i: 0.30, a: 0.13"
    assert page.locator("path.on").count() == 4


@pytest.mark.browser
def test_pointing_at_a_query_shows_it_until_the_pointer_leaves(show):
    page = show(attention_explorer(WEIGHTS, WORDS, WORDS).html)
    page.locator("label").nth(2).hover()
    assert said(page).startswith("a attends to dream: 0.70")
    page.locator("h1").hover()
    assert said(page).startswith("i attends to")


@pytest.mark.browser
def test_choosing_a_head_changes_the_lines_and_the_table(show):
    page = show(attention_explorer(torch.stack([WEIGHTS, WEIGHTS.flip(1)]), WORDS, WORDS).html)
    page.locator("select").select_option("1")
    assert said(page).startswith("i attends to a: 0.50")
    assert page.locator("tbody td").nth(2).text_content() == "0.50"


@pytest.mark.browser
def test_the_script_draws_the_same_picture_as_the_page_without_script(show):
    html = attention_explorer(WEIGHTS, WORDS, WORDS, start=3).html
    drawn = [
        show(html, java_script_enabled=script).evaluate(
            "[...document.querySelectorAll('path')].map(p => [p.getAttribute('d'), p.className.baseVal,"
            "...['width', 'opacity'].map(name => +(+p.getAttribute('stroke-' + name)).toFixed(3))])"
        )
        for script in (True, False)
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_bars_anyone_from_the_explorer_and_it_fits_a_telephone(show, theme):
    page = show(attention_explorer(torch.stack([WEIGHTS, WEIGHTS]), WORDS, WORDS).html, theme)
    page.locator("summary").click()
    assert [violation["id"] for violation in Axe().run(page).response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
