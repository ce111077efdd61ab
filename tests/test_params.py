"""params.yaml: the schema, errors that name the line, and views that show no more than a stage declares."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tillmap.arms import ARMS, schema
from tillmap.config.blocks import COMBINED, Section
from tillmap.config.params import check_params, make_schema
from tillmap.config.params import read_params as read_with_schema
from tillmap.core.errors import ParamsError

PARAMS = Path(__file__).parents[1] / "params.yaml"


def read_params(path, keys=None):
    return read_with_schema(path, schema(), keys)


@pytest.fixture
def changed(tmp_path):
    """params.yaml with one text replaced by another, as a file."""

    def change(old, new):
        text = PARAMS.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in params.yaml"
        path = tmp_path / "params.yaml"
        path.write_text(text.replace(old, new))
        return path

    return change


def line_of(path, start):
    return next(
        number for number, line in enumerate(path.read_text().splitlines(), 1) if line.strip().startswith(start)
    )


def test_shipped_params_are_valid_and_list_every_arm():
    params = read_params(PARAMS)
    assert set(params.run.arms) == {*ARMS, *COMBINED} == set(params.run.model_dump()) - {"pilot_rows"}
    assert all(type(params.block(name)) is arm.Settings for name, arm in ARMS.items())


def test_every_value_has_a_comment_or_a_namesake_that_has():
    """params.yaml is the only place that explains them. The switches in `run` are explained by the heading."""
    said, lacking = set(), []
    for line in PARAMS.read_text().partition("\ndata:")[2].splitlines():
        name, colon, value = line.partition(":")
        if not colon or name.lstrip().startswith("#") or not value.partition("#")[0].strip():
            continue  # a heading, or the name of a block
        if "#" in value:
            said.add(name.strip())
        elif name.strip() not in said:
            lacking.append(line)
    assert lacking == []


# The schema is put together from the arms that there are


def test_run_keeps_the_order_of_the_file(changed):
    names = ("nearest", "linear", "rerank", "rag", "llama", "openai", "cascade", "vote")
    run = read_params(PARAMS).run
    assert run.arms == names
    assert run.own_answers == names[:6]
    assert run.on == tuple(name for name in names if getattr(run, name))
    turned = read_params(changed("  nearest: true\n  linear: true\n", "  linear: true\n  nearest: false\n")).run
    assert turned.arms == ("linear", "nearest", *names[2:])
    assert turned.on[0] == "linear" and "nearest" not in turned.on
    assert turned.own_answers == ("linear", "nearest", *names[2:6])


class Fixed(Section):
    """An arm's block, for the tests below."""

    answer: str


def test_a_new_arm_brings_its_switch_its_block_and_its_name(changed):
    blocks = {name: arm.Settings for name, arm in ARMS.items()} | {"fixed": Fixed}
    wider = make_schema(blocks, ["rag", "fixed"])
    text = PARAMS.read_text()
    missing = changed("arms: [nearest, linear, rerank, rag, llama, openai]", "arms: [fixed]")
    with pytest.raises(ParamsError, match=r"params\.yaml:\d+: run\.fixed is missing; add it"):
        read_with_schema(missing, wider)
    text = text.replace("  openai: false ", "  fixed: true\n  openai: false ", 1)
    text = text.replace("arms: [nearest, linear, rerank, rag, llama, openai]", "arms: [fixed]").replace(
        "llm: rag", "llm: fixed"
    )
    with pytest.raises(ParamsError, match=r"^p: fixed is missing; add it"):
        check_params(text, Path("p"), wider)
    params = check_params(f"{text}\nfixed: {{answer: milk}}\n", Path("p"), wider)
    assert params.block("fixed").answer == "milk"
    assert params.is_on("fixed") and params.needs("fixed") and params.vote.arms == ["fixed"]
    assert params.run.own_answers == ("nearest", "linear", "rerank", "rag", "llama", "fixed", "openai")
    with pytest.raises(ParamsError, match=r"^p:\d+: run\.fixed is not a parameter; known here: "):
        check_params(f"{text}\nfixed: {{answer: milk}}\n", Path("p"), schema())


def test_an_arm_is_needed_where_it_is_on_or_the_cascade_asks_it(changed):
    off = "  rag: true\n  llama: true\n"
    assert read_params(PARAMS).needs("rag")
    assert not read_params(changed(off, "  rag: false\n  llama: true\n")).needs("rag")
    text = PARAMS.read_text().replace(off, "  rag: false\n  llama: true\n")
    params = check_params(text.replace("cascade: false ", "cascade: true ", 1), Path("p"), schema())
    assert params.needs("rag") and not params.is_on("rag") and not params.needs("openai")


def test_an_arm_stands_in_its_own_module_with_its_block():
    for name, arm in ARMS.items():
        assert name == arm.name
        assert type(arm).__module__ == arm.Settings.__module__ == f"tillmap.arms.{name}"
    assert list(ARMS) == sorted(ARMS)
    assert schema() is schema()


def test_params_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        read_params(PARAMS).run.rag = False


# Mistakes


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("  power: 5.0", "  powr: 4.0", "nearest.powr", "did you mean power?"),
        ("seed: 3407", "seed: 3407\nspeed: 1", "speed", "did you mean seed?"),
        ("  power: 5.0", "  power: -1", "nearest.power", "greater than or equal to 0"),
        ("  power: 5.0", "  power: strong", "nearest.power", "valid number"),
        ("  by: product ", "  by: shop ", "split.by", "'product' or 'row'"),
        ("  price_ratio: null", "  price_ratio: 1.0", "retrieval.price_ratio", "greater than 1"),
        ("examples: 3                   # rows in the prompt: ", 'examples: "5"  # ', "rag.examples", "valid integer"),
        ("  rag: true", "  rga: true", "run.rga", "did you mean rag?"),
        ("  rag: true", "  rag: yes please", "run.rag", "valid boolean"),
        ("nearest:\n  retr", "neerest:\n  retr", "neerest", "did you mean nearest?"),
        ("  llm: rag ", "  llm: linear ", "cascade.llm", "'llama', 'openai' or 'rag'"),
        ("  llm: rag ", "  llm: mine ", "cascade.llm", "'llama'"),
        ("rerank, rag, llama, openai]", "rerank, mine]", "vote.arms", "'nearest'"),
        ("rerank, rag, llama, openai]", "rerank, cascade]", "vote.arms", "'openai'"),
        ("arms: [nearest, linear, rerank, rag, llama, openai]", "arms: []", "vote.arms", "at least 1 item"),
        ("  pilot_rows: 120 ", "  pilot_rows: 0 ", "run.pilot_rows", "greater than or equal to 1"),
        ("  epochs: 5 ", f"  epochs: {10**15} ", "linear.epochs", "less than or equal to 1000"),
        ("  lora_rank: null", f"  lora_rank: {10**15}", "train_llama.lora_rank", "less than or equal to 4096"),
        (
            "  calibration_rows: 600 ",
            f"  calibration_rows: {10**25} ",
            "split.calibration_rows",
            "numbers should be from -2^53 to 2^53",
        ),
        ("  power: 5.0", "  power: .inf", "nearest.power", "numbers should be from -2^53 to 2^53"),
        ("stop: null}", "stop: .nan}", "openai.request", "numbers should be from -2^53 to 2^53"),
        ("  threads: null", f"  threads: {2**31}", "engine.threads", "less than or equal to 1024"),
        ("  poll_seconds: 60.0", "  poll_seconds: 1e300", "provider.poll_seconds", "less than or equal to 1000000"),
        ("  max_share: 1.0", "  max_share: 0x" + "f" * 5000, "llama.max_share", "a number of thousands of digits"),
    ],
)
def test_mistake_names_file_line_and_remedy(changed, old, new, key, says):
    path = changed(old, new)
    with pytest.raises(ParamsError) as caught:
        read_params(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line_of(path, key.rpartition('.')[2] + ':')}: {key}")
    assert says in message
    assert "\n" not in message


# Where a large number means no more than "all", or is a price, a rate or a weight.
UNBOUNDED = re.compile(
    r"(rows|up_to|min_kept|checkpoint_steps|mib|bytes|tokens|minute|usd|hour|request|power|ratio|weights)$"
    r"|^(TokenPrices|Prices)[.]"
)


def test_a_number_that_multiplies_the_work_has_a_bound():
    """Epochs, batches, a context: 10^15 of them would run for ever, or end for lack of memory after hours."""
    kinds = schema().model_json_schema()["$defs"]
    fields = {f"{kind}.{name}": field for kind in kinds for name, field in kinds[kind].get("properties", {}).items()}
    numbers = {
        name: each
        for name, field in fields.items()
        for each in field.get("anyOf", [field])
        if each.get("type") in ("integer", "number")
    }
    assert len(numbers) > 60
    free = [name for name, each in numbers.items() if not {"maximum", "exclusiveMaximum"} & each.keys()]
    assert [name for name in free if not UNBOUNDED.search(name)] == []


def test_missing_parameter_names_its_block(changed):
    path = changed("  power: 5.0", "  # gone")
    line = path.read_text().splitlines().index("nearest:") + 1
    with pytest.raises(ParamsError, match=rf"params\.yaml:{line}: nearest\.power is missing; add it"):
        read_params(path)


@pytest.mark.parametrize("text", ["", "run: [", "- 1", "\tseed: 1"])
def test_unreadable_file_is_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml") as caught:
        read_params(path)
    assert "\n" not in str(caught.value)


def test_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ParamsError, match="run this from the project's root"):
        read_params(tmp_path / "params.yaml")


def test_a_view_shows_only_what_was_asked_for():
    params = read_params(PARAMS, ["seed", "run.rag", "split"])
    assert params.run.rag is True
    assert params.split.by == "product"
    with pytest.raises(AttributeError):
        _ = params.run.nearest
    with pytest.raises(AttributeError):
        _ = params.rag
