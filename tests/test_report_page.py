"""The report: what it says, that it is one safe file, and how it looks in a real browser."""

import json
import re
import subprocess
from contextlib import chdir

import pytest

from report_rows import HOSTILE, PROMPT, RAW, TEST, make_page
from tillmap.evaluation import charts
from tillmap.evaluation.page import commit

WIDE, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with hostile texts everywhere, in a file."""
    folder = tmp_path_factory.mktemp("report")
    file = folder / "index.html"
    file.write_text(make_page(folder / "plots"), encoding="utf-8")
    return file


def test_it_has_every_part_and_asks_for_nothing_from_elsewhere(page):
    html = page.read_text(encoding="utf-8")
    for part in ("arms", "slices", "coverage", "confusions", "retrievers", "costs", "rows", "labels", "run"):
        assert f'<section id="{part}">' in html
    for said in ("verdict worse", "calibration error", "0.05", "&lt;i&gt;data&lt;/i&gt;", "data.source", "tillmap 0."):
        assert said in html, said
    assert "6 labels changed, 0 confirmed, 0 rows added to training; 3 of the scored rows have" in html
    assert html.count('<svg role="img"') >= 9
    # Names of XML vocabularies are no requests.
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"(src|href)=\"(?!#|data:image/png)", html)


def test_no_text_becomes_html(page):
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == 2 == html.count("</script")
    assert not re.search(r"<(iframe|img|b|i|u|textarea)[ >]", html)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])
    for part in ("rows", "labels"):
        assert {row["text"].rpartition(" ")[0] for row in data[part]["rows"]} == set(HOSTILE)


def test_without_an_audit_there_is_no_part_about_labels(tmp_path):
    html = make_page(tmp_path, audited=False)
    assert '<section id="labels">' not in html and 'href="#labels"' not in html


def test_the_same_evaluation_gives_the_same_bytes(page, tmp_path):
    assert make_page(tmp_path) == page.read_text(encoding="utf-8")


def test_a_chart_is_drawn_with_the_colours_of_the_page_and_keeps_its_letters():
    table = charts.pd.DataFrame({"arm": ["<b>", "two"], "accuracy": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7]})
    drawing = charts.to_svg(charts.draw_arms(table), "arms")
    assert drawing.title == "Item accuracy by arm, with 95% intervals"
    assert drawing.svg.startswith("<svg role=") and "&lt;b&gt;</text>" in drawing.svg and "<b>" not in drawing.svg
    assert "var(--arm-0)" in drawing.svg and "var(--edge)" in drawing.svg
    assert not re.search("#0072b2|#ffffff|<style|<metadata", drawing.svg)


def test_the_commit_and_whether_the_code_differs_from_it(tmp_path):
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    with chdir(tmp_path):
        assert commit() == "not known"
        (tmp_path / "params.yaml").write_text("seed: 1\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "start"]):
            subprocess.run([*git, *words], check=True)
        assert re.fullmatch("[0-9a-f]{10}", commit())
        (tmp_path / "metrics.json").write_text("{}")
        assert re.fullmatch("[0-9a-f]{10}", commit())
        (tmp_path / "params.yaml").write_text("seed: 2\n")
        assert re.fullmatch("[0-9a-f]{10}, with uncommitted changes", commit())


@pytest.fixture
def opened(browser, page):
    """Opens the report on some screen. Nothing may be asked for, and no script of a text may run."""
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    contexts, problems, asked = [], [], []

    def open_on(**options):
        contexts.append(browser.new_context(offline=True, **{"viewport": WIDE, **options}))
        shown = contexts[-1].new_page()
        shown.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        shown.on("pageerror", lambda error: problems.append(str(error)))
        shown.on("console", lambda message: problems.append(message.text))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(page.as_uri())
        expect(shown.locator("#list > li").first).to_be_visible()
        return shown

    yield open_on
    for context in contexts:
        context.close()
    assert not problems
    assert {url for url in asked if not url.startswith("data:image/png")} == {page.as_uri()}


@pytest.mark.slow
def test_lines_labels_prompts_and_answers_show_as_text(opened):
    from playwright.sync_api import expect

    shown = opened()
    expect(shown.locator("#count")).to_have_text(f"{TEST + 40} of {TEST + 40} rows.")
    shown.locator("#more").click()
    lines = shown.locator("#list .head .line").all_text_contents()
    assert {line.rpartition(" ")[0] for line in lines} == set(HOSTILE)
    shown.locator("#arm").select_option("asked")
    expect(shown.locator("#count")).to_contain_text(f"asked was asked about {TEST} of them")
    shown.locator("#list .head").first.click()
    opened_row = shown.locator(".more")
    expect(opened_row).to_contain_text("onerror=alert(2)")
    assert opened_row.locator("pre").all_text_contents() == [PROMPT, RAW]
    expect(opened_row).to_contain_text("<u>text</u>")
    expect(opened_row.locator("table")).to_contain_text("snapped")
    assert shown.locator("img, b, i, u, iframe, main script").count() == 0


@pytest.mark.slow
def test_rows_are_searched_and_filtered(opened):
    from playwright.sync_api import expect

    shown = opened()
    count = shown.locator("#count")
    shown.locator("#search").fill("EVIL 9")
    found = shown.locator("#list .head .line").all_text_contents()
    assert found and all("evil" in line for line in found)
    shown.locator("#search").fill("")
    shown.locator("#result").select_option("wrong")
    expect(shown.locator("#list > li.right")).to_have_count(0)
    expect(shown.locator("#list > li.wrong").first).to_be_visible()
    shown.locator("#result").select_option("right")
    expect(shown.locator("#list > li.wrong")).to_have_count(0)
    shown.locator("#result").select_option("all")
    shown.locator("#set").select_option("others")
    expect(count).to_have_text(f"40 of {TEST + 40} rows.")
    shown.locator("#set").select_option("all")
    shown.locator("#arm").select_option("asked")
    shown.locator("#repair").select_option("snapped")
    expect(count).to_contain_text(f"{TEST} of {TEST + 40} rows.")
    shown.locator("#repair").select_option("none")
    expect(count).to_contain_text("0 of")


@pytest.mark.slow
def test_labels_that_look_wrong_are_shown_with_their_evidence_and_searched(opened):
    from playwright.sync_api import expect

    shown = opened()
    section = shown.locator("#labels")
    expect(section).to_contain_text("An estimated 5.0% (3.0% to 7.0%) of the 60 labelled rows have a wrong label")
    expect(section.locator("#label-count")).to_have_text("50 of 50 labels.")
    shown.locator("#label-level").select_option("group")
    head = section.locator(".head")
    expect(head).to_have_count(1)
    head.click()
    opened_row = section.locator(".more")
    expect(opened_row).to_contain_text("looks wrong from group on")
    expect(opened_row.locator("tbody tr").first).to_contain_text("the model, trained without it5.0%80.0%")
    expect(opened_row).to_contain_text(f"{HOSTILE[3]} 3")
    shown.locator("#label-level").select_option("")
    shown.locator("#label-search").fill("EVIL 9")
    expect(head.first).to_contain_text("evil")
    assert all("evil" in text for text in head.all_text_contents())
    assert shown.locator("img, b, i, u, iframe, main script").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_and_can_be_read(opened, size, scheme):
    shown = opened(viewport=size, color_scheme=scheme)
    shown.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    for each in ("#list", "#label-list"):
        shown.locator(f"{each} .head").first.click()
    assert shown.evaluate("document.documentElement.scrollWidth") <= size["width"]
    letters = shown.evaluate(
        """[...document.querySelectorAll(".charts text")].map((text) => {
            const { a, b } = text.getScreenCTM(); // some texts are turned
            return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
        })"""
    )
    assert min(letters) >= 8  # pixels
    light = shown.evaluate(
        """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("svg text")).fill]
           .map((colour) => colour.match(/\\d+/g).slice(0, 3).map(Number).reduce((one, other) => one + other) / 765)"""
    )
    assert abs(light[0] - light[1]) > 0.6 and (light[0] > 0.5) == (scheme == "light")
