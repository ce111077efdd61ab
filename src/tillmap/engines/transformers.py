"""transformers' own generate, in padded batches: slower than vLLM, and runs wherever PyTorch does."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tillmap.engines import Completion, Generation, Machine, Question, failed, finished
from tillmap.errors import ModelError
from tillmap.trie import TokenTrie


class TransformersEngine:
    """A causal language model answered by `generate`."""

    def __init__(self, model: Path, machine: Machine, generation: Generation) -> None:
        """Load the model. Raises ModelError where it cannot be read."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._machine, self._generation = machine, generation
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = machine.dtype if machine.dtype == "auto" else getattr(torch, machine.dtype)
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
            self._model = (
                AutoModelForCausalLM.from_pretrained(model, dtype=dtype, use_safetensors=True).to(device).eval()
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{model}: transformers cannot read this checkpoint ({error}); fetch it again") from error
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._every_token = list(range(len(self._tokenizer)))

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """Greedy or sampled answers; too long a question gets an `error`. Rows are sampled alone, by their seeds."""
        prompts = [self._text(question) for question in questions]
        lengths = [len(ids) for ids in self._tokenizer(prompts, add_special_tokens=False)["input_ids"]]
        room = self._machine.max_model_len - self._generation.max_new_tokens
        fitting = [place for place, length in enumerate(lengths) if length <= room]
        batches = [fitting] if self._generation.temperature == 0 else [[place] for place in fitting]
        answers: dict[int, Completion] = {}
        for batch in filter(None, batches):
            answers |= self._generate({place: questions[place] for place in batch}, [prompts[place] for place in batch])
        return [
            answers.get(place)
            or failed(
                question, f"the question has {lengths[place]} tokens; engine.max_model_len leaves room for {room}"
            )
            for place, question in enumerate(questions)
        ]

    def _generate(self, asked: dict[int, Question], prompts: list[str]) -> dict[int, Completion]:
        import torch

        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(
            self._model.device
        )
        drawn = self._generation.temperature > 0
        start = inputs["input_ids"].shape[1]
        tries = [self._trie(self._generation.allowed(question)) for question in asked.values()]

        def allowed(row: int, tokens: "torch.Tensor") -> list[int]:
            trie = tries[row]
            return self._every_token if trie is None else trie.allowed(tokens[start:].tolist())

        if drawn:
            torch.manual_seed(self._generation.seed_for(next(iter(asked.values()))))
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                do_sample=drawn,
                temperature=self._generation.temperature if drawn else None,
                max_new_tokens=self._generation.max_new_tokens,
                prefix_allowed_tokens_fn=allowed if any(tries) else None,
                return_dict_in_generate=True,
                output_logits=True,
            )
        new = output.sequences[:, start:]
        logprobs = torch.stack(output.logits, dim=1).float().log_softmax(-1).gather(-1, new.unsqueeze(-1)).squeeze(-1)
        ends = (new == self._tokenizer.eos_token_id).long()
        written = ends.cumsum(-1) - ends == 0  # up to the first eos, which is part of an answer as it is in vLLM
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

    @lru_cache(maxsize=256)  # noqa: B019  # an engine lives as long as its process
    def _trie(self, answers: tuple[str, ...] | None) -> TokenTrie | None:
        if answers is None:
            return None
        tokens = self._tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        return TokenTrie(tokens, self._tokenizer.eos_token_id)

    def _text(self, question: Question) -> str:
        return str(self._tokenizer.apply_chat_template(question.messages, add_generation_prompt=True, tokenize=False))
