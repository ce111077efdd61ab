"""Grammars as xgrammar reads them, and brands as they allow them."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree
from tillmap.llm.engines import vllm_requests
from tillmap.llm.engines.vllm_requests import grammar_of, grammars_parsed_once, max_bytes
from tillmap.llm.interface.answer_formats import make_answer_format


@cache
def compiler():
    import xgrammar  # with torch: only where it is used, for pytest imports this file whichever tests it runs

    one_byte_tokens = [bytes([byte]) for byte in range(1, 256)] + [b"</s>"]
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(one_byte_tokens, stop_token_ids=[255]), max_threads=1)


def reads(grammar: str, texts: list[str]) -> list[bool]:
    """Which texts are whole sentences of a grammar."""
    import xgrammar

    compiled = compiler().compile_grammar(grammar)
    found = []
    for text in texts:
        matcher = xgrammar.GrammarMatcher(compiled)
        found.append(matcher.accept_string(text) and matcher.accept_token(255))
    return found


@settings(max_examples=50)
@given(
    answers=st.lists(st.text('ab|\\"é你 ', min_size=1, max_size=6), min_size=1, max_size=200, unique=True),
    others=st.lists(st.text('ab|\\"é你 ', max_size=6), max_size=20),
)
def test_a_grammar_allows_its_answers_and_nothing_else(answers: list[str], others: list[str]) -> None:
    texts = [*answers, *others]
    assert reads(grammar_of(tuple(answers), None), texts) == [text in answers for text in texts]


PATHS = [("care", "bath", "soap", "lux"), ("care", "bath", "soap", 'a|b"c\\\\_d'), ("hot", "teas", "tea é", "_t")]
TREE = LabelTree(CONTEST, tuple(LabelPath(*path) for path in sorted(PATHS)), (1,) * 3)


@pytest.mark.parametrize("name", ["short", "joined", "json"])
@settings(max_examples=50)
@given(brand=st.text('ab\\"|_ é\n\u3000', max_size=6) | st.text(max_size=50))
def test_a_free_brand_is_allowed_as_its_form_says(name: str, brand: str) -> None:
    answer_format = make_answer_format(name, TREE)
    form = answer_format.open_answers
    texts = [opening + form.lead + brand + form.closing for opening in form.openings]
    grammar = grammar_of(tuple(answer_format.answers), form)
    for text, allowed in zip(texts, reads(grammar, texts), strict=True):
        assert allowed == bool(form.pattern.fullmatch(text) or answer_format.decode(text))
        assert not allowed or (
            answer_format.decode_open(text) is not None
            and len(text.encode()) <= max_bytes(tuple(answer_format.answers), form)
        )
    assert all(reads(grammar, list(answer_format.answers)))


def test_vllm_parses_each_grammar_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM does it, request by request."""
    import xgrammar
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    parsed, plain = [], xgrammar.Grammar.from_ebnf
    monkeypatch.setattr(xgrammar.Grammar, "from_ebnf", staticmethod(lambda text: parsed.append(text) or plain(text)))
    vllm_requests._parser.cache_clear()
    grammars = [grammar_of(("tea | tata", "tea | twinings"), None), grammar_of(("soap | lux",), None)]
    with grammars_parsed_once():
        for grammar in grammars * 3:
            wanted = StructuredOutputsParams(grammar=grammar)
            validate_xgrammar_grammar(SamplingParams(structured_outputs=wanted))
        with pytest.raises(VLLMValidationError, match="Invalid grammar"):
            validate_xgrammar_grammar(SamplingParams(structured_outputs=StructuredOutputsParams(grammar="root ::= (")))
    assert parsed == [*grammars, "root ::= ("]
    vllm_requests._parser.cache_clear()
