import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from any_tree import any_trees
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.llm.interface.answer_formats import make_answer_format, unescape

FORMATS = ("json", "joined", "short")
CONTEST_LABELS = Path(__file__).parents[2] / "shared/data/indoml-label-space.csv.gz"

BEDS = LabelPath("baby care", "baby care detail unknown total", "baby care", "pure baby")
TEA = LabelPath("drinks", "hot", "tea", "tata")
TEA_TWICE = LabelPath("gourmet", "hot drinks", "tea", "tata")
TEA_OTHER = LabelPath("gourmet", "hot drinks", "tea", "twinings")
SOAP = LabelPath("care", "bath", "soap", "lux")


def tree_of(paths: Sequence[LabelPath]) -> LabelTree:
    return LabelTree(CONTEST, tuple(sorted(paths)), (1,) * len(paths))


labels = st.text(alphabet="ab_|\\\"'/,:{}u05f é\n\u2028你 ", min_size=1, max_size=6).filter(str.strip) | st.text(
    min_size=1, max_size=8
).filter(str.strip)
trees = st.lists(
    st.builds(LabelPath, *[st.sampled_from(["a", "b", "a_", "_b", "a|b", "a__b", "\\u007c"]) | labels] * 4),
    min_size=1,
    max_size=12,
    unique=True,
).map(tree_of)


@pytest.fixture(scope="module")
def contest_tree() -> LabelTree:
    if not CONTEST_LABELS.exists():
        pytest.skip("the contest's label space is not at hand")
    return LabelTree.from_rows(pd.read_csv(CONTEST_LABELS), CONTEST)


@pytest.mark.parametrize("name", FORMATS)
def test_every_contest_path_comes_back(name: str, contest_tree: LabelTree) -> None:
    tree = contest_tree
    answer_format = make_answer_format(name, tree)
    assert len(tree) == 12_885
    assert tree.is_strict
    assert [answer_format.decode(answer_format.encode(path)) for path in tree] == list(tree)
    if name == "joined":
        assert all(answer_format.encode(path) == "__".join(path) for path in tree)
    if name == "short":
        assert all(answer_format.encode(path) == " | ".join(path[2:]) for path in tree)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None)
@given(tree=trees)
def test_any_path_of_any_tree_comes_back(name: str, tree: LabelTree) -> None:
    answer_format = make_answer_format(name, tree)
    for path in tree:
        answer = answer_format.encode(path)
        assert answer_format.decode(answer) == path
        assert answer_format.decode_open(answer) == path
        assert "\n" not in answer
    assert len(answer_format.answers) == len(tree)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40, deadline=None)
@given(tree=trees, brand=labels)
def test_an_unseen_brand_comes_back_where_its_chain_is_known(name: str, tree: LabelTree, brand: str) -> None:
    answer_format = make_answer_format(name, tree)
    for path in tree:
        unseen = LabelPath(*path[:3], brand)
        answer = answer_format.encode(unseen)
        assert answer_format.decode_open(answer) == unseen
        assert answer_format.decode(answer) == (unseen if unseen in tree else None)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=40)
@given(tree=trees, data=st.data())
def test_every_open_answer_is_read_as_its_chain_with_some_brand(
    name: str, tree: LabelTree, data: st.DataObject
) -> None:
    answer_format = make_answer_format(name, tree)
    form = answer_format.open_answers
    brands = st.from_regex(f"{form.character}( ?{form.character}){{0,5}}", fullmatch=True)
    for chain in tree.chains:
        brand = data.draw(brands | st.sampled_from(tree.labels("brand")))
        answer = answer_format.opening(chain) + form.lead + brand + form.closing
        if form.pattern.fullmatch(answer):  # a known brand may be one that must be escaped
            assert answer_format.decode_open(answer) == LabelPath(*chain, brand)


@pytest.mark.parametrize("name", FORMATS)
def test_a_reserved_character_is_none_of_a_free_brands(name: str) -> None:
    form = SMALL[name].open_answers
    for brand in ("a|b", "a\\", "\n", "\u2028a", "a ", " a", "a  b", "\u3000", "", "a__b", 'a"'):
        readable = SMALL[name].decode_open(form.openings[0] + form.lead + brand + form.closing) is not None
        assert form.pattern.fullmatch(form.openings[0] + form.lead + brand + form.closing) is None or readable
    assert form.pattern.fullmatch(form.openings[0] + form.lead + "neu & co." + form.closing)


def test_an_opening_stops_where_the_brand_begins() -> None:
    tree = tree_of([TEA, TEA_OTHER, SOAP])
    assert make_answer_format("short", tree).open_answers.openings == ("soap |", "hot | tea |", "hot drinks | tea |")
    assert make_answer_format("joined", tree).opening(tree.chains[0]) == "care__bath__soap__"
    as_json = make_answer_format("json", tree)
    assert as_json.opening(tree.chains[0]) == '{"supergroup": "care", "group": "bath", "module": "soap", "brand": "'
    assert as_json.open_answers.closing == '"}'


def test_a_known_path_can_be_read_in_the_way_an_unseen_brand_is_written() -> None:
    short = make_answer_format("short", tree_of([TEA, TEA_OTHER, SOAP]))
    assert short.encode(TEA_OTHER) == "tea | twinings"
    assert short.decode("hot drinks | tea | twinings") is None
    assert short.decode_open("hot drinks | tea | twinings") == TEA_OTHER


SMALL = {name: make_answer_format(name, tree_of([TEA, SOAP])) for name in FORMATS}


@pytest.mark.parametrize("name", FORMATS)
@given(text=st.text() | st.text(alphabet='ab_|\\u07c "{}:,'))
def test_no_text_breaks_the_reading(name: str, text: str) -> None:
    answer_format = SMALL[name]
    for path in (answer_format.decode(text), answer_format.decode_open(text)):
        assert path is None or answer_format.encode(path) == text


@settings(max_examples=40, deadline=None)
@given(tree=trees)
def test_a_separator_or_stop_sequence_never_occurs_inside_a_label(tree: LabelTree) -> None:
    joined, short = make_answer_format("joined", tree), make_answer_format("short", tree)
    for path in tree:
        assert joined.encode(path).split("__") == [piece for piece in joined.encode(path).split("__") if piece]
        assert joined.encode(path).count("__") == 3
        assert "|" not in joined.encode(path)
        assert 1 <= short.encode(path).count("|") <= 3


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        (
            "json",
            '{"supergroup": "baby care", "group": "baby care detail unknown total", "module": "baby care", '
            '"brand": "pure baby"}',
        ),
        ("joined", "baby care__baby care detail unknown total__baby care__pure baby"),
        ("short", "baby care | pure baby"),
    ],
)
def test_an_ordinary_path_is_written_plainly(name: str, answer: str) -> None:
    assert make_answer_format(name, tree_of([BEDS])).encode(BEDS) == answer


@pytest.mark.parametrize(
    ("brand", "written"),
    [("a_b", "a_b"), ("a__b", r"a\u005f\u005fb"), ("_a", r"\u005fa"), ("a|b", r"a\u007cb"), ("a\\b", r"a\u005cb")],
)
def test_only_what_could_be_mistaken_is_escaped(brand: str, written: str) -> None:
    path = LabelPath(*TEA[:3], brand)
    assert make_answer_format("joined", tree_of([path])).encode(path) == f"drinks__hot__tea__{written}"
    assert unescape(written) == brand


def test_short_answers_take_as_many_levels_as_it_takes() -> None:
    short = make_answer_format("short", tree_of([TEA, TEA_TWICE, TEA_OTHER, SOAP]))
    assert short.encode(SOAP) == "soap | lux"
    assert short.encode(TEA_OTHER) == "tea | twinings"
    assert short.encode(TEA) == "hot | tea | tata"
    assert short.decode("tea | tata") is None
    assert short.decode("hot drinks | tea | tata") == TEA_TWICE


def test_short_answers_name_the_parents_of_an_unseen_brand_that_could_have_two() -> None:
    short = make_answer_format("short", tree_of([TEA, TEA_OTHER, SOAP]))
    assert short.encode(LabelPath(*SOAP[:3], "new")) == "soap | new"
    assert short.encode(LabelPath(*TEA[:3], "new")) == "hot | tea | new"
    assert short.decode_open("tea | new") is None


def test_a_path_with_an_unknown_chain_is_written_whole_and_not_read() -> None:
    stranger = LabelPath("toys", "dolls", "dolls", "x")
    for name in FORMATS:
        answer_format = make_answer_format(name, tree_of([TEA]))
        assert all(label in answer_format.encode(stranger) for label in stranger)
        assert answer_format.decode_open(answer_format.encode(stranger)) is None


@pytest.mark.parametrize("text", ["", "soap", "soap|lux", "soap | LUX", " soap | lux", "soap | lux | ", "soap | "])
def test_what_is_not_exactly_an_answer_is_none(text: str) -> None:
    short = make_answer_format("short", tree_of([SOAP]))
    assert short.decode(text) is None


# Any levels


def tree_with(levels: Levels, *paths: tuple[str, ...]) -> LabelTree:
    return LabelTree(levels, tuple(sorted(LabelPath(*path) for path in paths)), (1,) * len(paths))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100)
@given(tree=any_trees())
def test_any_path_of_a_tree_of_any_shape_comes_back(name: str, tree: LabelTree) -> None:
    answer_format = make_answer_format(name, tree)
    for path in tree:
        answer = answer_format.encode(path)
        assert answer_format.decode(answer) == answer_format.decode_open(answer) == path
        assert answer == answer.strip() or any(label != label.strip() for label in path)
        if name == "json":
            assert tuple(json.loads(answer).items()) == tuple(tree.levels.of(path).items())
    assert len(answer_format.answers) == len(tree)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60)
@given(tree=any_trees(), brand=labels)
def test_an_unseen_brand_comes_back_whatever_the_shape_of_its_tree(name: str, tree: LabelTree, brand: str) -> None:
    answer_format = make_answer_format(name, tree)
    if tree.levels.brand is None:
        with pytest.raises(ParamsError, match="`unseen_brand` is true, but the taxonomy has no brand level"):
            _ = answer_format.open_answers
        return
    for chain in tree.chains:
        unseen = LabelPath(*chain, brand)
        assert answer_format.decode_open(answer_format.encode(unseen)) == unseen
        form = answer_format.open_answers
        written = answer_format.opening(chain) + form.lead + brand + form.closing
        if form.pattern.fullmatch(written):
            assert answer_format.decode_open(written) == unseen


RAGGED = Levels(("division", "group", "class"))
WITH_MAKER = Levels(("division", "group", "maker"), brand="maker")


@pytest.mark.parametrize(
    ("levels", "path", "answers"),
    [
        (RAGGED, ("food", "bread", ""), ('{"division": "food", "group": "bread"}', "food__bread", "bread")),
        (WITH_MAKER, ("food", "", "tata"), ('{"division": "food", "maker": "tata"}', "food__tata", "food | tata")),
        (WITH_MAKER, ("food", "tea", ""), ('{"division": "food", "group": "tea"}', "food__tea__", "tea |")),
        (Levels(("class",)), ("rye",), ('{"class": "rye"}', "rye", "rye")),
        (Levels(tuple("abcdefgh")), tuple("12345678"),
         ('{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6", "g": "7", "h": "8"}',
          "1__2__3__4__5__6__7__8", "8")),
    ],
    ids=["ends early", "brand of a short chain", "unknown brand", "one level", "eight levels"],
)  # fmt: skip
def test_the_levels_that_a_path_has_are_written(
    levels: Levels, path: tuple[str, ...], answers: tuple[str, ...]
) -> None:
    tree = tree_with(levels, path)
    assert tuple(make_answer_format(name, tree).encode(tree.paths[0]) for name in FORMATS) == answers


def test_a_path_that_another_ends_like_is_told_from_it() -> None:
    tree = tree_with(RAGGED, ("bread", "", ""), ("food", "bread", ""), ("food", "bread", "rye"))
    short = make_answer_format("short", tree)
    assert [short.encode(path) for path in tree] == ["bread", "food | bread", "rye"]
    makers = tree_with(WITH_MAKER, ("tea", "", "tata"), ("food", "tea", "tata"), ("food", "tea", ""))
    branded = make_answer_format("short", makers)
    assert [branded.encode(path) for path in makers] == ["tea |", "food | tea | tata", "tea | tata"]
    assert branded.open_answers.openings == ("food | tea |", "tea |")
    assert branded.decode_open("tea | new") == LabelPath("tea", "", "new")
    assert branded.decode_open("food | tea | new") == LabelPath("food", "tea", "new")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ParamsError, match="'xml'; expected one of json, joined, short"):
        make_answer_format("xml", tree_of([TEA]))
