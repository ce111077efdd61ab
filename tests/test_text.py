# ruff: noqa: RUF001 - letters that look like others are what is tested
"""One normaliser for lines and labels of any script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.text import normalise, without_vowels


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("  CAD  5-pk Crème_Egg, 197g ", "cad 5 pk creme egg 197g"),
        ("ŁOSOŚ WĘDZONY", "losos wedzony"),
        ("SMØR æg ÐØÐ", "smor aeg dod"),
        ("Große Straße", "grosse strasse"),
        ("ΚΑΦΈΣ ελληνικός", normalise("ΚΑΦΕΣ ΕΛΛΗΝΙΚΟΣ")),
        ("İÇECEK ılık", "icecek ilik"),
        ("Ｍｉｌｋ１２", "milk12"),
        ("milk\u00a01\u200bl\t\x003.5%", "milk 1l 3 5%"),
        ("cre\u0300me", "creme"),
        ("🍎 apple", "🍎 apple"),
        ("❤️ 茶", "❤ 茶"),
        ("21°C", "21 c"),
        ("L´ORÉAL L¨x O´BRIEN", normalise("L'OREAL L x O'BRIEN")),
        ("カ゛ム ハ゜ン ｶﾞﾑ", "ガム パン ガム"),
        ("か\u200b\u3099", "が"),
        ("1½ L, ½ L", "1 1 2 l 1 2 l"),
        ("٣ ۱۲ १२", "3 12 12"),
        ("ملـــك كيك ي", normalise("ملک کیک ی")),
        ("葛\U000e0100 か\u034f", "葛 か"),
        ("--", ""),
        ("", ""),
    ],
)
def test_case_accents_forms_and_signs_are_folded(text: str, folded: str) -> None:
    assert normalise(text) == folded


@pytest.mark.parametrize(
    "pair",
    [
        ("दाल", "दल"),
        ("ไข่", "ไข"),
        ("שמן", "שמנ"),
        ("شاي", "شاى"),
        ("ガラス", "カラス"),
        ("й", "и"),
        ("茶", "花"),
        ("⌚", "⏰"),
        ("☕", "🍵"),
        ("চা", "চ"),
        ("தேன்", "தேன"),
        ("せっけん", "せつけん"),
        ("달", "닭"),
        ("👍🏻", "👍🏿"),
    ],
)
def test_marks_of_other_scripts_are_letters(pair: tuple[str, str]) -> None:
    first, second = map(normalise, pair)
    assert first and second and first != second


def test_the_flags_of_a_kingdoms_parts_are_told_apart() -> None:
    england, scotland = (
        "🏴" + "".join(chr(0xE0000 + ord(tag)) for tag in tags) + "\U000e007f" for tags in ("gbeng", "gbsct")
    )
    assert (
        len({normalise(flag, keep_accents=keep) for flag in (england, scotland, "🏴") for keep in (False, True)}) == 3
    )
    assert normalise(f"tea {england}🍵 \U000e0041") == "tea 🏴gbeng 🍵"


def test_labels_keep_what_lines_fold() -> None:
    pairs = (("كيك", "کیک"), ("ملـك", "ملك"), ("١", "1"), ("葛\U000e0100", "葛"))
    assert all(normalise(one, keep_accents=True) != normalise(other, keep_accents=True) for one, other in pairs)


def test_labels_keep_their_accents() -> None:
    assert normalise("Pâté, PATE", keep_accents=True) == "pâté pate"


@given(st.text(max_size=60))
def test_normalising_again_changes_nothing(text: str) -> None:
    for keep in (False, True):
        folded = normalise(text, keep_accents=keep)
        assert normalise(folded, keep_accents=keep) == folded
        assert folded == " ".join(folded.split())


@given(st.text(max_size=60))
def test_dropping_vowels_keeps_every_words_start(text: str) -> None:
    words = normalise(text).split()
    assert [word[0] for word in without_vowels(" ".join(words)).split()] == [word[0] for word in words]
