"""params.yaml: the schema, errors that name the line, and views that show no more than a stage declares."""

from pathlib import Path

import pytest

from tillmap.config.params import ARMS, read_params
from tillmap.core.errors import ParamsError

PARAMS = Path(__file__).parents[1] / "params.yaml"


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
    assert set(ARMS) == set(params.run.model_dump())


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("  power: 5.0", "  powr: 4.0", "nearest.powr", "did you mean power?"),
        ("seed: 3407", "seed: 3407\nspeed: 1", "speed", "did you mean seed?"),
        ("  power: 5.0", "  power: -1", "nearest.power", "greater than or equal to 0"),
        ("  power: 5.0", "  power: strong", "nearest.power", "valid number"),
        ("  by: product ", "  by: shop ", "split.by", "'product' or 'row'"),
        ("  price_ratio: null", "  price_ratio: 1.0", "retrieval.price_ratio", "greater than 1"),
        ("  examples: 3 ", '  examples: "3" ', "rag.examples", "valid integer"),
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
