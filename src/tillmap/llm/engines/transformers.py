"""The transformers engine: `generate` in padded batches. It is slower than vLLM and runs wherever PyTorch does."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property, lru_cache
from pathlib import Path

from tillmap.core.completions import Completion, Question, failed, finished
from tillmap.core.errors import ModelError, ResourceError, first_line, model_errors
from tillmap.llm.chat import chat_text
from tillmap.llm.interface.answer_formats import OpenAnswers
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.llm.likelihood import LikelihoodRanker, RankedAnswers, Scored, Start
from tillmap.llm.token_trie import OpenTrie, TokenTrie

_ROWS_SCORED = 32  # answers to one question in one forward pass


class TransformersEngine:
    """A causal language model and `generate`. `generation` may be changed between batches."""

    def __init__(self, model: Path, machine: Machine, generation: Generation, adapter: Path | None = None) -> None:
        """Load the model and its adapter.

        Raises ModelError if one is invalid or they do not fit together, ResourceError if the GPU's memory is too small.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.generation = generation
        self._machine = machine
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = machine.dtype if machine.dtype == "auto" else getattr(torch, machine.dtype)
        self._folder = model
        with self._told("load"):
            self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
            if self._tokenizer.pad_token is None:
                self._tokenizer.pad_token = self._tokenizer.eos_token
            self._tokenizer(["tea", "a"], padding=True)
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, use_safetensors=True)
            self._model = loaded.to(device).eval()
        if adapter is not None:
            self._model = _adapted(self._model, adapter)
        self._every_token = list(range(len(self._tokenizer)))
        self._trie = lru_cache(maxsize=256)(self._make_trie)  # on the method, it would keep every engine in memory
        self._ranker = LikelihoodRanker(self._tokens, self._tokenizer.eos_token_id)

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """See `Engine.answer`. A question that is too long gets an `error`. Sampled rows are batches of their own."""
        prompts = [self._text(question) for question in questions]
        lengths = [len(ids) for ids in self._tokenizer(prompts, add_special_tokens=False)["input_ids"]]
        room = self._machine.max_model_len - self.generation.max_new_tokens
        fitting = [place for place, length in enumerate(lengths) if length <= room]
        answers: dict[int, Completion] = {}
        for place in fitting:
            allowed = self.generation.allowed(questions[place])
            if allowed and self.generation.choose == "likelihood":
                ranked = self._rank(prompts[place], allowed)
                answers[place] = ranked.completion(questions[place], lengths[place])
        decoded = [place for place in fitting if place not in answers]
        size = self._machine.batch_rows if self.generation.temperature == 0 else 1
        for batch in (decoded[first : first + size] for first in range(0, len(decoded), size)):
            answers |= self._generate({place: questions[place] for place in batch}, [prompts[place] for place in batch])
        return [
            answers.get(place)
            or failed(
                question, f"the question has {lengths[place]} tokens; engine.max_model_len leaves room for {room}"
            )
            for place, question in enumerate(questions)
        ]

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Raise ResourceError if the GPU's memory is too small, ModelError for any other fault in the block."""
        import torch

        with model_errors(f"{self._folder}: transformers cannot {what} this checkpoint", "fetch it again"):
            try:
                yield
            except torch.OutOfMemoryError as error:
                raise ResourceError(
                    f"{self._folder}: too little memory on the GPU ({first_line(error)}); choose a smaller or a 4-bit "
                    "base"
                ) from error

    def close(self) -> None:
        """See `LoadedEngine.close`."""
        import torch

        del self._model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _generate(self, asked: dict[int, Question], prompts: list[str]) -> dict[int, Completion]:
        import torch

        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(
            self._model.device
        )
        drawn = self.generation.temperature > 0
        start = inputs["input_ids"].shape[1]
        tries = [
            self._trie(self.generation.allowed(question), self.generation.open_to(question))
            for question in asked.values()
        ]
        longest = max(trie.longest if trie else 0 for trie in tries)  # so that no allowed answer is cut

        def allowed(row: int, tokens: "torch.Tensor") -> list[int]:
            trie = tries[row]
            return self._every_token if trie is None else trie.allowed(tokens[start:].tolist())

        if drawn:
            torch.manual_seed(self.generation.seed_for(next(iter(asked.values()))))
        with self._told("run"), torch.inference_mode():
            output = self._model.generate(
                **inputs,
                do_sample=drawn,
                temperature=self.generation.temperature if drawn else None,
                max_new_tokens=max(self.generation.max_new_tokens, longest),
                prefix_allowed_tokens_fn=allowed if any(tries) else None,
                return_dict_in_generate=True,
                output_logits=True,
            )
        new = output.sequences[:, start:]
        logprobs = torch.stack(output.logits, dim=1).float().log_softmax(-1).gather(-1, new.unsqueeze(-1)).squeeze(-1)
        ends = (new == self._tokenizer.eos_token_id).long()
        written = ends.cumsum(-1) - ends == 0  # up to the first eos, which counts as part of the answer, as in vLLM
        completions = {}
        for row, (place, question) in enumerate(asked.items()):
            tokens = new[row][written[row]]
            completions[place] = finished(
                question,
                self._tokenizer.decode(tokens, skip_special_tokens=True),
                logprob=round(float(logprobs[row][written[row]].sum()), 4),
                prompt_tokens=int(inputs["attention_mask"][row].sum()),
                completion_tokens=len(tokens),
            )
        return completions

    def _rank(self, prompt: str, allowed: tuple[str, ...]) -> RankedAnswers:
        """Rank the allowed answers. The keys and values of the prompt are computed once."""
        import torch

        ids = self._tokenizer([prompt], return_tensors="pt", add_special_tokens=False)["input_ids"]
        with self._told("run"), torch.inference_mode():
            output = self._model(ids.to(self._model.device), use_cache=True, logits_to_keep=1)

            def score(asked: Sequence[Start]) -> list[Scored]:
                return [
                    scored
                    for first in range(0, len(asked), _ROWS_SCORED)
                    for scored in self._score(ids.shape[1], output, asked[first : first + _ROWS_SCORED])
                ]

            return self._ranker.rank({0: allowed}, score, self.generation.beams)[0]

    def _score(self, length: int, prompt, asked: Sequence[Start]) -> list[Scored]:  # type: ignore[no-untyped-def]
        """Score starts of answers to one question of `length` tokens; `prompt` is the model's output for it."""
        import torch

        width = max(len(start.tokens) for start in asked)
        logits = prompt.logits.float().expand(len(asked), 1, -1)  # at position i: for the i-th token of an answer
        if width:
            padding = [[0] * (width - len(start.tokens)) for start in asked]
            tokens = torch.tensor([[*start.tokens, *zeros] for start, zeros in zip(asked, padding, strict=True)])
            mask = torch.tensor([[1] * (length + width - len(zeros)) + zeros for zeros in padding])
            cache = deepcopy(prompt.past_key_values)
            cache.batch_repeat_interleave(len(asked))
            device = self._model.device
            more = self._model(tokens.to(device), attention_mask=mask.to(device), past_key_values=cache)
            logits = torch.cat([logits, more.logits.float()], dim=1)
        logprobs = logits - logits.logsumexp(-1, keepdim=True)
        return [
            Scored(
                float(logprobs[row, range(len(start.tokens)), list(start.tokens)].double().sum()),
                {token: float(logprobs[row, len(start.tokens), token]) for token in start.following},
            )
            for row, start in enumerate(asked)
        ]

    def _make_trie(self, answers: tuple[str, ...] | None, form: OpenAnswers | None) -> TokenTrie | OpenTrie | None:
        eos = self._tokenizer.eos_token_id
        known = TokenTrie(self._tokens(list(answers)), eos) if answers else None
        if form is None:
            return known
        openings = self._tokens(list(form.openings))
        closing = self._tokens([form.closing])[0] if form.closing else []
        return OpenTrie(known, openings, form, closing=closing, texts=self._vocabulary, eos=eos)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return list(self._tokenizer(texts, add_special_tokens=False)["input_ids"])

    @cached_property
    def _vocabulary(self) -> dict[int, str]:
        """The text of each token inside a text.

        Some tokenizers drop the space of the first token, so each is decoded after the letter "a": " tea" stays " tea".
        """
        special = {*self._tokenizer.all_special_ids, *self._tokenizer.added_tokens_decoder}
        plain = [token for token in self._every_token if token not in special]
        [[*_, letter]] = self._tokens(["a"])
        behind = len(self._tokenizer.decode([letter]))
        texts = self._tokenizer.batch_decode([[letter, token] for token in plain])
        return {token: text[behind:] for token, text in zip(plain, texts, strict=True)}

    def _text(self, question: Question) -> str:
        return chat_text(self._tokenizer, question.messages, ask=True)


def _adapted(model, adapter: Path):  # type: ignore[no-untyped-def]
    """The model with the adapter. Raises ModelError if they do not fit together."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    with model_errors(f"{adapter}: the adapter does not fit its base", "train it on this base"):
        adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        missing = set(get_peft_model_state_dict(adapted, save_embedding_layers=False)) - set(file.keys())
    if missing:  # PEFT only warns, and the model would answer like the base
        raise ModelError(
            f"{adapter}: the adapter lacks weights for its base, the first {min(missing)}; train it on this base"
        )
    return adapted
