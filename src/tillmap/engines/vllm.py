"""vLLM in this process."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from tillmap.engines import Completion, Generation, Machine, Question, failed, finished
from tillmap.errors import ModelError, ResourceError

# Read by vLLM when it is imported: one process, so that a killed stage leaves no worker behind.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

_GIB = 2**30


class VllmEngine:
    """A model served by vLLM with prefix caching."""

    def __init__(self, model: Path, machine: Machine, generation: Generation) -> None:
        """Load the model. Raises ResourceError where it does not fit, ModelError where it cannot be read."""
        from vllm import LLM

        self._machine, self._generation = machine, generation
        memory = {} if machine.kv_cache_gib is None else {"kv_cache_memory_bytes": int(machine.kv_cache_gib * _GIB)}
        try:
            self._llm = LLM(
                str(model),
                dtype=machine.dtype,
                max_model_len=machine.max_model_len,
                max_num_seqs=machine.batch_rows,
                enforce_eager=machine.eager,
                enable_prefix_caching=True,
                trust_remote_code=False,
                seed=generation.seed,
                **memory,
            )
        except (MemoryError, RuntimeError, ValueError) as error:
            kind = ResourceError if "memory" in str(error).lower() else ModelError
            raise kind(
                f"{model}: vLLM could not start ({_first_line(error)}); lower engine.kv_cache_gib or "
                "engine.max_model_len, or set the arm's engine to transformers"
            ) from error
        self._tokenizer = self._llm.get_tokenizer()
        logging.getLogger("vllm").setLevel(logging.ERROR)

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """Greedy or sampled answers; too long a question gets an `error` and never disturbs its batch."""
        # What earlier batches left in the cache changes the shapes of later sums, and so their last bits: an
        # interrupted run would not repeat exactly what an unbroken one wrote.
        self._llm.reset_prefix_cache()
        prompts = [self._tokens(question) for question in questions]
        room = self._machine.max_model_len - self._generation.max_new_tokens
        fitting = [place for place, prompt in enumerate(prompts) if len(prompt) <= room]
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompts[place]} for place in fitting],
            [self._sampling(questions[place]) for place in fitting],
            use_tqdm=False,
        )
        answers = dict(zip(fitting, outputs, strict=True))
        return [
            _completion(question, answers[place])
            if place in answers
            else failed(
                question, f"the question has {len(prompts[place])} tokens; engine.max_model_len leaves room for {room}"
            )
            for place, question in enumerate(questions)
        ]

    def _tokens(self, question: Question) -> list[int]:
        # The template writes its own BOS, so none is added again.
        text = self._tokenizer.apply_chat_template(question.messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _sampling(self, question: Question):  # type: ignore[no-untyped-def]  # vLLM is an optional import
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        allowed = self._generation.allowed(question)
        drawn = self._generation.temperature > 0
        return SamplingParams(
            temperature=self._generation.temperature,
            max_tokens=self._generation.max_new_tokens,
            seed=self._generation.seed_for(question) if drawn else None,
            logprobs=0,
            structured_outputs=StructuredOutputsParams(choice=list(allowed)) if allowed else None,
        )


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
