import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_tree import LEVELS
from tillmap.core.taxonomy import CONTEST, Levels
from tillmap.postprocessing.parsing import readings, runs

WHOLE = {"supergroup": "care", "group": "men's grooming", "module": "bath, shower & talc", "brand": "dr. x"}


@pytest.mark.parametrize(
    "text",
    [
        '{"supergroup": "care", "group": "men\'s grooming", "module": "bath, shower & talc", "brand": "dr. x"}',
        '{"supergroup": "care", "group": "men\'s grooming", "module": "bath, shower & talc", "brand": "dr. x',
        "{'supergroup': 'care', 'group': 'men's grooming', 'module': 'bath, shower & talc', 'brand': 'dr. x'}",
        "{'supergroup': 'care', 'group': \"men's grooming\", 'module': 'bath, shower & talc', 'brand': 'dr. x'}",
        "{'supergroup': 'care', 'group': 'men\\'s grooming', 'module': 'bath, shower & talc', 'brand': 'dr. x'}",
        "supergroup: care, group: men's grooming, module: bath, shower & talc, brand: dr. x",
        "Super-group: care\nGroup: men's grooming\nModule: bath, shower & talc\nBrand: dr. x\n\nI chose this because",
        "**Supergroup:** care\n**Group:** men's grooming\n**Module:** bath, shower & talc\n**Brand:** dr. x",
        "supergroup=care group=men's grooming module=bath, shower & talc brand=dr. x",
        "supergroup: care | group: men's grooming | module: bath, shower & talc | brand: dr. x | and so on",
        'Sure!\n```json\n{\n  "supergroup": "care",\n  "group": "men\'s grooming",\n  "module": "bath, shower & talc",'
        '\n  "brand": "dr. x"\n}\n```\nLet me know',
        '{"supergroup": "care", "group": "men\'s grooming", "module": "bath, shower & talc", "brand": "dr. x"}'
        '{"supergroup": "food", "group": "tea", "module": "tea", "brand": "tata"}',
        '{"supergroup": "care", "group": "men\'s grooming", "module": "bath, shower & talc", "brand": "dr. x", '
        '"retailer": "ivymart"}',
        "care__men's grooming__bath, shower & talc__dr. x",
        "care____men's grooming__bath, shower & talc__ dr. x",
        "care__men's grooming__bath, shower & talc__dr. x | hot tea__food__tea__tea__tata",
        "care__men's grooming__bath, shower & talc__dr. x\nfood__tea__tea__tata",
        "soap 5 s | ivymart | 2.99 -> care__men's grooming__bath, shower & talc__dr. x",
        "care__men's grooming__bath, shower & talc__dr. x<|im_end|>\n<|im_start|>user",
        "<|begin_of_text|>care__men's grooming__bath, shower & talc__dr. x</s>",
        "`care__men's grooming__bath, shower & talc__dr. x`",
        "The answer is: care__men's grooming__bath, shower & talc__dr. x",
        "care | men's grooming | bath, shower & talc | dr. x",
        "care||men's grooming|bath, shower & talc|dr. x",
        "care > men's grooming > bath, shower & talc > dr. x",
        "care -> men's grooming -> bath, shower & talc -> dr. x",
        "care / men's grooming / bath, shower & talc / dr. x",
        "care\nmen's grooming\nbath, shower & talc\ndr. x",
        "1. care\n2. men's grooming\n3. bath, shower & talc\n4. dr. x",
        "supergroup__group__module__brand\ncare__men's grooming__bath, shower & talc__dr. x",
        "Supergroup | Group | Module | Brand: care | men's grooming | bath, shower & talc | dr. x",
        "<think>A soap? The brand: unsure.</think>care__men's grooming__bath, shower & talc__dr. x",
        "soap 5 s | ivymart | 2.99 -> care | men's grooming | bath, shower & talc | dr. x",
        "{“supergroup”: “care”, “group”: “men's grooming”, “module”: “bath, shower & talc”, “brand”: “dr. x”}",
        'The supergroup is "care", the group is "men\'s grooming", the module is "bath, shower & talc" and the brand '
        'is "dr. x".',
    ],
)
def test_four_labels_are_read_however_they_are_written(text: str) -> None:
    assert readings(text, CONTEST)[0].labels == WHOLE


@pytest.mark.parametrize(
    ("text", "labels", "style"),
    [
        ("", {}, "empty"),
        (" \n\t", {}, "empty"),
        ("__ | __", {}, "empty"),
        ('{"brand": null, "module": "tea"', {"module": "tea"}, "keys"),
        ('{"supergroup": "care", "gro', {"supergroup": "care"}, "keys"),
        ('{"brand": "a \\u007c \\"b\\""}', {"brand": 'a | "b"'}, "keys"),
        ('{"brand": "half a pair \\ud83d"}', {"brand": "half a pair ?"}, "keys"),
        ("brand: 7", {"brand": "7"}, "keys"),
        ("tea | tata", {"module": "tea", "brand": "tata"}, "piped"),
        (r"tea | a \u007c b", {"module": "tea", "brand": "a | b"}, "piped"),
        ("hot | tea | tata.", {"group": "hot", "module": "tea", "brand": "tata"}, "piped"),
        ("hot__tea__tata", {"group": "hot", "module": "tea", "brand": "tata"}, "joined"),
        ("green tea, tata", {"module": "green tea", "brand": "tata"}, "commas"),
        ("- green tea\n- tata", {"module": "green tea", "brand": "tata"}, "lines"),
        (
            "me__care | soap | lux | x",
            {"supergroup": "me__care", "group": "soap", "module": "lux", "brand": "x"},
            "piped",
        ),
        ("I think it is tea", {"brand": "I think it is tea"}, "plain"),
    ],
)
def test_labels_that_are_missing_are_left_out(text: str, labels: dict[str, str], style: str) -> None:
    assert readings(text, CONTEST)[0] == (labels, style)


def test_a_text_with_fewer_labels_may_be_any_run_of_levels() -> None:
    assert [reading.labels for reading in readings("a__b__c", CONTEST)] == [
        {"group": "a", "module": "b", "brand": "c"},
        {"supergroup": "a", "group": "b", "module": "c"},
    ]
    assert [list(reading.labels) for reading in readings("tea", CONTEST)] == [
        [level] for level in reversed(CONTEST.names)
    ]


def test_a_piped_answer_may_have_run_on() -> None:
    assert {"module": "tea", "brand": "tata"} in [
        reading.labels for reading in readings("tea | tata | soap | lux", CONTEST)
    ]


def test_an_answer_without_separators_may_still_be_one_label_with_a_comma() -> None:
    assert {"module": "bath, shower & talc"} in [reading.labels for reading in readings("bath, shower & talc", CONTEST)]


def test_runs_are_the_stretches_between_borders_the_longest_first() -> None:
    assert list(runs("Answer: Home__Care | soap\nx", CONTEST)) == [
        "answer home care soap x",
        *("answer home care soap", "home care soap x"),
        *("answer home care", "home care soap", "care soap x"),
        *("answer home", "home care", "care soap", "soap x"),
        *("answer", "home", "care", "soap", "x"),
    ]
    assert list(runs(r"salt \u007c vinegar | x", CONTEST, least=2)) == ["salt vinegar x"]
    assert list(runs(" | __\n", CONTEST, least=1)) == []


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Product Group: food, sub-class = rye", {"product_group": "food", "sub class": "rye"}),
        ('{"productgroup": "food", "SUB_CLASS": "rye"', {"product_group": "food", "sub class": "rye"}),
        ("The division 2 is bread", {"division 2": "bread"}),
        ("division: x\ndivision 2: y", {"division": "x", "division 2": "y"}),
        ("Straße: Brot", {"straße": "Brot"}),
        ("supergroup: food", {}),
    ],
)
def test_the_names_of_the_levels_are_the_keys(text: str, labels: dict[str, str]) -> None:
    levels = Levels(("product_group", "sub class", "division", "division 2", "straße"))
    first = readings(text, levels)[0]
    assert first.labels == labels if labels else first.style != "keys"


def test_a_single_level_is_read_as_one_label() -> None:
    one = Levels(("class",))
    assert [readings(text, one)[0].labels for text in ("rye bread", "Class: rye bread", '{"class": "rye bread"')] == [
        {"class": "rye bread"}
    ] * 3


def test_as_many_labels_are_read_as_there_are_levels() -> None:
    eight = Levels(tuple(f"level {number}" for number in range(8)))
    assert list(readings("1__2__3__4__5__6__7__8", eight)[0].labels.values()) == list("12345678")
    header = " | ".join(f"Level {number}" for number in range(8))
    assert readings(f"{header}: {' | '.join('abcdefgh')}", eight)[0].labels["level 7"] == "h"


pieces = st.sampled_from(
    ["supergroup", "brand", "'", '"', ":", "=", "__", "|", "{", "}", "\\", "\\u00", ",", "\n", "a", " "]
)


@given(st.text() | st.lists(pieces, max_size=40).map("".join), st.just(CONTEST) | LEVELS)
def test_any_text_is_read(text: str, levels: Levels) -> None:
    found = readings(text, levels)
    assert found
    for labels, _ in found:
        assert set(labels) <= set(levels)
        assert all(labels.values())


@pytest.mark.parametrize("text", ["'" * 20_000, "brand: '" * 5_000, " " * 20_000 + "|", ", a" * 10_000, "__" * 10_000])
def test_a_model_that_stutters_costs_no_time(text: str) -> None:
    assert readings(text, CONTEST)
    assert sum(1 for _ in runs(text, CONTEST)) < 100_000
