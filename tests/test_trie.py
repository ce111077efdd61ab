import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.trie import TokenTrie

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
