"""vLLM in this process."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tillmap.core.completions import Completion, Question, failed, finished
from tillmap.core.errors import ModelError, ResourceError
from tillmap.llm.checkpoints import check_adapter
from tillmap.llm.engines.vllm_requests import PromptScorer, grammar_of, max_bytes
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.llm.likelihood import LikelihoodRanker

# Read by vLLM when it is imported: one process, so that a killed stage leaves no worker behind.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

_GIB = 2**30
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora.MaxLoRARanks of 0.32


class VllmEngine:
    """A model served by vLLM with prefix caching. `generation` may be another from one batch to the next."""

    def __init__(self, model: Path, machine: Machine, generation: Generation, adapter: Path | None = None) -> None:
        """Load the model and its adapter. Raises ResourceError where they do not fit, ModelError otherwise."""
        from vllm import LLM
        from vllm.lora.request import LoRARequest
        from vllm.platforms import current_platform

        self.generation = generation
        self._machine = machine
        # A batch that mixed requests with and without an adapter would answer wrongly, so an engine has one kind only.
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(adapter))
        options: dict[str, Any] = {}
        if machine.kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(machine.kv_cache_gib * _GIB)
        if adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": _room_for(check_adapter(adapter))}
        if generation.choose == "likelihood" and current_platform.is_cpu():
            # Only whole blocks are cached. With the 128 tokens of a CPU's, many answers to one question would each
            # compute the end of it anew.
            options["block_size"] = 32
        try:
            with _numba_out_of_sight():
                self._llm = LLM(
                    str(model),
                    dtype=machine.dtype,
                    max_model_len=machine.max_model_len,
                    max_num_seqs=machine.batch_rows,
                    enforce_eager=machine.eager,
                    enable_prefix_caching=True,
                    trust_remote_code=False,
                    seed=generation.seed,
                    **options,
                )
            if self._adapter is not None:
                self._llm.llm_engine.add_lora(self._adapter)
        except (MemoryError, RuntimeError, ValueError) as error:
            kind = ResourceError if "memory" in str(error).lower() else ModelError
            raise kind(
                f"{model}: vLLM could not start ({_first_line(error)}); lower engine.kv_cache_gib or "
                "engine.max_model_len, or set the arm's engine to transformers"
            ) from error
        self._tokenizer = self._llm.get_tokenizer()
        self._chooser = LikelihoodRanker(
            lambda texts: [list(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts],
            self._tokenizer.eos_token_id,
        )
        logging.getLogger("vllm").setLevel(logging.ERROR)

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """Greedy or sampled answers; too long a question gets an `error` and never disturbs its batch."""
        # What earlier batches left in the cache changes the shapes of later sums, and so their last bits: an
        # interrupted run would not repeat exactly what an unbroken one wrote.
        self._llm.reset_prefix_cache()
        prompts = [self._tokens(question) for question in questions]
        room = self._machine.max_model_len - self.generation.max_new_tokens
        fitting = [place for place, prompt in enumerate(prompts) if len(prompt) <= room]
        likelihood = self.generation.choose == "likelihood"
        allowed = {place: self.generation.allowed(questions[place]) for place in fitting if likelihood}
        choices = self._chooser.choose(
            {place: answers for place, answers in allowed.items() if answers},
            PromptScorer(self._generate, prompts),
            self.generation.beams,
        )
        decoded = [place for place in fitting if place not in choices]
        outputs = self._generate(
            [prompts[place] for place in decoded],
            [self._sampling(questions[place], len(prompts[place])) for place in decoded],
        )
        answers = {place: _completion(questions[place], output) for place, output in zip(decoded, outputs, strict=True)}
        for place, choice in choices.items():
            answers[place] = choice.completion(questions[place], len(prompts[place]))
        return [
            answers.get(place)
            or failed(
                question, f"the question has {len(prompts[place])} tokens; engine.max_model_len leaves room for {room}"
            )
            for place, question in enumerate(questions)
        ]

    def _generate(self, prompts: Sequence[Sequence[int]], sampling: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        tokens = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return list(self._llm.generate(tokens, list(sampling), use_tqdm=False, lora_request=self._adapter))

    def _tokens(self, question: Question) -> list[int]:
        # The template writes its own BOS, so none is added again.
        text = self._tokenizer.apply_chat_template(question.messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _sampling(self, question: Question, prompt_tokens: int):  # type: ignore[no-untyped-def]  # vLLM is an optional import
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        allowed, form = self.generation.allowed(question), self.generation.open_to(question)
        drawn = self.generation.temperature > 0
        longest, structure = self.generation.max_new_tokens, None
        if form or allowed:
            # Cut short it would be no answer, and in the worst case each of its bytes is a token.
            most = max(longest, max_bytes(allowed or (), form) + 1)
            longest = min(most, self._machine.max_model_len - prompt_tokens)
            structure = StructuredOutputsParams(grammar=grammar_of(allowed or (), form))
        return SamplingParams(
            temperature=self.generation.temperature,
            max_tokens=longest,
            seed=self.generation.seed_for(question) if drawn else None,
            logprobs=0,
            structured_outputs=structure,
        )


@contextmanager
def _numba_out_of_sight() -> Iterator[None]:
    """vLLM 0.32 looks through the names of every loaded module for its kernels, and takes numba's handle on LLVM, which
    answers to any name, for one of their owners."""
    name = "llvmlite.binding.ffi"
    module = sys.modules.pop(name, None)
    try:
        yield
    finally:
        if module is not None:
            sys.modules[name] = module


def _completion(question: Question, output) -> Completion:  # type: ignore[no-untyped-def]
    answer = output.outputs[0]
    return finished(
        question,
        answer.text,
        logprob=round(float(answer.cumulative_logprob), 4),
        prompt_tokens=len(output.prompt_token_ids),
        cached_tokens=output.num_cached_tokens or 0,
        completion_tokens=len(answer.token_ids),
    )


def _room_for(rank: int) -> int:
    """The least rank that vLLM provides for and that holds this one."""
    fitting = [room for room in _RANKS if room >= rank]
    if not fitting:
        raise ModelError(
            f"vLLM takes adapters up to rank {_RANKS[-1]}, not {rank}; set the arm's engine to transformers"
        )
    return fitting[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
