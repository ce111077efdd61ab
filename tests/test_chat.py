"""Chat templates: no thinking, no date of today, and bases that cannot chat."""

import shutil

import pytest

from tillmap.core.completions import Question
from tillmap.llm.chat import chat_text
from tillmap.llm.engines.transformers import TransformersEngine
from tillmap.llm.interface.generation import Generation, Machine

THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}"
)
MILK = [{"role": "user", "content": "milk"}]


@pytest.fixture
def tokenizer(tiny):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


def test_a_model_that_may_think_is_told_not_to(tokenizer):
    tokenizer.chat_template = THINKING
    assert chat_text(tokenizer, MILK, ask=True) == "<|user|>milk<|im_end|><|assistant|><think></think>"
    assert chat_text(tokenizer, MILK, ask=False) == "<|user|>milk<|im_end|>"


def test_a_prompt_does_not_depend_on_the_day(tokenizer):
    tokenizer.chat_template = DATED
    assert chat_text(tokenizer, MILK, ask=True) == "26 Jul 2024"


def test_an_engine_asks_in_the_text_that_training_shows(tiny, tokenizer, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(THINKING)
    tokenizer.chat_template = THINKING
    engine = TransformersEngine(tmp_path / "model", Machine("float32", 64, 2, 0.1, eager=True), Generation(2, 0.0, 0))
    [answer] = engine.answer([Question("test", 0, MILK)])
    shown = tokenizer.encode(chat_text(tokenizer, MILK, ask=True), add_special_tokens=False)
    assert answer.prompt_tokens == len(shown)
