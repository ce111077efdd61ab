"""The vLLM engine, in this process."""

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tillmap.core.completions import Completion, Question, failed, finished
from tillmap.core.errors import ModelError, ResourceError, TillmapError, cause, lacks_room
from tillmap.core.run_state import scratch
from tillmap.llm.chat import chat_text
from tillmap.llm.checkpoints import check_adapter
from tillmap.llm.engines.vllm_requests import PromptScorer, grammar_of, grammars_parsed_once, max_bytes
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.llm.likelihood import LikelihoodRanker

# vLLM reads these when it is imported. One process, so that a killed stage leaves no worker process behind.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

_GIB = 2**30
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm.config.lora.MaxLoRARanks of 0.32


class VllmEngine:
    """A model in vLLM, with prefix caching. `generation` may be changed between batches."""

    def __init__(self, model: Path, machine: Machine, generation: Generation, adapter: Path | None = None) -> None:
        """Load the model and its adapter. Raises ResourceError if memory is too small, else ModelError."""
        from vllm import LLM
        from vllm.lora.request import LoRARequest
        from vllm.platforms import current_platform

        self.generation = generation
        self._machine = machine
        # A batch that mixes requests with and without an adapter gets wrong answers, so all requests have it or none.
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(adapter))
        options: dict[str, Any] = {"gpu_memory_utilization": machine.gpu_memory_utilization}
        if machine.kv_cache_gib is not None:
            options["kv_cache_memory_bytes"] = int(machine.kv_cache_gib * _GIB)
        if adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": _max_rank_for(check_adapter(adapter))}
        if current_platform.is_cpu():
            # Only full blocks are cached. A CPU block has 128 tokens, which the start that questions share does not
            # fill; and of a question that is asked again for each of its answers, the end would be computed each time.
            options["block_size"] = 32
        with ExitStack() as held:
            try:
                with _without_llvmlite(), _temporary_files_in(held.enter_context(scratch())):
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
            except TillmapError:
                raise
            except Exception as error:  # whatever it is: a driver, a compiler, a kind of model that vLLM does not take
                raise _unable(model, error) from error
            self._held = held.pop_all()
        self._tokenizer = self._llm.get_tokenizer()
        self._ranker = LikelihoodRanker(
            lambda texts: [list(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts],
            self._tokenizer.eos_token_id,
        )
        logging.getLogger("vllm").setLevel(logging.ERROR)

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """See `Engine.answer`. A question that is too long gets an `error`; the others of its batch are answered."""
        # What is cached changes the shapes of later sums and so their last bits. With an empty cache a resumed run
        # gives the same bytes as an uninterrupted one.
        self._llm.reset_prefix_cache()
        prompts = [self._tokens(question) for question in questions]
        room = self._machine.max_model_len - self.generation.max_new_tokens
        fitting = [place for place, prompt in enumerate(prompts) if len(prompt) <= room]
        likelihood = self.generation.choose == "likelihood"
        allowed = {place: self.generation.allowed(questions[place]) for place in fitting if likelihood}
        ranked = self._ranker.rank(
            {place: answers for place, answers in allowed.items() if answers},
            PromptScorer(self._generate, prompts),
            self.generation.beams,
        )
        decoded = [place for place in fitting if place not in ranked]
        outputs = self._generate(
            [prompts[place] for place in decoded],
            [self._sampling(questions[place], len(prompts[place])) for place in decoded],
        )
        answers = {place: _completion(questions[place], output) for place, output in zip(decoded, outputs, strict=True)}
        for place, found in ranked.items():
            answers[place] = found.completion(questions[place], len(prompts[place]))
        return [
            answers.get(place)
            or failed(
                question, f"the question has {len(prompts[place])} tokens; engine.max_model_len leaves room for {room}"
            )
            for place, question in enumerate(questions)
        ]

    def close(self) -> None:
        """See `LoadedEngine.close`. Other engines of vLLM in this process end with it: they share its process group."""
        import torch

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()  # the model refers to itself
        self._held.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _generate(self, prompts: Sequence[Sequence[int]], sampling: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        tokens = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        with grammars_parsed_once():
            return list(self._llm.generate(tokens, list(sampling), use_tqdm=False, lora_request=self._adapter))

    def _tokens(self, question: Question) -> list[int]:
        # The chat template adds the BOS, so the tokenizer must not add another one.
        text = chat_text(self._tokenizer, question.messages, ask=True)
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _sampling(self, question: Question, prompt_tokens: int):  # type: ignore[no-untyped-def]  # vLLM is an optional import
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        allowed, form = self.generation.allowed(question), self.generation.open_to(question)
        drawn = self.generation.temperature > 0
        longest, structure = self.generation.max_new_tokens, None
        if form or allowed:
            # A cut answer would be none. In the worst case each byte of an answer is a token.
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


def _unable(model: Path, error: Exception) -> TillmapError:
    """Why vLLM did not start, and what to do."""
    said = f"{model}: vLLM could not start ({cause(error)})"
    if problem := lacks_room(error):
        return ResourceError(f"{said}; {problem}: free some space, among the temporary files, too")
    if "memory" in str(error).lower():
        return ResourceError(
            f"{said}; lower engine.max_model_len, engine.batch_rows or engine.kv_cache_gib, raise "
            "engine.gpu_memory_utilization if the GPU is free otherwise, or choose a smaller base"
        )
    if "quantization" in cause(error):
        return ModelError(
            f"{said}; set the arm's engine to transformers or, for a tuned arm, engine.lora to merge (this unpacks it)"
        )
    return ModelError(f"{said}; set the arm's engine to transformers, or remove the cause: docs/gpu.md")


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let vLLM make its temporary files in a folder, where the next run finds those that a kill leaves.

    torch takes the name of one of them as a URL, without quotes, so a folder with such signs is not used.
    """
    before = tempfile.tempdir
    if not {"#", "?"} & set(str(folder)):
        tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _without_llvmlite() -> Iterator[None]:
    """Hide llvmlite's module of LLVM functions from vLLM.

    vLLM 0.32 searches all loaded modules for its kernels. That module has an attribute for any name, so vLLM would take
    it for one that has them.
    """
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


def _max_rank_for(rank: int) -> int:
    """The smallest maximum rank of vLLM that an adapter of this rank fits into."""
    fitting = [most for most in _RANKS if most >= rank]
    if not fitting:
        raise ModelError(
            f"the adapter has rank {rank}, vLLM takes at most {_RANKS[-1]}; set the arm's engine to transformers"
        )
    return fitting[0]
