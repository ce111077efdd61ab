"""The blocks of params.yaml that belong to no arm, and the base classes of the arms' blocks.

params.yaml has a comment for each value.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tillmap.core.machine import MAX_THREADS
from tillmap.core.services import KeyVariable

MAX_NUMBER = 2**53  # of params.yaml; what is above is no amount of anything, and too large for numpy, torch and Arrow
Share = Annotated[float, Field(gt=0, lt=0.5)]
Count = Annotated[int, Field(ge=1)]  # of rows or steps; more than there are means all
# What multiplies the time or the memory of a run has a bound far above any use: a slip ends at once, not after days.
Epochs = Field(le=1000)
Batch = Annotated[int, Field(ge=1, le=100_000)]
MAX_TOKENS = 2**20  # of a model's context
Name = Annotated[str, Field(min_length=1)]
Price = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, le=10**6)]  # for which a process may sleep, or a socket wait
Rate = Annotated[float, Field(ge=0.001)]  # in a minute
Policy = Literal["stratified", "per_path", "by_retailer", "all"]
RetrieverName = Literal["lexical", "dense", "hybrid"]
Layout = Literal["list", "turns", "letters"]  # of label paths to choose from
Evidence = Literal["paths", "lexical", "dense", "hybrid"]  # of a prompt: label paths to choose from, or similar rows


CASCADE, VOTE = "cascade", "vote"
COMBINED = (CASCADE, VOTE)  # they combine the answers of other arms


class Section(BaseModel):
    """A block of params.yaml. Types are strict: `"3"` is not a number, and `yes` is not a boolean."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())

    @field_validator("*")
    @classmethod
    def _within_reach(cls, value: Any) -> Any:
        if isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                cls._within_reach(each)
        elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # nor NaN
            raise PydanticCustomError("number", "numbers should be from -2^53 to 2^53")
        return value


class Run(Section):
    """Which arms are on. `make_schema` adds a field for each arm that `tillmap.arms` finds.

    The order is that of params.yaml, because the first arm that is on is the reference of every comparison.
    """

    cascade: bool
    vote: bool
    pilot_rows: Annotated[int, Field(ge=1)] | None
    _order: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, values: Any, validate: Any) -> Any:
        run = validate(values)
        run._order = tuple(name for name in values if name in cls.model_fields and name != "pilot_rows")
        return run

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, on or off, with the cascade and the vote."""
        return self._order

    @property
    def own_answers(self) -> tuple[str, ...]:
        """The arms that do not combine others, on or off: all but the cascade and the vote."""
        return tuple(name for name in self._order if name not in COMBINED)

    @property
    def on(self) -> tuple[str, ...]:
        """The arms that are on."""
        return tuple(name for name in self._order if getattr(self, name))


class Columns(Section):
    """Which columns of a user's files have what."""

    id: Name | None
    text: Name | Annotated[list[Name], Field(min_length=1)]
    retailer: Name | None
    price: Name | None
    levels: Name | Annotated[list[Name], Field(min_length=1)] | None


class Data(Section):
    source: Name
    train: Name | None
    test: Name | None
    encoding: Name
    delimiter: Annotated[str, Field(pattern=r'^(?:\t|[^\w\s"])$')] | None
    decimal: Literal[".", ","] | None
    columns: Columns
    on_bad_row: Literal["stop", "quarantine"]
    corrections: Name


class Taxonomy(Section):
    """`core.taxonomy.Levels` checks the names."""

    levels: Annotated[list[Name], Field(min_length=1)] | None
    brand: Name | None
    ragged: bool
    separator: Name | None
    labels: Literal["auto", "parts", "prefixes"]
    file: Name | None


class Demo(Section):
    train_rows: Annotated[int, Field(ge=100, le=10**7)]
    test_rows: Annotated[int, Field(ge=20, le=10**7)]


class Split(Section):
    by: Literal["product", "row"]
    test: Share
    dev: Share
    calibration: Share
    calibration_rows: Annotated[int, Field(ge=0)]
    holdout: Share


class Embedding(Section):
    model: Annotated[str, Field(min_length=1)]
    revision: str | None
    batch_size: Batch
    flat_up_to: Count


class Retrieval(Section):
    k: Annotated[int, Field(ge=1, le=1000)]
    same_retailer: bool
    price_ratio: Annotated[float, Field(gt=1)] | None
    hybrid_weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]
    min_kept: Annotated[int, Field(ge=0)]
    sizes: bool
    cross_encoder: Name | None
    cross_encoder_revision: str | None


class OutsideTable(Section):
    file: Name | None
    text: Name
    about: Name


class OutsideHttp(Section):
    url: Annotated[str, Field(pattern=r"^https?://")] | None
    query: Name
    field: Name
    key_variable: KeyVariable | None
    key_header: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
    timeout: Seconds
    requests_a_minute: Rate | None
    usd_per_request: Price
    budget_usd: Price


class Outside(Section):
    """Descriptions of products from outside, see `tillmap.lookup`."""

    provider: Literal["none", "table", "http"]
    held_out_rows: Annotated[int, Field(ge=0)]
    max_characters: Annotated[int, Field(ge=20, le=2000)]
    table: OutsideTable
    http: OutsideHttp


class Questions(Section):
    """The params that all arms with a language model share."""

    recipe: Literal["ours", "gradientgurus"]
    retriever: Evidence
    candidates: Annotated[int, Field(ge=1, le=20)]
    ranking: Literal["order", "scores", "hidden"]
    show_retailer: bool
    show_price: bool
    show_numbers: bool
    show_sizes: bool
    answer_format: Literal["short", "joined", "json"]
    constrain: Literal["off", "tree", "retrieved"]
    widen: Name | None
    unseen_brand: bool
    held_out_rows: Annotated[int, Field(ge=0)]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)]
    temperature: Annotated[float, Field(ge=0, le=2)]


class LanguageModel(Questions):
    """The params that the arms with a local language model share."""

    choose: Literal["greedy", "likelihood"]
    engine: Literal["vllm", "transformers"]
    base: Annotated[str, Field(min_length=1)]
    revision: str | None


class TrainLlama(Section):
    """None takes the value of `llama.recipe`, see `tillmap.tuning.recipes`."""

    epochs: Annotated[float, Field(gt=0), Epochs] | None
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None
    schedule: Literal["linear", "cosine"] | None
    warmup_steps: Annotated[float, Field(ge=0, le=10**6)] | None
    batch_rows: Batch | None
    accumulation: Batch | None
    max_seq_length: Annotated[int, Field(ge=16, le=MAX_TOKENS)] | None
    lora_rank: Annotated[int, Field(ge=1, le=4096)] | None
    lora_alpha: Annotated[int, Field(ge=1, le=2**16)] | None
    dtype: Literal["float32", "bfloat16", "float16"] | None
    load_in_4bit: bool | None
    cpu_dtype: Literal["float32", "bfloat16"]
    checkpoint_steps: Count
    merge: Literal["fp32", "16bit"] | None
    hub_id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None


class TrainOpenAI(Section):
    tuned_model: str | None
    epochs: Annotated[int, Field(ge=1, le=50)]
    batch_size: Annotated[int, Field(ge=1, le=256)] | None
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | None


class TokenPrices(Section):
    """Dollars per million tokens. None: writing to the cache costs what other input does."""

    input: Price
    cached_input: Price
    output: Price
    cache_write: Price | None = None


class Prices(Section):
    """None: not known, so that nothing can be tuned, or a tuned model be asked."""

    date: str
    source: str
    training: Price | None
    tuned: TokenPrices | None
    tuned_batch: TokenPrices | None
    untuned: TokenPrices
    untuned_batch: TokenPrices


class Provider(Section):
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    key_variable: KeyVariable
    suffix: Annotated[str, Field(min_length=1, max_length=64)]
    budget_usd: Price
    poll_seconds: Seconds
    settle_seconds: Seconds
    retries: Annotated[int, Field(ge=0, le=100)]
    requests: Annotated[int, Field(ge=1, le=50_000)]
    file_bytes: Count
    enqueued_tokens: Count
    concurrency: Annotated[int, Field(ge=1, le=1000)]
    requests_a_minute: Rate | None
    prices: Prices


class Cascade(Section):
    """`make_schema` allows only arms with a language model for `llm`."""

    llm: str
    asks: Literal["unsure", "disagreement"]
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] | None
    budget_usd: Price | None
    candidates: Annotated[int, Field(ge=1, le=20)]
    show_candidates: Literal["untuned", "always", "never"]
    constrain: Literal["off", "candidates"]
    held_out_rows: Count


class Vote(Section):
    """`make_schema` allows only existing arms in `arms`."""

    arms: list[str]


class Review(Section):
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] | None


class Audit(Section):
    folds: Annotated[int, Field(ge=2, le=20)] | None


class Costs(Section):
    gpu_usd_per_hour: Price
    cpu_usd_per_hour: Price


class Engine(Section):
    dtype: Literal["float32", "bfloat16", "float16", "auto"]
    max_model_len: Annotated[int, Field(ge=64, le=MAX_TOKENS)]
    batch_rows: Count
    save_rows: Count
    threads: Annotated[int, Field(ge=1, le=MAX_THREADS)] | None
    kv_cache_gib: Annotated[float, Field(gt=0, le=10_000)] | None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)]
    eager: bool
    lora: Literal["merge", "serve"]


class Postprocess(Section):
    repair: bool
    embed: bool
    min_similarity: Annotated[float, Field(ge=0, le=1)]


class Evaluate(Section):
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    promise: Annotated[float, Field(gt=0, lt=1)]
