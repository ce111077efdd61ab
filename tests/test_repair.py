import json
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from any_tree import any_trees
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.postprocessing.matching import LabelMatcher, PathMatcher, fold
from tillmap.postprocessing.repair import Neighbours, Repaired, Repairer

DETTOL = LabelPath("beauty & hygiene", "bath & hand wash", "bathing bars & soaps", "dettol")
LUX = LabelPath("beauty & hygiene", "bath & hand wash", "bathing bars & soaps", "lux")
LUX_GEL = LabelPath("beauty & hygiene", "bath & hand wash", "shower gel & body wash", "lux")
TATA = LabelPath("beverages", "tea", "leaf & dust tea", "tata tea")
TATA_GREEN = LabelPath("beverages", "tea", "green tea", "tata tea")
TETLEY = LabelPath("beverages", "tea", "green tea", "tetley")
GOURMET = LabelPath("gourmet & world food", "drinks & beverages", "green tea", "vahdam")
DIAPERS = LabelPath("baby care", "diapers & wipes", "diapers", "huggies")
PATHS = (DETTOL, LUX, LUX_GEL, TATA, TATA_GREEN, TETLEY, GOURMET, DIAPERS)
FORMATS = ("json", "joined", "short")


def tree_of(rows: Mapping[LabelPath, int]) -> LabelTree:
    paths = sorted(rows)
    return LabelTree(CONTEST, tuple(paths), tuple(rows[path] for path in paths))


# Labels that hold the formats' own characters, in a tree that is not strict: `milk | cream` has two parents.
WILD = tree_of(
    dict.fromkeys(
        [
            LabelPath("food & drink", "dairy / eggs", "butter, ghee", "amul__gold"),
            LabelPath("food & drink", "dairy / eggs", "butter, ghee", 'l\'oréal "x"'),
            LabelPath("food & drink", "dairy / eggs", "milk | cream", "7 up"),
            LabelPath("home__care", "dairy / eggs", "milk | cream", "7 up"),
            LabelPath("home__care", "soap", "butter, ghee", "50-50"),
            LabelPath("home__care", "100", "100", "100"),
            LabelPath("kids (5+yrs)", "a -> b", "x / y / z", "müller's"),
            LabelPath("日用品", "お茶", "緑茶", "伊藤園"),
            LabelPath("日用品", "お茶", "緑茶", "brand: x"),
            LabelPath("null", "none", "tea", "brand"),
        ],
        1,
    )
)
TREE = tree_of({path: 3 if path == LUX else 1 for path in PATHS})


def repairer(name: str = "joined", unseen_brand: bool = False) -> Repairer:
    return Repairer(TREE, make_answer_format(name, TREE), unseen_brand=unseen_brand)


JOINED = repairer()
REPAIRERS = [Repairer(tree, make_answer_format(name, tree)) for tree in (TREE, WILD) for name in FORMATS]

texts = st.one_of(
    st.text(),
    st.text(alphabet="ab _|&{}'\":,.\\\ud83d\u2028tea"),
    st.sampled_from(PATHS).flatmap(lambda path: st.permutations(path).map(" | ".join)),
    st.lists(st.sampled_from([label for path in PATHS for label in path] + list(CONTEST)), max_size=6).map(" ".join),
    st.lists(st.sampled_from([label for path in WILD for label in path] + ["__", " | ", "\n", '"']), max_size=9).map(
        "".join
    ),
)


@pytest.mark.parametrize("name", FORMATS)
def test_an_exact_answer_is_left_alone(name: str) -> None:
    encode = make_answer_format(name, TREE).encode
    for path in PATHS:
        assert repairer(name).repair(encode(path)) == Repaired(path, "none", 1.0)
        assert repairer(name).repair(f" {encode(path)}\n") == Repaired(path, "none", 1.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("joined", "Beauty & Hygiene__Bath & Hand Wash__Bathing Bars & Soaps__DETTOL"),
        ("joined", "beauty hygiene | bath hand wash | bathing bars soaps | dettol"),
        ("json", "{'supergroup': 'beauty & hygiene', 'group': 'bath & hand wash', 'module': 'bathing bars & soaps', "
         "'brand': 'dettol'}"),
        ("short", "Bathing bars & soaps|Dettol"),
    ],
)  # fmt: skip
def test_case_and_punctuation_are_folded(name: str, text: str) -> None:
    assert repairer(name).repair(text) == Repaired(DETTOL, "folded", 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "module: bathing bars & soaps, brand: dettol",
        '{"module": "Bathing Bars & Soaps", "brand": "dettol", "retai',
        "Answer: beauty & hygiene__bath & hand wash__bathing bars & soaps__dettol | x | ivymart | 2.99",
        "dettol",
    ],
)
def test_an_answer_in_another_shape_is_parsed(text: str) -> None:
    assert JOINED.repair(text) == Repaired(DETTOL, "parsed", 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "beauty & hygiene, bath & hand wash, bathing bars & soaps, dettol",
        "beauty & hygiene bath & hand wash bathing bars & soaps dettol",
        "module | brand\nbathing bars & soaps | dettol",
        "Item: tetley 250 g | price: 2.99\nbathing bars & soaps | dettol",
        "<think>Perhaps tea? brand: tetley</think>\nbathing bars & soaps | dettol",
        'The module is "bathing bars & soaps" and the brand is "dettol".',
        "beverages__tea\nNo: bathing bars & soaps | dettol",
    ],
)
def test_an_answer_among_other_words_is_found(text: str) -> None:
    assert repairer("short").repair(text) == Repaired(DETTOL, "parsed", 1.0)


def test_a_part_of_a_path_is_not_believed_against_the_rest_of_it() -> None:
    assert JOINED.repair("beverages__tea__green tea__vahdam").repair == "snapped"
    assert JOINED.repair("beverages | green tea | vahdam tetley").repair == "snapped"


@pytest.mark.parametrize("name", FORMATS)
def test_punctuation_counts_where_nothing_else_tells_two_labels_apart(name: str) -> None:
    dotted, plain = LabelPath(*TATA[:3], "dr.oetker's"), LabelPath(*TATA[:3], "dr oetker's")
    tree = tree_of({dotted: 9, plain: 1})
    one = Repairer(tree, make_answer_format(name, tree))
    for path in (dotted, plain):
        assert one.repair("__".join(path).upper()).path == path
        assert one.repair(f"Module: {path[2]}, brand: {path[3]}").path == path
        assert one.repair(json.dumps(CONTEST.of(path))[:-1]).path == path
    assert one.repair("Leaf & dust tea | Dr-Oetker's") == Repaired(dotted, "snapped", pytest.approx(0.9))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", WILD.paths)
def test_a_formats_own_characters_in_labels_do_no_harm(name: str, path: LabelPath) -> None:
    answer_format = make_answer_format(name, WILD)
    one = Repairer(WILD, answer_format)
    answer, written = answer_format.encode(path), json.dumps(CONTEST.of(path), ensure_ascii=False)
    assert one.repair(answer) == Repaired(path, "none", 1.0)
    shouted = answer.upper().replace(r"\U007C", r"\u007c").replace(r"\U005F", r"\u005f")
    assert one.repair(shouted) == Repaired(path, "none" if shouted == answer else "folded", 1.0)
    around = [f"Answer: {answer}", f"{answer}\n\nReceipt: tea", f"{answer}<|im_end|>\n", f"```\n{answer}\n```"]
    shapes = [written, written[:-1], written[:-2], json.dumps(CONTEST.of(path), indent=1), str(CONTEST.of(path))]
    separators = ["__", " | ", " > ", "\n", ", "]
    texts = [*around, *shapes, *(separator.join(path) for separator in separators)]
    assert [one.repair(text).path for text in texts] == [path] * len(texts)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("beauty hygene__bath & hand__bathing bar & soap__detol", DETTOL),
        ("bathing bars__detol", DETTOL),
        ("beverages__tea__green tea__tetly", TETLEY),
        ("beauty & hygiene__bath & hand wash__soaps & bathing bars__xul", LUX),
        ("beverages__tea__leaf & dust", TATA),
    ],
)
def test_a_damaged_answer_snaps_to_the_nearest_path(text: str, path: LabelPath) -> None:
    found = JOINED.repair(text)
    assert (found.path, found.repair) == (path, "snapped")
    assert 0.5 < found.confidence < 1


def test_the_four_labels_are_repaired_together() -> None:
    wrong_group = "beverages__bath & hand wash__green tea__tetley"
    assert JOINED.repair(wrong_group).path == TETLEY
    wrong_module = "beauty & hygiene__bath & hand wash__green tea__dettol"
    assert JOINED.repair(wrong_module).path == DETTOL
    brand_of_another_parent = "beverages__tea__green tea__vahdam"
    assert JOINED.repair(brand_of_another_parent).path == GOURMET


def test_a_brand_with_no_ngram_left_is_sought_in_its_module() -> None:
    crowd = [LabelPath("x", "x", "other", f"ul brand {number}") for number in range(40)]
    tree = tree_of(dict.fromkeys([*PATHS, *crowd], 1))
    found = PathMatcher(tree).nearest([{"module": "bathing bars & soaps", "brand": "ulx"}])[0]
    assert found.path == LUX


def test_an_answer_that_fits_several_paths_takes_the_one_with_the_most_rows_and_says_how_sure() -> None:
    found = JOINED.repair("supergroup: beauty & hygiene, group: bath & hand wash, module: bathing bars & soaps")
    assert found == Repaired(LUX, "snapped", pytest.approx(3 / 4))


@pytest.mark.parametrize("text", ["", " \n", "zzz qqq", '{"supergroup": "'])
def test_an_answer_like_nothing_is_voted_by_the_neighbours(text: str) -> None:
    neighbours = [(DETTOL, 0.4), (TETLEY, 0.3), (TATA, 0.2), (TETLEY, 0.3), (LabelPath(*TATA[:3], "unknown"), 9.0)]
    assert JOINED.repair(text, neighbours) == Repaired(TETLEY, "vote", pytest.approx(0.5))


def test_without_repair_all_but_exact_answers_are_voted() -> None:
    answer_format = make_answer_format("joined", TREE)
    path, other = TREE.paths[:2]
    strict = Repairer(TREE, answer_format, exact_only=True)
    assert strict.repair(answer_format.encode(path)) == Repaired(path, "none", 1.0)
    folded = strict.repair(answer_format.encode(path).upper(), [(other, 1.0)])
    assert (folded.path, folded.repair) == (other, "vote")


def test_a_vote_without_neighbours_is_the_commonest_path() -> None:
    assert JOINED.repair("") == Repaired(LUX, "vote", 3 / 10)


def test_a_tied_vote_goes_to_the_path_with_more_rows() -> None:
    assert JOINED.repair("", [(DETTOL, 0.5), (LUX, 0.5)]).path == LUX
    assert JOINED.repair("", [(DETTOL, -0.5), (TETLEY, -0.1)]) == Repaired(DETTOL, "vote", 0.0)


def test_many_answers_are_repaired_as_each_alone_and_neighbours_are_asked_only_for_the_vote() -> None:
    asked: list[int] = []

    class Asked(Sequence[Neighbours]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, row):  # type: ignore[no-untyped-def]
            asked.append(row)
            return [(TATA, 1.0)]

        def __iter__(self) -> Iterator[Neighbours]:
            raise AssertionError("not to be read through")

    answers = ["tetly__green tea", "", "bathing bars__detol", "tetly__green tea"]
    assert JOINED.repair_all(answers, Asked()) == [JOINED.repair(text, [(TATA, 1.0)]) for text in answers]
    assert asked == [1]


def test_as_many_neighbours_as_texts_are_expected() -> None:
    with pytest.raises(ValueError, match="2 texts, but 1 lists of neighbours"):
        JOINED.repair_all(["a", "b"], [[]])


@pytest.mark.parametrize("name", FORMATS)
def test_an_unseen_brand_gets_through_where_it_may(name: str) -> None:
    path = LabelPath(*TETLEY[:3], "organic india")
    text = make_answer_format(name, TREE).encode(path)
    assert repairer(name, unseen_brand=True).repair(text) == Repaired(path, "new_brand", 1.0, in_tree=False)
    assert repairer(name).repair(text).path in TREE


def test_an_unseen_brand_is_told_from_one_misspelt_and_from_one_known_elsewhere() -> None:
    lenient = repairer("short", unseen_brand=True)
    assert lenient.repair("Diapers | MamyPoko") == Repaired(LabelPath(*DIAPERS[:3], "MamyPoko"), "parsed", 1.0, False)
    assert lenient.repair("Diapers | Dettol") == Repaired(LabelPath(*DIAPERS[:3], "dettol"), "parsed", 1.0, False)
    assert lenient.repair("Diapers | hugies").path == DIAPERS
    assert lenient.repair("diapers | hugies").path == DIAPERS
    assert lenient.repair("diapers | HUGGIES").path == DIAPERS
    assert lenient.repair("diapers | Dettol ").path == LabelPath(*DIAPERS[:3], "dettol")
    assert lenient.repair("diapers | mamypoko ").path == LabelPath(*DIAPERS[:3], "mamypoko")
    assert lenient.repair("no such module | MamyPoko").path in TREE


@settings(max_examples=40, deadline=None)
@given(st.lists(texts, max_size=5))
def test_whatever_comes_in_a_path_of_the_tree_comes_out(some: list[str]) -> None:
    for one in REPAIRERS:
        for repaired in one.repair_all(some):
            assert repaired.path in one.tree
            assert repaired.in_tree
            assert 0 <= repaired.confidence <= 1


labels = st.text(alphabet="abAB_|\\\"'&,./:é茶19 \n", min_size=1, max_size=5).filter(str.strip)
paths = st.lists(
    st.builds(LabelPath, *[st.sampled_from(["a", "A", "a ", "&", "b"]) | labels] * 4), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(paths, st.sampled_from(FORMATS), st.booleans())
def test_every_path_of_any_tree_comes_out_unchanged(some: list[LabelPath], name: str, unseen_brand: bool) -> None:
    tree = tree_of(dict.fromkeys(some, 1))
    answer_format = make_answer_format(name, tree)
    one = Repairer(tree, answer_format, unseen_brand=unseen_brand)
    repaired = one.repair_all([answer_format.encode(path) for path in tree])
    assert repaired == [Repaired(path, "none", 1.0) for path in tree]


# Any levels


@settings(max_examples=60)
@given(any_trees(), st.sampled_from(FORMATS), st.booleans(), st.lists(texts, max_size=2))
def test_every_path_of_a_tree_of_any_shape_comes_out_and_any_text_gives_one(
    tree: LabelTree, name: str, unseen_brand: bool, some: list[str]
) -> None:
    answer_format = make_answer_format(name, tree)
    one = Repairer(tree, answer_format, unseen_brand=unseen_brand, min_score=0.0)
    repaired = one.repair_all([answer_format.encode(path) for path in tree])
    assert repaired == [Repaired(path, "none", 1.0) for path in tree]
    for found in one.repair_all([*some, *(" ".join(path) for path in tree), *(f"{tree.paths[0][0]}x" for _ in "a")]):
        assert unseen_brand or found.path in tree
        assert found.in_tree == (found.path in tree)
        assert 0 <= found.confidence <= 1


FOOD = Levels(("division", "group", "class", "item"))
BREAD, RYE, ROLLS, BUTTER, SOAP = (
    LabelPath(*path)
    for path in (
        ("foodstuffs", "bread", "", ""),
        ("foodstuffs", "bread", "rye bread", ""),
        ("foodstuffs", "bread", "sweet rolls", "cinnamon rolls"),
        ("foodstuffs", "dairy", "spreads", "butter, salted"),
        ("household", "cleaning agents", "", ""),
    )
)
RAGGED = LabelTree(FOOD, tuple(sorted([BREAD, RYE, ROLLS, BUTTER, SOAP])), (1, 5, 2, 0, 3))


@pytest.mark.parametrize(
    ("name", "text", "path", "repair"),
    [
        ("short", "Rye Bread", RYE, "folded"),
        ("short", "The answer is: rye bread", RYE, "parsed"),
        ("short", "foodstuffs | bread", BREAD, "parsed"),
        ("short", "foodstuffs > dairy > spreads > butter, salted", BUTTER, "parsed"),
        ("short", "Clening agents", SOAP, "snapped"),
        ("short", "cinamon rols", ROLLS, "snapped"),
        ("joined", "foodstuffs__bread__ry bread", RYE, "snapped"),
        ("joined", "foodstuffs__bread__zzz qqq xxx", RYE, "snapped"),
        ("json", '{"Division": "foodstuffs", "group": "bread"', BREAD, "folded"),
        ("json", '{"division": "foodstuffs", "group": "bread", "class": null, "item": null}', BREAD, "parsed"),
        ("json", '{"group": "cleaning agent"}', SOAP, "snapped"),
        ("json", '{"division": "foodstuffs", "group": "bread", "class": "ry bread"}', RYE, "snapped"),
    ],
)
def test_an_answer_ends_where_its_path_does(name: str, text: str, path: LabelPath, repair: str) -> None:
    found = Repairer(RAGGED, make_answer_format(name, RAGGED), min_score=0.5).repair(text)
    assert (found.path, found.repair) == (path, repair)


@pytest.mark.parametrize(
    "text", ["foodstuffs | tea", "group: tea, maker: tata", "group: tea", '{"division": "foodstuffs", "group": "tea"']
)
def test_a_path_without_a_known_brand_is_named_by_its_chain(text: str) -> None:
    levels = Levels(("division", "group", "maker"), "maker")
    tea, tata, soap = (LabelPath("foodstuffs", "tea", maker) for maker in ("", "tata", "lux"))
    tree = LabelTree(levels, (tea, soap, tata), (1, 1, 9))
    expected = tata if "tata" in text else tea
    assert Repairer(tree, make_answer_format("short", tree)).repair(text) == Repaired(expected, "parsed", 1.0)


def test_a_tree_without_rows_is_answered_all_the_same() -> None:
    tree = LabelTree(FOOD, RAGGED.paths, (0,) * len(RAGGED))
    one = Repairer(tree, make_answer_format("short", tree))
    assert one.repair("") == Repaired(BREAD, "vote", 0.0)
    found = one.repair("group: bred")
    assert found.repair == "snapped" and found.path[:2] == BREAD[:2]
    assert 0.2 < found.confidence < 0.4, "each of three paths with this group is as likely"


MARKS = ["\u0301", "\u0308", "\u0327", "\u0303", "\u093c", "\u0e48"]  # an accent, an umlaut ... and of other scripts


@given(st.text("aeiounçकข ", min_size=1, max_size=8).filter(str.strip), st.sampled_from(MARKS), st.data())
def test_two_labels_that_differ_in_a_mark_are_never_one(label: str, mark: str, data: st.DataObject) -> None:
    at = data.draw(st.sampled_from([place for place, letter in enumerate(label, 1) if letter != " "]))
    marked = label[:at] + mark + label[at:]
    assert fold(label) != fold(marked)
    paths = (LabelPath("food", label), LabelPath("food", marked))
    tree = LabelTree(Levels(("division", "class")), tuple(sorted(paths)), (1, 9) if paths[0] < paths[1] else (9, 1))
    for name in FORMATS:
        answer_format = make_answer_format(name, tree)
        one = Repairer(tree, answer_format)
        for path in paths:
            assert one.repair(answer_format.encode(path).upper()).path == path or path[1].upper().lower() != path[1]
            assert one.repair(f"Division: food, class: {path[1]}").path == path


def test_an_answer_without_accents_finds_its_label() -> None:
    tree = tree_of({LabelPath("food", "spreads", "crème fraîche", "nestlé"): 1, TETLEY: 9})
    one = Repairer(tree, make_answer_format("short", tree))
    assert one.repair("CREME FRAICHE | NESTLE").path == tree.paths[1]
    assert one.repair("CRÈME FRAÎCHE | NESTLÉ") == Repaired(tree.paths[1], "folded", 1.0)


def test_no_texts_are_no_work() -> None:
    assert JOINED.repair_all([]) == []
    assert LabelMatcher(["tea"]).nearest([])[0] == []


def test_the_nearest_label_is_found_whatever_the_damage() -> None:
    matcher = LabelMatcher(TREE.labels("module"))
    damaged = ["GREEN_TEA", "gren tea", "tea leaf & dust", "shower gel &", "bathng bras & soaps"]
    found, scores = matcher.nearest(damaged)
    assert found == ["green tea", "green tea", "leaf & dust tea", "shower gel & body wash", "bathing bars & soaps"]
    assert scores[0] == 1
    assert (scores[1:] < 1).all()
    assert (scores > 0.7).all()


far_apart = [
    label for level in CONTEST.chain for tree in (TREE, WILD) for label in tree.labels(level) if len(label) > 9
]
FAR_APART = LabelMatcher(sorted(set(far_apart)))


@given(st.sampled_from(FAR_APART.labels), st.randoms(use_true_random=False), st.sampled_from("abcxyzé19 "))
def test_one_wrong_letter_leaves_a_label_the_nearest(label: str, rng: random.Random, letter: str) -> None:
    at = rng.randrange(len(label))
    for damaged in (
        label[:at] + letter + label[at + 1 :],
        label[:at] + letter + label[at:],
        label[:at] + label[at + 1 :],
    ):
        assert FAR_APART.nearest([damaged])[0] == [label]


@given(st.lists(st.sampled_from([*FAR_APART.labels, "tea", "bath", "soap hand", "é", ""]), max_size=6))
def test_labels_compared_together_are_compared_as_each_alone(some: list[str]) -> None:
    together, alone = FAR_APART.similar(some).toarray(), [FAR_APART.similar([text]).toarray()[0] for text in some]
    for row, text in zip(together, alone, strict=True):
        np.testing.assert_allclose(row, text, atol=1e-6)


def test_meaning_finds_what_characters_cannot_and_is_asked_for_little() -> None:
    concepts = ("nappies diapers", "tea", "soaps", "gel wash")
    asked: list[list[str]] = []

    def embed(some: Sequence[str]) -> np.ndarray:
        """Unit vectors over concepts: what a sentence model would tell, in small."""
        asked.append(list(some))
        counts = np.array([[len(set(text.split()) & set(words.split())) for words in concepts] for text in some], float)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)

    matcher = LabelMatcher(TREE.labels("module"), embed)
    assert matcher.nearest(["gren tea", "nappies", "nappies"])[0] == ["green tea", "diapers", "diapers"]
    assert asked[0] == ["nappies"]
    assert matcher.nearest([""])[1] == [0]

    short = Repairer(TREE, make_answer_format("short", TREE), embed=embed)
    asked.clear()
    answers = ["nappies | pampers", "nappies | pampers ", "nappies | huggie", "diapers | hugies", "green tea | tetley"]
    assert [found.path for found in short.repair_all(answers)][:3] == [DIAPERS] * 3
    assert ["nappies"] in asked
    assert {text for texts in asked for text in texts} <= {"nappies", *map(fold, TREE.labels("module"))}
    assert LabelMatcher(TREE.labels("module")).nearest(["nappies"])[1] < 0.5
