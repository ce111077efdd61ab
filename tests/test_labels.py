"""Labels from level columns, codes, paths and taxonomy files; what does not fit says the line and what to do."""

import pandas as pd
import pytest

from shop import read_source
from tillmap.catalogue.separators import find_separator
from tillmap.core.errors import InputError, TillmapError
from tillmap.core.files import read_table, write_table
from tillmap.core.taxonomy import LabelPath, LabelTree

NO_PRICE = {"id": None, "text": "text", "retailer": None, "price": None}


def write(folder, labels, header="code", name="train.csv", **files):
    """A folder with a CSV of rows that have these labels, a line for each."""
    lines = [f"text;{header}", *(f"item {number};{label}" for number, label in enumerate(labels))]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for file, text in files.items():
        (folder / f"{file}.csv").write_text(text, encoding="utf-8")
    return folder


def read(folder, levels="code", on_bad_row="stop", **tax):
    taxonomy = {"levels": None, "brand": None} | tax
    return read_source(folder, on_bad_row, NO_PRICE | {"levels": levels}, taxonomy)


def paths(source):
    return [tuple(path) for path in source.levels.paths(source.rows)]


# Codes and paths in one column


def test_a_code_gives_its_prefixes(tmp_path):
    source = read(write(tmp_path, ["01.1.4", "01", "02.3"]))
    assert source.levels.names == ("level_1", "level_2", "level_3") and source.levels.brand is None
    assert paths(source) == [("01", "01.1", "01.1.4"), ("01", "", ""), ("02", "02.3", "")]
    assert source.rows["level_3"].isna().tolist() == [False, True, True]
    assert paths(read(tmp_path, labels="parts"))[0] == ("01", "1", "4")


def test_a_path_gives_its_parts(tmp_path):
    source = read(write(tmp_path, ["Food > Tea/Coffee, other > Green", "Food>Bread"]))
    assert paths(source) == [("Food", "Tea/Coffee, other", "Green"), ("Food", "Bread", "")]
    assert paths(read(tmp_path, labels="prefixes"))[1] == ("Food", "Food>Bread", "")


def test_names_of_levels_and_a_brand_beside_a_code(tmp_path):
    source = read(write(tmp_path, ["1-2;tata", "1;"], "code;make"), levels="code", brand="make")
    assert source.levels.names == ("level_1", "level_2", "make") and source.levels.brand == "make"
    assert paths(source) == [("1", "1-2", "tata"), ("1", "", "")]
    source = read(write(tmp_path, ["1-2", "1"]), brand="make", levels="code")
    assert paths(source) == [("1", "1-2", ""), ("1", "", "")]
    named = read(write(tmp_path, ["1-2", "1"]), **{"levels": "code"}, separator="-")
    assert named.levels.names == ("level_1", "level_2")


def test_one_named_level_takes_the_cell_as_it_is(tmp_path):
    source = read_source(
        write(tmp_path, ["Food > Bread", "Tea"]),
        "stop",
        NO_PRICE | {"levels": "code"},
        {"levels": ["class"], "brand": None},
    )
    assert paths(source) == [("Food > Bread",), ("Tea",)]


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (["01.1", "01"], "."),
        (["01-1", "C10-11"], "-"),
        (["10000123", "10000124"], None),
        (["a b", "c d"], None),
        (["Food » Bread", "Food"], "»"),
        (["Food|Bread", "Food|Tea"], "|"),
        (["Food / Bread", "Health/Beauty / Soap"], " / "),
        (["Milk, fresh", "Tea - green"], None),
        ([], None),
    ],
)
def test_the_separator_is_recognised(values, separator):
    assert find_separator(values) == separator


CODES = ["01.1", "01.2", "01.3", "02.1", "02.2", "02.3", "03.1", "03.2", "03.3", "04"]
BAD = {
    "another separator": ("01-1", r':12: `code` is "01-1", expected a code with "\." between its parts'),
    "an empty part": ("01..1", r':12: `code` is "01\.\.1", which has an empty part, expected no gap'),
    "nothing": ("", r":12: `code` is empty, expected text"),
    "more than 8 parts": ("1.2.3.4.5.6.7.8.9", r':12: `code` is "1\.2.*", which has 9 levels, expected at most 2'),
}


@pytest.mark.parametrize(("code", "said"), BAD.values(), ids=BAD)
def test_a_bad_code_stops_or_is_set_aside(tmp_path, code, said):
    write(tmp_path, [*CODES, code])
    with pytest.raises(InputError, match=said):
        read(tmp_path)
    source = read(tmp_path, on_bad_row="quarantine")
    assert len(source.rows) == len(CODES) and source.quarantined["line"].tolist() == [12]


def test_paths_that_are_all_too_deep_say_how_deep_they_may_be(tmp_path):
    with pytest.raises(InputError, match="has 9 levels, expected at most 8"):
        read(write(tmp_path, [" > ".join(f"level {number}" for number in range(9))] * 3))


def test_a_path_with_another_separator(tmp_path):
    with pytest.raises(InputError, match=r':3: `code` is "Food\|Tea", expected a code with ">" between its parts'):
        read(write(tmp_path, ["Food > Bread", "Food|Tea"]))


# A column for each level


def test_level_columns_of_other_names(tmp_path):
    folder = write(tmp_path, ["food;bread", "food;tea"], "Rayon;Produit")
    assert read(folder, levels=["Rayon", "Produit"]).levels.names == ("Rayon", "Produit")
    source = read_source(
        folder, "stop", NO_PRICE | {"levels": ["Rayon", "Produit"]}, {"levels": ["aisle", "item"], "brand": None}
    )
    assert source.rows["aisle"].tolist() == ["food", "food"]


def ragged(folder, ragged=True, on_bad_row="stop", levels=("group", "kind", "type", "make"), brand="make"):
    return read_source(folder, on_bad_row, NO_PRICE, {"levels": list(levels), "brand": brand, "ragged": ragged})


def test_a_path_may_end_early_if_the_params_say_so(tmp_path):
    folder = write(tmp_path, ["food;bread;;", "food;;;tata", "food;tea;green; "], "group;kind;type;make")
    assert paths(ragged(folder)) == [("food", "bread", "", ""), ("food", "", "", "tata"), ("food", "tea", "green", "")]
    with pytest.raises(InputError, match=r":2: `type` is empty, expected text.*`taxonomy\.ragged: true`"):
        ragged(folder, ragged=False)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("food;;green;", r"has a type but no kind; expected no gap in a path"),
        (";bread;;", r"has no group; expected a label of the first level"),
        (";;;tata", r"has no group"),
    ],
)
def test_a_gap_in_a_path(tmp_path, labels, said):
    folder = write(tmp_path, ["food;bread;;", labels], "group;kind;type;make")
    with pytest.raises(InputError, match=rf"train\.csv:3: the path .* {said}"):
        ragged(folder)


def test_faults_of_the_params(tmp_path):
    folder = write(tmp_path, ["food;bread;;"], "group;kind;type;make")
    for levels, said in (
        (["group", "shelf"], "no column shelf; there are: text, group, kind"),
        ([f"l{number}" for number in range(9)], "there are 9 .*expected 1 to 8"),
        (["make", "kind"], "the brand level make is not the last"),
        (["price", "make"], "price is the name of one of tillmap's own columns"),
    ):
        with pytest.raises(TillmapError, match=said):
            ragged(folder, levels=levels, brand="make" if "make" in levels else None)
    with pytest.raises(TillmapError, match=r"taxonomy\.levels is null, .*; name its column in `data.columns.levels`"):
        read(folder, levels=None)
    with pytest.raises(TillmapError, match=r"data\.columns\.levels has 1 columns for the 2 levels a, b; expected one"):
        read_source(folder, "stop", NO_PRICE | {"levels": ["kind"]}, {"levels": ["a", "b"], "brand": None})


# A taxonomy file

FILE = """Code;Label;Description;Includes;Excludes
01;Food;;;
01.1;Bread;Baked  things;Rolls;Cakes
01.1.1;Rolls;;Soft ones;
01.1.2;Other;;;
01.2;Other;;;
01.3;other;;;
02;Drinks;;;
"""


def test_a_taxonomy_file_names_the_labels(tmp_path):
    source = read(write(tmp_path, ["01.1.1", "01", "01.2"], codes=FILE), file="codes.csv")
    assert source.levels.names == ("level_1", "level_2", "level_3")
    assert paths(source) == [("Food", "Bread", "Rolls"), ("Food", "", ""), ("Food", "Other (01.2)", "")]


def test_its_leaves_and_the_inner_nodes_of_rows_may_be_answered(tmp_path):
    source = read(write(tmp_path, ["01.1.1", "01", "01.2"], codes=FILE), file="codes.csv")
    tree = source.declared
    assert dict(zip(tree.codes, map(tuple, tree), strict=True)) == {
        "01": ("Food", "", ""),
        "01.1.1": ("Food", "Bread", "Rolls"),
        "01.1.2": ("Food", "Bread", "Other"),
        "01.2": ("Food", "Other (01.2)", ""),
        "01.3": ("Food", "other (01.3)", ""),
        "02": ("Drinks", "", ""),
    }
    assert set(tree.rows) == {0}
    assert tree.definition_of(("Food", "Bread", "Rolls")) == "Includes: Soft ones"
    known = LabelTree.from_rows(source.rows, source.levels, tree)
    assert known.rows_of(LabelPath("Food", "", "")) == 1 and known.code_of(("Food", "", "")) == "01"
    write_table(tree.to_table(), tmp_path / "declared.parquet")
    assert LabelTree.from_table(read_table(tmp_path / "declared.parquet")) == tree


def test_notes_become_one_definition(tmp_path):
    folder = write(tmp_path, ["01.1"], codes=FILE.replace("01.1.1;", "03;").replace("01.1.2;", "04;"))
    tree = read(folder, file="codes.csv").declared
    assert tree.definition_of(("Food", "Bread")) == "Baked things Includes: Rolls Excludes: Cakes"


def test_parents_in_a_column_and_codes_that_say_nothing(tmp_path):
    codes = "key,Name,Parent\n7,Rolls,5\n5,Bread,1\n1,Food,\n9,,1\n"
    source = read(write(tmp_path, ["7", "9"], codes=codes), file="codes.csv")
    assert paths(source) == [("Food", "Bread", "Rolls"), ("Food", "9", "")]
    assert source.declared.codes == ("9", "7")


@pytest.mark.parametrize(
    ("codes", "labels", "found"),
    [
        ("path,notes\nFood > Bread,x\nFood > Tea,y\nFood,z\n", ["Food > Bread", "Food>Tea"], ()),
        ("code,path\n412,Food > Bread\n413,Food > Tea\n", ["412", "Food > Tea"], ("412", "413")),
        ("code,path,name\n1,1,Food\n2,1/2,Bread\n3,1/3,Tea\n", ["2", "3"], ("2", "3")),
    ],
)
def test_paths_in_a_column(tmp_path, codes, labels, found):
    source = read(write(tmp_path, labels, codes=codes), file="codes.csv")
    assert paths(source) == [("Food", "Bread"), ("Food", "Tea")]
    assert source.declared.codes == found


def test_names_of_levels_with_a_taxonomy_file(tmp_path):
    folder = write(tmp_path, ["01.1.1"], codes=FILE)
    named = {"levels": ["a", "b", "c"], "brand": None, "file": "codes.csv"}
    assert read_source(folder, "stop", NO_PRICE | {"levels": "code"}, named).levels.names == ("a", "b", "c")
    with pytest.raises(TillmapError, match=r"taxonomy\.levels names 2 levels \(a, b\), but .*codes\.csv has 3"):
        read_source(folder, "stop", NO_PRICE | {"levels": "code"}, named | {"levels": ["a", "b"]})


def test_level_columns_with_a_taxonomy_file(tmp_path):
    folder = write(tmp_path, ["Food;Bread", "01;01.2"], "a;b", codes="code;label\n01;Food\n01.1;Bread\n01.2;Tea\n")
    tax = {"levels": ["a", "b"], "brand": None, "file": "codes.csv"}
    assert paths(read_source(folder, "stop", NO_PRICE, tax)) == [("Food", "Bread"), ("Food", "Tea")]
    write(tmp_path, ["Food;Soap"], "a;b")
    with pytest.raises(InputError, match=r'train\.csv:2: the path is "Food > Soap", expected one of the taxonomy file'):
        read_source(folder, "stop", NO_PRICE, tax)


BAD_FILES = {
    "a circle": (
        "code,parent,label\n1,2,a\n2,3,b\n3,1,c\n",
        r':2: "1" is below itself \(1 below 2 below 3 below 1\), .*circle',
    ),
    "its own parent": ("code,parent,label\n1,1,a\n", r':2: "1" is below itself'),
    "an orphan": (
        "code,parent,label\n1,,a\n2,7,b\n",
        r':3: "2" is below "7", which is not in the file, expected a row',
    ),
    "an orphan by its code": (
        "code,label\n01,a\n01.1.1,b\n",
        r':3: "01\.1\.1" is below "01\.1", which is not in the file',
    ),
    "a code twice": (
        "code,label\n01,a\n01.1,b\n01,c\n",
        r':4: the code "01" again \(first in line 2\), expected each once',
    ),
    "a path twice": ("code,path\n1,a > b\n2,a > b\n", r':3: the path "a > b" again \(first in line 2\)'),
    "an empty code": ("code,label\n01,a\n,b\n", r":3: the code is empty, expected text"),
    "an empty part": ("path,notes\na > b,x\na > > c,y\n", r':3: the path "a > > c" has an empty part'),
    "too deep": (
        "code,label\n" + "".join(f"{'.'.join('1' * depth)},x\n" for depth in range(1, 10)),
        r":10: .* is 9 levels deep",
    ),
    "no codes": (
        "number,label\n01,a\n",
        r"codes\.csv: no column code or path in this taxonomy file; there are: number, label",
    ),
    "nothing": ("", r"codes\.csv: no column code or path .* there are: none"),
    "a field too many": ("code,label\n01,a\n02,b,c\n", r":3: 3 fields, expected 2 .*; correct the line"),
}


@pytest.mark.parametrize(("codes", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_taxonomy_file_says_the_line(tmp_path, codes, said):
    folder = write(tmp_path, ["01"], codes=codes)
    with pytest.raises(InputError, match=said) as error:
        read(folder, file="codes.csv")
    assert "codes.csv" in str(error.value) and str(error.value).count("\n") <= 1


def test_a_code_that_the_taxonomy_lacks(tmp_path):
    folder = write(tmp_path, ["01", "01.9"], codes=FILE)
    with pytest.raises(InputError, match=r'train\.csv:3: `code` is "01\.9", expected one of the taxonomy file'):
        read(folder, file="codes.csv")
    assert len(read(folder, on_bad_row="quarantine", file="codes.csv").rows) == 1


def test_a_taxonomy_file_that_is_not_there_or_beside_a_single_file(tmp_path):
    folder = write(tmp_path, ["01"])
    with pytest.raises(
        InputError, match=r"codes\.csv: the file is not there; put it there, or correct `taxonomy\.file`"
    ):
        read(folder, file="codes.csv")
    with pytest.raises(TillmapError, match=r"taxonomy\.file is a file in the source folder, .*set data\.source to"):
        read(folder / "train.csv", file="codes.csv")


def test_a_folder_from_parquet_gives_the_same_rows(tmp_path):
    folder = write(tmp_path, ["01.1.1", "01", "01.2"], codes=FILE)
    source = read(folder, file="codes.csv")
    for name in ("train", "codes"):
        pd.read_csv(folder / f"{name}.csv", sep=";", dtype=str).to_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()
    again = read(folder, file="codes.parquet")
    pd.testing.assert_frame_equal(again.rows, source.rows)
    assert again.declared == source.declared
