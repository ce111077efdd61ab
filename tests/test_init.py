"""`tillmap init` and what it proposes for a user's files."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from tillmap.arms import schema
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.proposal import propose, sample_of
from tillmap.catalogue.source import read_source
from tillmap.cli import app
from tillmap.config.params import read_params
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_codes_of_a_semicolon_csv_with_their_names(project: Path) -> None:
    said = init(str(EXAMPLES / "till"))
    params = read_params(project / "params.yaml", schema())
    assert params.data.columns.model_dump() == {
        "id": "Ligne", "text": "Libellé", "retailer": "Magasin", "price": "Montant", "levels": "COICOP",
    }  # fmt: skip
    assert (params.data.train, params.taxonomy.file) == ("lines.csv", "coicop.csv")
    assert (params.taxonomy.levels, params.taxonomy.brand, params.taxonomy.separator) == (None, None, ".")
    assert "rows: 235" in said
    assert "contradictions: 2" in said
    assert "refunds: 18" in said
    assert "labels without a row: 1" in said


def test_a_path_in_a_column_of_a_feed(project: Path) -> None:
    said = init(str(EXAMPLES / "feed" / "feed.csv"))
    params = read_params(project / "params.yaml", schema())
    assert params.data.columns.levels == "category"
    assert params.data.columns.text == "title"
    assert params.data.columns.price == "price"
    assert "brand_name looks like a brand" in said


def test_the_contests_folder_is_read_as_before(project: Path) -> None:
    init(str(EXAMPLES / "contest"))
    params = read_params(project / "params.yaml", schema())
    before = read_params(ROOT / "params.yaml", schema())
    assert params.data.columns == before.data.columns
    assert params.taxonomy == before.taxonomy


def test_a_dry_run_writes_nothing(project: Path) -> None:
    init(str(EXAMPLES / "till"), "--dry-run")
    assert (project / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("name", ["till", "feed/feed.csv", "contest"])
def test_what_is_written_reads_the_rows_without_a_bad_one(project: Path, name: str) -> None:
    init(str(EXAMPLES / name))
    params = read_params(project / "params.yaml", schema())
    source = read_source(params.data, params.taxonomy)
    assert not len(source.quarantined)
    assert len(source.rows) >= 225


def test_columns_of_levels_are_put_in_order_by_what_decides_what() -> None:
    rows = [
        (f"{kind} {number}", "shop", kind, group, top)
        for number in range(30)
        for kind, group, top in (("tea", "drinks", "food"), ("milk", "dairy", "food"), ("soap", "bath", "care"))
    ]
    table = pd.DataFrame(rows, columns=["item", "store", "kind", "group of kinds", "top"])
    proposal = propose(table)
    assert proposal.taxonomy["levels"][0] == "top"
    assert set(proposal.taxonomy["levels"]) == {"top", "kind", "group of kinds"}
    assert proposal.columns["text"] == "item"


FEW = [
    ("milk 1l", "Aldi", 1.09, "dairy", "milk", "whole milk"),
    ("gouda 200 g", "Lidl", 2.49, "dairy", "cheese", "gouda"),
    ("rye bread", "Aldi", 1.99, "bakery", "bread", "rye bread"),
    ("white bread", "Lidl", 1.29, "bakery", "bread", "white bread"),
]


@pytest.mark.parametrize(
    "names",
    [("level1", "level2", "level3"), ("supergroup", "group", "module"), ("Warengruppe 1", "Warengruppe 2", "category")],
)
@pytest.mark.parametrize("rows", [FEW[:1], FEW, [*FEW, ("rye bread", "Aldi", 1.99, "bakery", "bread", "rye bread")]])
def test_levels_of_few_rows_are_told_by_their_names(names: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    table = pd.DataFrame(rows, columns=["line", "shop", "price", *names], dtype=object).map(str)
    assert propose(table, CONTEST.chain).taxonomy["levels"] == list(names)


def test_every_level_of_thirty_rows_is_found_and_the_repeated_text_is_none() -> None:
    rows = [(f"line {number % 12}", *FEW[number % 4][3:]) for number in range(30)]
    proposal = propose(pd.DataFrame(rows, columns=["text", "a", "b", "c"]))
    assert (proposal.columns["text"], proposal.taxonomy["levels"]) == ("text", ["a", "b", "c"])


def test_dates_and_prices_are_no_codes() -> None:
    table = pd.DataFrame(
        {
            "bought on": ["2024-10-01", "2024-10-02"] * 20,
            "paid": ["1,99", "2,49"] * 20,
            "line": [f"bread no {number}" for number in range(40)],
        }
    )
    proposal = propose(table)
    assert proposal.columns["levels"] is None
    assert proposal.columns["price"] == "paid"
    assert proposal.columns["text"] == "line"
    assert any("labels" in note or "label" in note for note in proposal.notes)


def test_a_terminal_without_the_sign_that_a_file_holds(project: Path) -> None:
    lines = (EXAMPLES / "till" / "lines.csv").read_text()
    (project / "shop.csv").write_text(lines.replace("Montant", "price €", 1))
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "tillmap", "init", "shop.csv", "--dry-run"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, check=False)
    assert (done.returncode, b"price \\u20ac" in done.stdout) == (0, True)


def test_a_file_without_labels_says_what_to_do(project: Path) -> None:
    (project / "rows.csv").write_text("text,price\n" + "".join(f"bread {n} white,1.{n:02}\n" for n in range(30)))
    result = CliRunner().invoke(app, ["init", "rows.csv"])
    assert result.exit_code == 1
    assert "name them in params.yaml: `data.source`, `data.columns.text`, and `taxonomy.levels: [" in str(
        result.exception
    )


def test_a_sample_leaves_out_rows_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,code\nbread,1.1\nmilk,1.2,extra\ntea,1.1\n")
    assert sample_of(RowFile(tmp_path / "rows.csv"))["text"].tolist() == ["bread", "tea"]


def test_what_is_missing_and_a_pipe_are_told(project: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("id,text\n" + "".join(f"{number},milk {number} and bread\n" for number in range(30)))
    with pytest.raises(InputError, match="no column looks like labels; name them in"):
        init(str(rows), "--dry-run")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"this is a pipe, .*; save them to a file"):
        init(str(tmp_path / "pipe.csv"), "--dry-run")
