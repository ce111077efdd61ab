import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.llm.interface.answer_formats import OpenAnswers
from tillmap.llm.token_trie import OpenTrie, TokenTrie

EOS = 99

answers = st.sets(st.lists(st.integers(0, 5), min_size=1, max_size=5).map(tuple), min_size=1, max_size=20)


def spelled_out(trie: TokenTrie, prefix: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    """Every answer a decoder can reach."""
    found: set[tuple[int, ...]] = set()
    for token in trie.allowed(prefix):
        found |= {prefix} if token == EOS else spelled_out(trie, (*prefix, token))
    return found


@given(answers)
def test_exactly_the_given_answers_can_be_decoded(known: set[tuple[int, ...]]) -> None:
    assert spelled_out(TokenTrie(known, EOS)) == known


def test_an_answer_that_begins_another_may_end_or_go_on() -> None:
    trie = TokenTrie([[1, 2], [1, 2, 3], [4]], EOS)
    assert trie.allowed([]) == [1, 4]
    assert trie.allowed([1, 2]) == [3, EOS]


@pytest.mark.parametrize("prefix", [[7], [1, 7], [1, 2, EOS], [1, 2, EOS, EOS]])
def test_off_the_trie_and_past_the_end_only_eos_is_allowed(prefix: list[int]) -> None:
    assert TokenTrie([[1, 2]], EOS).allowed(prefix) == [EOS]


@pytest.mark.parametrize("bad", [[], [[]], [[1, EOS, 2]]])
def test_answers_that_could_not_be_decoded_are_refused(bad: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="answer"):
        TokenTrie(bad, EOS)


@given(answers)
def test_a_branch_is_where_a_choice_must_be_made(known: set[tuple[int, ...]]) -> None:
    trie = TokenTrie(known, EOS)
    for answer in known:
        for length in range(len(answer) + 1):
            extended, choices = trie.branch(answer[:length])
            assert extended[:length] == list(answer[:length])
            assert choices == trie.following(extended)
            assert len(choices) > 1 or (extended[-1] == EOS and not choices)


TEXTS = dict(enumerate(["tea", " tea", " |", " ", "lux", " x", "x", "|", '"', '"}', "é", " a b", "�", "", "\n"]))
IDS = {text: token for token, text in TEXTS.items()}


def spell(text: str) -> list[int]:
    """The text as tokens, the longest first."""
    if not text:
        return []
    start = max((piece for piece in IDS if piece and text.startswith(piece)), key=len)
    return [IDS[start], *spell(text[len(start) :])]


def open_trie(lead: str, closing: str, longest: int = 6) -> OpenTrie:
    form = OpenAnswers(("tea |", "lux |"), lead, closing, '|"\n�', longest)
    known = TokenTrie([spell("lux | x|x")], EOS)
    openings = [spell(opening) for opening in form.openings]
    return OpenTrie(known, openings, form, closing=spell(closing), texts=TEXTS, eos=EOS)


@pytest.mark.parametrize(("lead", "closing"), [(" ", ""), ("", '"}')])
@given(data=st.data())
def test_whatever_is_decoded_is_an_answer(lead: str, closing: str, data: st.DataObject) -> None:
    trie = open_trie(lead, closing)
    tokens: list[int] = []
    while EOS not in tokens:
        tokens.append(data.draw(st.sampled_from(trie.allowed(tokens))))
    text = "".join(TEXTS[token] for token in tokens[:-1])
    assert len(tokens) <= trie.longest
    assert text == "lux | x|x" or trie.form.pattern.fullmatch(text)
    assert trie.allowed([*tokens, EOS]) == [EOS]


@pytest.mark.parametrize("text", ["tea | lux", "tea | é tea", "lux | x", "lux | x|x", "lux | lux x"])
def test_known_answers_and_free_brands_can_be_decoded(text: str) -> None:
    trie, tokens = open_trie(" ", ""), [*spell(text), EOS]
    assert all(token in trie.allowed(tokens[:place]) for place, token in enumerate(tokens))


@pytest.mark.parametrize("text", ["tea |", "tea | ", "tea |lux", "tea |  lux", "tea | lux ", "tea | x|x", "x | lux"])
def test_what_is_neither_can_not(text: str) -> None:
    trie = open_trie(" ", "")
    tokens = [*spell(text), EOS]
    assert not all(token in trie.allowed(tokens[:place]) for place, token in enumerate(tokens))
