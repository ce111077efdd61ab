"""Amounts as people write them are read; what is no amount is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.catalogue.amounts import find_mark, parse_amount

FULL_WIDTH, ARABIC = "\uff11\uff0c\uff19\uff19", "\u0661\u0662\u066b\u0665"
READ = {
    1.99: ["1.99", "1,99", " 1.99 ", "€ 1,99", "1,99€", "1.99 EUR", "usd 1.99", "US$1.99", "R$ 1,99", "1,99 zł",
           "1,99 Kč", "kr. 1,99", "Fr. 1.99", FULL_WIDTH, "\u200e1,99\u200b", "1,99\xa0€",
           "+1.99", "1.9900", "1,99 A", "1.99 *B",
           "1.99*", "1.99T", "€1,99 B", "'1.99", '="1,99"', '"1.99"', "$1.99 USD", "USD 1.99 $", "$US 1.99", "R1.99",
           "S/. 1.99", "1,99 TL", "1.99 ر.س", "1.99 บาท", "199¢", "AFN 1.99"],
    -1.5: ["-1.5", "-1,50", "1,50-", "- 1,50 €", "€-1.50", "-€1.50", "1.50 €-", "\u22121,50", "\u20131,50", "(1,50)",
           "(€1.50)", "( 1.50 )", "$(1.50)", "(1,50) €",
           "\u20141.50", "-1,50 A", "1,50- B"],
    1234.56: ["1.234,56", "1,234.56", "1 234,56", "1\xa0234,56", "1\u202f234,56", "1'234.56", "1\u2019234.56",
              "1\u00b4234.56",
              "1\u02bc234,56",
              "1234,56"],
    1234567.0: ["1.234.567", "1,234,567", "1 234 567", "1'234'567", "1234567", "12,34,567.00"],
    0.455: ["0,455", "0.455", ",455", ".455"],
    12.0: ["12", "12.-", "CHF 12.-", "12,--", "12,-", "1.2e1", "12.\u2014", "₹12/-", "Rs. 12/-",
           "12/=", "12円", "１２円", "12 元", "12원"],
    12000.0: ["Rp12.000,-", "12'000.-", "12,000.--"],
    0.5: ["0,5", "50¢", "50 ¢"],
    12.5: [ARABIC],
}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [(value, text) for value, texts in READ.items() for text in texts])
def test_amounts_that_mean_the_same_in_every_file(value, text):
    assert parse_amount(text) == parse_amount(text, ",") == value


@pytest.mark.parametrize(
    ("text", "point", "comma"), [("1,234", 1234, 1.234), ("1.234", 1.234, 1234), ("-12,345", -12345, -12.345)]
)
def test_three_digits_after_one_mark_are_read_as_the_file_writes(text, point, comma):
    assert (parse_amount(text), parse_amount(text, ",")) == (point, comma)


REFUSED = ["", " ", "-", "€", "cheap", "nan", "inf", "-inf", "1e999", "1_000", "2 X 3.39€", "X12", "5 KG", "3-4", "--1",
           "(-1)", "(1.50", "1.50)", "1,234,56", "1.2.3", "1.234,567.8", "1 2", "12 34", "€1€", "1.5.", "1,,5", "0x10",
           "12:30", "1\u2079\u2079", "$1\u2079\u2079", "½", "1½", "\u2460", "kr 1 kr", "$1 £", "USD 1 EUR",
           "500 G", "1.5 L", "1.5K", "1.99 AB", "()", "(1)(2)", "1(2)", "01/02/2024", "9" * 400, "1" * 61]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_amount_is_refused(text):
    assert parse_amount(text) is None and parse_amount(text, ",") is None


@given(st.text(max_size=12) | st.text("0123456789.,-()€ '", max_size=12))
def test_any_text_is_a_number_or_none(text):
    value = parse_amount(text)
    assert value is None or math.isfinite(value)


@given(
    cents=st.integers(-(10**9), 10**9),
    mark=st.sampled_from(".,"),
    thousands=st.sampled_from(["", " ", "'", "\xa0", "other"]),
    around=st.sampled_from(["{}", "{} €", "€{}", "{}EUR"]),
)
def test_any_way_to_write_a_number_gives_the_number(cents, mark, thousands, around):
    other = "," if mark == "." else "."
    text = f"{abs(cents) / 100:,.2f}".translate({44: thousands.replace("other", other), 46: mark})
    text = around.format(text)
    assert parse_amount(f"-{text}" if cents < 0 else text) == cents / 100


def test_the_mark_of_a_file_is_what_most_of_its_amounts_show():
    assert find_mark(["1,234", "2.50"]) == "."
    assert find_mark(["1,234", "2,50"]) == ","
    assert find_mark(["1.234", "1.234.567"]) == ","
    assert find_mark(["1,50", "2.50", "3.50", None, "", 7.25, "cheap"]) == "."
    assert find_mark(["1,234", "5", 1.5, None]) == "."
    assert find_mark([]) == "."
