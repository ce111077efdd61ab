# ruff: noqa: RUF001 - units are printed in many scripts
"""Quantities that tills print in a line."""

import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tillmap.core.quantities import read_quantities, without_quantities
from tillmap.core.text import normalise


@pytest.mark.parametrize(
    ("line", "text", "amounts"),
    [
        ("COLA ZERO 6X33CL", "COLA ZERO", (None, 330, 6, None)),
        ("T6X43G KINDER", "T KINDER", (43, None, 6, None)),
        ("TOMATE 2 X 3.39€", "TOMATE", (None, None, 2, 3.39)),
        ("KRUH 2 x 3,39", "KRUH", (None, None, 2, 3.39)),
        ("BANANAS 0,455KG X 2.99€/KG", "BANANAS", (455, None, None, 2.99)),
        ("ser 0.250 kg * 8,90 zł/kg", "ser", (250, None, None, 8.9)),
        ("EGGS X12", "EGGS", (None, None, 12, None)),
        ("12X yoghurt", "yoghurt", (None, None, 12, None)),
        ("butter 500 G", "butter", (500, None, None, None)),
        ("MILK3.5% 1.5L", "MILK3.5%", (None, 1500, None, None)),
        ("mleko 3 za 10", "mleko", (None, None, 3, 10 / 3)),
        ("jaja 2 szt", "jaja", (None, None, 2, None)),
        ("BIER 6er pack", "BIER", (None, None, 6, None)),
        ("cola pack of 6", "cola", (None, None, 6, None)),
        ("SIR 1,99/100G", "SIR", (None, None, None, 19.9)),
        ("rum 1/2 L", "rum", (None, 500, None, None)),
        ("молоко 900 мл", "молоко", (None, 900, None, None)),
        ("น้ำปลา 700มล", "น้ำปลา", (None, 700, None, None)),
        ("茶１２Ｘ３３ｃｌ", "茶", (None, 330, 12, None)),
        ("500 G", "500 G", (500, None, None, None)),
        ("foto 10X15 CM", "foto 10X15 CM", (None, None, None, None)),
        ("XBOX 360 vitamin b12 1.234,5 kg", "XBOX 360 vitamin b12 1.234,5 kg", (None, None, None, None)),
        ("soft 3 ply brrs 6 pcs", "soft 3 ply brrs", (None, None, 6, None)),
        ("4012345678901 gum", "4012345678901 gum", (None, None, None, None)),
        ("", "", (None, None, None, None)),
    ],
)
def test_what_a_line_says(line: str, text: str, amounts: tuple[float | None, ...]) -> None:
    """`amounts` are the grams, millilitres, pieces and the unit price."""
    found = read_quantities(line)
    assert found.text == text == without_quantities(line)
    read = (found.grams, found.millilitres, found.pieces, found.unit_price)
    assert read == tuple(value if value is None else pytest.approx(value) for value in amounts)


_PARTS = st.sampled_from(["6", "x", "X", " ", "33", "cl", "kg", "/", "€", ",", ".", "0", "2.99", "za", "tea", "١", "@"])


@given(st.text(max_size=40) | st.lists(_PARTS, max_size=12).map("".join))
@example("1.99/0g tea")
@example("0 za 0")
@example("0/0 l")
def test_any_line_is_read_and_no_text_becomes_empty(line: str) -> None:
    found = read_quantities(line)
    values = (found.grams, found.millilitres, found.pieces, found.unit_price)
    assert all(value is None or 0 <= value < float("inf") for value in values)
    assert bool(normalise(found.text)) == bool(normalise(line))
    assert line or not found.text


@given(st.text(string.ascii_letters + " ", max_size=40))
def test_a_line_without_digits_stays_as_it_is(line: str) -> None:
    assert without_quantities(line) == line


def test_long_lines_take_no_longer_than_their_length() -> None:
    """A pattern that tries all splits of a run of digits would take hours."""
    for run in ("1" * 50_000, "1 " * 25_000, "1.1," * 12_500, "1x" * 25_000, "1 kg x " * 7_000):
        began = time.process_time()
        read_quantities(run)
        assert time.process_time() - began < 30
