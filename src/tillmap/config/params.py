"""The one schema of params.yaml, and errors that name the line."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tillmap.core.errors import ParamsError

Share = Annotated[float, Field(gt=0, lt=0.5)]
Count = Annotated[int, Field(ge=1)]
Price = Annotated[float, Field(ge=0)]
Policy = Literal["stratified", "per_path", "by_retailer", "all"]
RetrieverName = Literal["lexical", "dense", "hybrid"]


class Section(BaseModel):
    """A block of params.yaml. Types are strict: `"3"` is no number, `yes` no switch."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Run(Section):
    nearest: bool
    linear: bool
    rag: bool
    llama: bool
    openai: bool
    cascade: bool
    vote: bool


class Data(Section):
    source: Annotated[str, Field(min_length=1)]
    on_bad_row: Literal["stop", "quarantine"]


class Demo(Section):
    train_rows: Annotated[int, Field(ge=100)]
    test_rows: Annotated[int, Field(ge=20)]


class Split(Section):
    by: Literal["product", "row"]
    dev: Share
    calibration: Share
    calibration_rows: Annotated[int, Field(ge=0)]
    holdout: Share


class Embedding(Section):
    model: Annotated[str, Field(min_length=1)]
    revision: str | None
    batch_size: Count
    flat_up_to: Count


class Retrieval(Section):
    k: Annotated[int, Field(ge=1, le=1000)]
    same_retailer: bool
    price_ratio: Annotated[float, Field(gt=1)] | None
    hybrid_weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]
    min_kept: Annotated[int, Field(ge=0)]


class Nearest(Section):
    retriever: RetrieverName
    k: Count
    power: Annotated[float, Field(ge=0)]


class Linear(Section):
    epochs: Count
    ngrams: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=2, max_length=2)]
    price: bool | Literal["auto"]
    retailer: bool | Literal["auto"]
    trial_rows: Annotated[int, Field(ge=100)]
    weights_mib: Annotated[float, Field(gt=0)]
    unseen_paths: bool
    refit_up_to: Annotated[int, Field(ge=0)]


class Questions(Section):
    """What the arms that ask a language model have in common, wherever it runs."""

    recipe: Literal["ours", "gradientgurus"]
    retriever: RetrieverName
    show_retailer: bool
    show_price: bool
    show_numbers: bool
    answer_format: Literal["short", "joined", "json"]
    constrain: Literal["off", "tree", "retrieved"]
    widen: Literal["module", "group"] | None
    unseen_brand: bool
    held_out_rows: Annotated[int, Field(ge=0)]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)]
    temperature: Annotated[float, Field(ge=0, le=2)]


class LanguageModel(Questions):
    """What the arms that ask a local language model have in common."""

    choose: Literal["greedy", "likelihood"]
    engine: Literal["vllm", "transformers"]
    base: Annotated[str, Field(min_length=1)]
    revision: str | None


class Rag(LanguageModel):
    examples: Annotated[int, Field(ge=0, le=100)]


class Llama(LanguageModel):
    sample_rows: Count
    sample_policy: Policy


class TrainLlama(Section):
    """Null takes the value of `llama.recipe`, see training/recipes.py."""

    epochs: Annotated[float, Field(gt=0)] | None
    learning_rate: Annotated[float, Field(gt=0)] | None
    schedule: Literal["linear", "cosine"] | None
    warmup_steps: Annotated[float, Field(ge=0)] | None
    batch_rows: Count | None
    accumulation: Count | None
    max_seq_length: Annotated[int, Field(ge=16)] | None
    lora_rank: Count | None
    lora_alpha: Count | None
    dtype: Literal["float32", "bfloat16", "float16"] | None
    load_in_4bit: bool | None
    checkpoint_steps: Count
    merge: Literal["fp32", "16bit"] | None
    hub_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None


class OpenAI(Questions):
    mode: Literal["tuned", "retrieved"]
    model: Annotated[str, Field(min_length=1)]
    sample_rows: Count
    sample_policy: Policy
    examples: Annotated[int, Field(ge=0, le=100)]
    constraint: Literal["off", "structured_outputs", "json_schema"]
    unseen_brand: Literal[False]
    engine: Literal["openai_batch", "openai_server"]
    request: dict[str, Any]


class TrainOpenAI(Section):
    tuned_model: str | None
    epochs: Annotated[int, Field(ge=1, le=50)]
    batch_size: Annotated[int, Field(ge=1, le=256)] | None
    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None


class Asked(Section):
    """Dollars for a million tokens."""

    input: Price
    cached_input: Price
    output: Price


class Prices(Section):
    date: str
    source: str
    training: Price
    tuned: Asked
    tuned_batch: Asked
    untuned: Asked
    untuned_batch: Asked


class Provider(Section):
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]
    suffix: Annotated[str, Field(min_length=1, max_length=64)]
    budget_usd: Price
    poll_seconds: Annotated[float, Field(gt=0)]
    settle_seconds: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]
    requests: Annotated[int, Field(ge=1, le=50_000)]
    file_bytes: Count
    enqueued_tokens: Count
    concurrency: Count
    requests_a_minute: Annotated[float, Field(gt=0)] | None
    prices: Prices


class Cascade(Section):
    llm: Literal["rag", "llama", "openai"]
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] | None
    budget_usd: Price | None
    candidates: Annotated[int, Field(ge=1, le=100)]
    show_candidates: Literal["untuned", "always", "never"]
    constrain: Literal["off", "candidates"]
    held_out_rows: Count


class Vote(Section):
    arms: Annotated[list[Literal["nearest", "linear", "rag", "llama", "openai"]], Field(min_length=1)]


class Review(Section):
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None


class Costs(Section):
    gpu_usd_per_hour: Price
    cpu_usd_per_hour: Price


class Engine(Section):
    dtype: Literal["float32", "bfloat16", "float16", "auto"]
    max_model_len: Annotated[int, Field(ge=64)]
    batch_rows: Count
    kv_cache_gib: Annotated[float, Field(gt=0)] | None
    eager: bool
    lora: Literal["merge", "serve"]


class Postprocess(Section):
    repair: bool
    embed: bool
    min_similarity: Annotated[float, Field(ge=0, le=1)]


class Evaluate(Section):
    resamples: Annotated[int, Field(ge=100)]


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    run: Run
    data: Data
    demo: Demo
    split: Split
    embedding: Embedding
    retrieval: Retrieval
    nearest: Nearest
    linear: Linear
    rag: Rag
    llama: Llama
    train_llama: TrainLlama
    openai: OpenAI
    train_openai: TrainOpenAI
    provider: Provider
    cascade: Cascade
    vote: Vote
    review: Review
    costs: Costs
    engine: Engine
    postprocess: Postprocess
    evaluate: Evaluate

    def needs(self, arm: str) -> bool:
        """Whether an arm's model must be there: the arm is on, or the cascade asks it."""
        return getattr(self.run, arm) or (self.run.cascade and self.cascade.llm == arm)


ARMS = tuple(Run.model_fields)
TRAINED = tuple(arm for arm in ARMS if arm not in ("cascade", "vote"))  # those that label new rows by themselves


def read_params(path: Path, keys: Sequence[str] | None = None) -> Params:
    """Check the whole of params.yaml and return the top-level `keys` a stage declares (all, where none are given).

    A key is a block (`split`) or one value of a block (`run.rag`); reading anything else raises AttributeError, so
    that a stage cannot depend on what dvc.yaml does not know of.

    Raises ParamsError naming the line of the first mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: the file is not there; run this from the project's root") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not readable as UTF-8 text; restore it with `git checkout {path}`") from error
    params = check_params(text, path)
    return params if keys is None else _only(params, keys)


def check_params(text: str, path: Path) -> Params:
    """Check the text of a params.yaml; `path` is for errors. Raises ParamsError naming the first mistake's line."""
    try:
        tree = YAML().load(text)
    except (YAMLError, RecursionError) as error:  # nested too deep is no error of YAML's
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        raise ParamsError(f"{where}: not readable as YAML; check quotes and indentation") from error
    if not isinstance(tree, dict):
        raise ParamsError(
            f"{path}: expected blocks such as `run:`, found nothing; restore it with `git checkout {path}`"
        )
    try:
        return Params.model_validate(_plain(tree))
    except ValidationError as error:
        raise ParamsError(_explain(path, tree, error)) from None


def _only(params: Params, keys: Sequence[str]) -> Params:
    blocks: dict[str, set[str] | None] = {}
    for key in keys:
        name, _, leaf = key.partition(".")
        if not leaf:
            blocks[name] = None
        elif blocks.get(name, set()) is not None:
            blocks.setdefault(name, set()).add(leaf)  # type: ignore[union-attr]
    chosen: dict[str, Any] = {}
    for name, leaves in blocks.items():
        block = getattr(params, name)
        chosen[name] = (
            block if leaves is None else type(block).model_construct(**{leaf: getattr(block, leaf) for leaf in leaves})
        )
    return Params.model_construct(**chosen)


def _plain(node: Any) -> Any:
    """ruamel's own mapping and scalar classes as the built-in ones that strict types ask for."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(path: Path, tree: Any, error: ValidationError) -> str:
    # A misspelt key is both unknown and missing: the unknown one is what the user typed.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = [str(part) for part in first["loc"] if part not in ("float", "int", "constrained-str")]
    key, line = ".".join(location), _line(tree, location)
    where = f"{path}:{line}: {key}" if line else f"{path}: {key}"
    if first["type"] == "missing":
        return f"{where} is missing; add it (`git diff {path}` shows what changed)"
    if first["type"] == "extra_forbidden":
        known = _keys_beside(location)
        meant = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"known here: {', '.join(known)}"
        return f"{where} is not a parameter; {hint}"
    message = first["msg"][0].lower() + first["msg"][1:]
    if location[-1] == "key_variable":  # a key pasted here must not reach a log
        return f"{where}: {message}; name the environment variable that holds the key, never the key itself"
    return f"{where}: {message}, but it is {first['input']!r}; correct it there or with `-S {key}=VALUE`"


def _keys_beside(location: Sequence[str]) -> list[str]:
    fields = Params.model_fields
    for name in location[:-1]:
        block = fields[name].annotation if name in fields else None
        fields = block.model_fields if isinstance(block, type) and issubclass(block, BaseModel) else {}
    return list(fields)


def _line(tree: Any, location: Sequence[str]) -> int | None:
    """The 1-based line of a key, or of the nearest block around it that is there."""
    line = None
    for name in location:
        if not isinstance(tree, dict) or name not in tree:
            break
        line = tree.lc.key(name)[0] + 1  # type: ignore[attr-defined]  # ruamel's mapping, not a plain dict
        tree = tree[name]
    return line
