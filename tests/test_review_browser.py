"""The page of `tillmap review` in a real browser, with the keyboard alone, on a wide screen and a phone's."""

import json

import pytest
from playwright.sync_api import expect

from review_rows import COFFEE, CREME, GREEN, LEVELS, SCRIPT, TEA, serving, write_project
from tillmap.review.decisions import read_decisions

pytestmark = pytest.mark.slow
expect.set_options(timeout=60_000)  # a busy machine fails nothing
WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


class Screen:
    """A page in the browser, and everything in it that must not happen."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**{"viewport": WIDE, **options})
        self.page = self.context.new_page()
        self.problems, self.asked = [], []
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)
        expect(self.page.locator("#main")).to_be_visible()

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def decide(self, key):
        """Press a key, and wait until the page has counted the decision: it takes one at a time."""
        counts = self.page.locator("#counts")
        before = counts.text_content()
        self.press(key)
        expect(counts).not_to_have_text(before)

    def shows(self, text):
        expect(self.page.locator("#text")).to_have_text(text)

    def says(self, text):
        expect(self.page.locator("#said")).to_contain_text(text)

    def focused(self):
        return self.page.evaluate("document.activeElement.id")


@pytest.fixture
def folder(tmp_path):
    return write_project(tmp_path)


@pytest.fixture
def screen(browser, folder):
    with serving(folder) as (process, address):
        screen = Screen(browser, address)
        screen.process, screen.address = process, address
        yield screen
        outside = [url for url in screen.asked if not url.startswith(address)]
        assert not outside
        assert not screen.problems
        screen.context.close()


def written(*labels):
    return " \u203a ".join(labels)


def decided(folder):
    log = read_decisions(folder / "data/decisions.jsonl", LEVELS)
    return {row.text: decision.labels for row, decision in log.current()}


def test_a_person_with_a_keyboard_alone(screen, folder):
    screen.shows("Crème fraîche")
    assert screen.focused() == "accept"
    screen.press("Enter")  # accept, with the twin
    screen.says(f"Saved (2 rows): {written(*CREME)}")
    screen.shows("TEA BAGS 80")
    screen.press("1")  # the first candidate
    screen.says(f"Saved: {written(*GREEN)}")
    screen.shows("<script>alert(1)</script>")
    screen.press("x")
    screen.says("Saved: can't tell")
    screen.press("u")
    screen.says("Undone: can't tell")
    screen.shows("<script>alert(1)</script>")
    screen.press("j")
    screen.shows("<img src=x onerror=alert(2)>")
    screen.press("j")
    screen.shows("\u202eevil \u0645\u0631\u062d\u0628\u0627 & <b>bold</b>")
    screen.press("k")
    screen.shows("<img src=x onerror=alert(2)>")
    screen.press("/")
    assert screen.focused() == "query"
    screen.page.keyboard.type("BRUMA hot")
    expect(screen.page.locator("#found li")).to_have_count(1)
    screen.press("Escape")
    assert screen.focused() == "accept"
    screen.press("/")
    screen.page.keyboard.type("tea")
    expect(screen.page.locator("#found li[aria-selected=true]")).to_have_count(1)  # those of all three letters are here
    expect(screen.page.locator("#found li")).to_have_count(2)
    screen.press("ArrowDown", "Enter")
    screen.says(f"Saved: {written(*GREEN)}")
    assert decided(folder) == {
        "Crème fraîche": LEVELS.of(CREME),
        "CREME FRAICHE": LEVELS.of(CREME),
        "TEA BAGS 80": LEVELS.of(GREEN),
        "<img src=x onerror=alert(2)>": LEVELS.of(GREEN),
    }


def test_the_focus_is_always_visible_and_each_thing_can_be_reached(screen):
    screen.shows("Crème fraîche")
    names = set()
    for _ in range(14):
        shown = screen.page.evaluate(
            """() => {
                const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
                const element = document.activeElement;
                return [element.id || element.textContent, element === document.body || outlineStyle !== "none"];
            }"""
        )
        assert shown[1], shown
        names.add(shown[0])
        screen.press("Tab")
    assert {"accept", "query", "twins-too", "next", "undo", "unsure"} - names <= {
        "undo"
    }  # there is nothing to undo yet
    unnamed = screen.page.locator("button:not([aria-label])").all()
    assert all(button.text_content().strip() for button in unnamed)


def test_lines_and_labels_that_hold_html_are_text(screen):
    for place in range(6):
        expect(screen.page.locator("#place")).to_contain_text(f"{place + 1} of 6")
        assert screen.page.locator("img, b, i, body script").count() == 0
        screen.press("j")
    screen.press("/")
    screen.page.keyboard.type("script")
    expect(screen.page.locator("#found li .above")).to_have_text("Home")
    expect(screen.page.locator("#found li .label")).to_have_text(written(*SCRIPT[1:]))


def test_a_held_or_a_doubled_key_decides_one_row(screen, folder):
    screen.shows("Crème fraîche")
    for _ in range(5):
        screen.page.keyboard.down("Enter")  # all but the first are repeats
    screen.says("Saved")
    screen.shows("TEA BAGS 80")
    screen.page.keyboard.up("Enter")
    for _ in range(5):
        screen.page.keyboard.down("x")
    screen.says("Saved: can't tell")
    screen.page.keyboard.up("x")
    screen.shows("<script>alert(1)</script>")
    assert len(decided(folder)) == 3
    screen.page.locator("#next").focus()
    screen.press("Enter")
    screen.shows("<img src=x onerror=alert(2)>")
    assert screen.focused() == "next", "a second press must not accept"
    assert len(decided(folder)) == 3


def test_a_twin_can_be_left_out(screen, folder):
    screen.shows("Crème fraîche")
    expect(screen.page.locator("#twins-title")).to_have_text("1 more row with this line")
    expect(screen.page.locator("#place")).to_have_text("1 of 6, 2 rows with this line")
    screen.press("t", "Enter")
    screen.says("Saved: Dairy")
    assert list(decided(folder)) == ["Crème fraîche"]


def test_all_decided_and_a_server_that_is_gone(screen, folder):
    for key in ("Enter", "Enter", "x", "x", "Enter", "x"):
        screen.decide(key)
    expect(screen.page.locator("#forecast")).to_have_text(
        "All rows are decided. The decisions are in data/decisions.jsonl."
    )
    screen.process.kill()
    screen.process.wait()
    screen.press("x")
    expect(screen.page.locator("#problem")).to_contain_text("The server does not answer. Everything that was shown")
    screen.problems.clear()  # the browser's own note of the lost connection
    assert len(decided(folder)) == 7


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(browser, tmp_path, size, scheme):
    long = [("W" * 300, SCRIPT, 0.2), ("TEA " * 60, TEA, 0.3), ("COFFEE 1KG", COFFEE, 0.4)]
    with serving(write_project(tmp_path, long)) as (_, address):
        screen = Screen(browser, address, viewport=size, color_scheme=scheme)
        for place in range(len(long)):
            expect(screen.page.locator("#place")).to_have_text(f"{place + 1} of {len(long)}")
            wide = screen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= size["width"]
            expect(screen.page.locator("#accept")).to_be_in_viewport()
            expect(screen.page.locator("#unsure")).to_be_in_viewport()
            screen.press("j")
        assert not screen.problems
        screen.context.close()


def test_ten_thousand_rows_are_as_quick_as_ten(browser, tmp_path):
    rows = [(f"line {number}", TEA, 0.5) for number in range(10_000)]
    with serving(write_project(tmp_path, rows)) as (_, address):
        screen = Screen(browser, address)
        expect(screen.page.locator("#counts")).to_have_text("0 decided, 10,000 left")
        screen.press("Enter")
        expect(screen.page.locator("#counts")).to_have_text("1 decided, 9,999 left")
        nodes = screen.page.evaluate("document.querySelectorAll('*').length")
        assert nodes < 150
        sizes = [len(json.dumps(screen.page.evaluate("fetch('start').then(r => r.json())")))]
        assert max(sizes) < 3000
        screen.context.close()
