"""The ranking of answers against all of their probabilities, under a model small enough to write down."""

from collections.abc import Sequence
from hashlib import sha256
from itertools import product
from math import exp, isclose, log
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.completions import Question
from tillmap.llm.likelihood import LikelihoodRanker, Scored, Start
from tillmap.llm.token_trie import TokenTrie

EOS, LETTERS = 0, "abcd"
ROW = Question("test", 0, [])


def tokenize(answers: Sequence[str]) -> list[list[int]]:
    return [[1 + LETTERS.index(letter) for letter in answer] for answer in answers]


class Model:
    """Any start of an answer has a distribution of its own over what follows; counts how often it is asked."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.calls = seed, 0

    def next(self, place: int, tokens: tuple[int, ...]) -> list[float]:
        draws = sha256(repr((self.seed, place, tokens)).encode()).digest()[: 1 + len(LETTERS)]
        weights = [1 + draw for draw in draws]
        return [log(weight / sum(weights)) for weight in weights]

    def logprob(self, place: int, tokens: tuple[int, ...]) -> float:
        return sum(self.next(place, tokens[:length])[token] for length, token in enumerate(tokens))

    def __call__(self, asked: Sequence[Start]) -> list[Scored]:
        self.calls += 1
        return [
            Scored(self.logprob(place, tokens), {token: self.next(place, tokens)[token] for token in following})
            for place, tokens, following in asked
        ]

    def likeliest(self, place: int, answers: Sequence[str]) -> tuple[str, float]:
        scores = {
            answer: self.logprob(place, (*ids, EOS)) for answer, ids in zip(answers, tokenize(answers), strict=True)
        }
        best = max(scores, key=lambda answer: scores[answer])
        return best, scores[best]


EVERY = tuple("".join(letters) for length in (1, 2, 3, 4) for letters in product(LETTERS, repeat=length))
some = st.lists(st.sampled_from(EVERY), min_size=1, max_size=30, unique=True).map(tuple)


@given(first=some, second=some, seed=st.integers(0, 99))
def test_of_few_answers_all_are_ranked(first: tuple[str, ...], second: tuple[str, ...], seed: int) -> None:
    model, allowed = Model(seed), {3: first, 5: second}
    ranked = LikelihoodRanker(tokenize, EOS).rank(allowed, model, beams=1)
    for place, answers in allowed.items():
        text, logprob = ranked[place].answers[0]
        assert (text, pytest.approx(logprob)) == model.likeliest(place, answers)
        assert {answer for answer, _ in ranked[place].answers} == set(answers)
        assert ranked[place].tokens == len(text) + 1


@given(seed=st.integers(0, 20))
def test_with_beams_enough_the_search_finds_the_likeliest_of_many(seed: int) -> None:
    model = Model(seed)
    ranked = LikelihoodRanker(tokenize, EOS).rank({0: EVERY}, model, beams=len(EVERY))[0]
    assert ranked.answers[0] == (model.likeliest(0, EVERY)[0], pytest.approx(model.likeliest(0, EVERY)[1]))
    assert len(ranked.answers) == len(EVERY)


@given(seed=st.integers(0, 20), beams=st.integers(1, 8))
def test_what_a_search_reaches_has_its_true_probability(seed: int, beams: int) -> None:
    model = Model(seed)
    ranked = LikelihoodRanker(tokenize, EOS).rank({0: EVERY}, model, beams)[0]
    assert 1 <= len(ranked.answers) <= beams
    for text, logprob in ranked.answers:
        assert isclose(logprob, model.logprob(0, (*tokenize([text])[0], EOS)))


def test_tokens_that_must_follow_cost_no_step() -> None:
    model = Model()
    many = tuple(f"{'abcd' * 5}{end}" for end in EVERY if len(end) == 4)
    LikelihoodRanker(tokenize, EOS).rank({0: many}, model, 4)
    assert model.calls == 1 + 4 + 1  # the first call scores no answers; four letters to choose from; the end


class Trap(Model):
    """Greedy takes the likelier first letter, behind which no single answer is likely."""

    table: ClassVar = {(): {1: 0.6, 2: 0.4}, (1,): {1: 0.5, 2: 0.5}, (2,): {1: 0.9, 2: 0.1}}

    def next(self, place: int, tokens: tuple[int, ...]) -> list[float]:
        chances = self.table.get(tokens, {EOS: 1.0})
        return [log(chances.get(token, 1e-9)) for token in range(5)]


def test_the_likeliest_answer_is_not_the_greedy_one() -> None:
    answers = ("aa", "ab", "ba", "bb")
    ranked = LikelihoodRanker(tokenize, EOS).rank({0: answers}, Trap(), 8)[0]
    done = ranked.completion(ROW, prompt_tokens=7)
    assert done.text == "ba"
    assert done.logprob == pytest.approx(log(0.36), abs=1e-4)
    assert done.candidates == [["ba", 0.36], ["aa", 0.3], ["ab", 0.3], ["bb", 0.04]]
    assert (done.status, done.prompt_tokens, done.completion_tokens) == ("ok", 7, 3)
    greedy = LikelihoodRanker(tokenize, EOS)._search({0: TokenTrie(tokenize(answers), EOS)}, Trap(), 1)[0]
    assert list(greedy) == [(1, 1, EOS)]


@given(allowed=some, seed=st.integers(0, 9))
def test_candidates_share_all_of_the_probability(allowed: tuple[str, ...], seed: int) -> None:
    done = LikelihoodRanker(tokenize, EOS).rank({0: allowed}, Model(seed), 8)[0].completion(ROW, 1)
    assert done.candidates is not None
    shares = [share for _, share in done.candidates]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert shares == sorted(shares, reverse=True)
    assert done.logprob is not None
    assert exp(done.logprob) <= shares[0] + 1e-4
