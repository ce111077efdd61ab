"""Damages files: bytes of any file, the structure of JSON, CSV, YAML, Parquet and safetensors, and numbers."""

import bz2
import gzip
import io
import json
import random
import re
import struct
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from odd import ODD_JSON, ODD_NUMBERS, ODD_SIZES, ODD_TEXTS, ODD_TYPES, ODD_VALUES, ODD_YAML

MARK = "\1odd\1"  # stands for what `json.dumps` does not write
NUMBER = re.compile(r"(?<![\w.-])-?\d+(\.\d+)?(?![\w.-])")


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to eight changes of bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        size = len(data)
        at = rng.randrange(size + 1)
        length = min(size - at, rng.choice((1, 1, 2, 4, 8, 64, 1000, size)))
        match rng.randrange(9):
            case 0 if at < size:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
            case 4:
                data[at:at] = rng.choice(ODD_TEXTS).encode(errors="surrogatepass")
            case 5:
                data[at : at + length] = rng.choice((b"\0", b"\xff", b"[", b'"', b"\n", b" ")) * length
            case 6:
                start = rng.randrange(size + 1)
                data[at : at + length] = data[start : start + length]
            case 7:
                number = rng.choice((0, 1, 2**7, 2**15, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1))
                data[at : at + 8] = struct.pack("<Q", number)
            case _:
                del data[at:]
    return bytes(data)


def damage_json(content: bytes, rng: random.Random) -> bytes:
    """Change, drop, double or rename one value of a JSON document."""
    value = json.loads(content)
    holder = {"": value}
    key = _change_somewhere(holder, rng)
    text = json.dumps(holder.get("", rng.choice(ODD_VALUES)), ensure_ascii=rng.random() < 0.5)
    text = text.replace(json.dumps(MARK) + ":", json.dumps(key) + ":").replace(json.dumps(MARK), rng.choice(ODD_JSON))
    return text.encode(errors="replace")


def damage_lines(content: bytes, rng: random.Random) -> bytes:
    """Change the lines of JSON Lines: drop, double, swap, join or break one, or change a value in it."""
    lines = content.splitlines()
    at = rng.randrange(len(lines)) if lines else 0
    match rng.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 2:
            rng.shuffle(lines)
        case 3:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        case _:
            lines[at] = damage_json(lines[at], rng)
    ending = rng.choice((b"\n",) * 6 + (b"\r\n", b"\r", b"\n\n", b" "))
    return ending.join(lines) + (ending if rng.random() < 0.8 else b"")


def damage_csv(content: bytes, rng: random.Random) -> bytes:
    """Change a cell, a line, the delimiter, the line ends or the encoding."""
    text = content.decode()
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    sign = next((sign for sign in ",;\t|" if sign in lines[0]), ",")
    cells = lines[at].split(sign)
    cell = rng.randrange(len(cells))
    match rng.randrange(80):
        case 0:
            cells += ["x"] * 100_000
        case 1:
            cells[cell] = '""' * 50_000
        case number if number % 8 == 0:
            del cells[cell]
        case number if number % 8 == 1:
            cells.insert(cell, cells[rng.randrange(len(cells))])
        case number if number % 8 == 2:
            cells[cell] = '"' + cells[cell]
        case number if number % 8 == 3:
            lines.insert(at, rng.choice(("", sign * 3, "sep=;", lines[at], "#")))
        case number if number % 8 == 4:
            lines = [line.replace(sign, rng.choice((";", ",", "\t", "|", "^"))) for line in lines]
            cells = lines[at].split("\n")
        case _:
            cells[cell] = rng.choice(ODD_TEXTS)
    if at < len(lines) and len(cells) > 0:
        lines[at] = sign.join(cells)
    text = rng.choice(("\n",) * 5 + ("\r\n", "\r")).join(lines) + "\n"
    encoding = rng.choice(("utf-8",) * 6 + ("utf-16", "cp1252", "utf-16-le", "utf-8-sig", "utf-32"))
    return text.encode(encoding, errors="replace" if encoding == "cp1252" else "surrogatepass")


def damage_text(content: bytes, rng: random.Random) -> bytes:
    """Change lines of a text of `key: value` or `key=value`: YAML, or a model of LightGBM."""
    lines = content.decode().split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        sign = ":" if ":" in lines[at] else "="
        key, _, value = lines[at].partition(sign)
        words = value.split(" ")
        match rng.randrange(8):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = f"{key}{sign}"
            case 3:
                lines[at] = "  " + lines[at]
            case 4:
                lines[at] = rng.choice(ODD_TEXTS) + lines[at]
            case 5:
                lines[at] = f"{key}{sign} {json.dumps(rng.choice(ODD_VALUES))}"
            case 6:
                words[rng.randrange(len(words))] = rng.choice(ODD_NUMBERS)
                lines[at] = f"{key}{sign}{' '.join(words)}"
            case _:
                lines[at] = f"{key}{sign} {rng.choice(rng.choice((ODD_TEXTS, ODD_YAML)))}"
        if not lines:
            return b""
    return "\n".join(lines).encode(errors="surrogatepass")


def damage_numbers(content: bytes, rng: random.Random) -> bytes:
    """Change one to three of the numbers in a text."""
    text = content.decode()
    for _ in range(rng.choice((1, 1, 2, 3))):
        if found := list(NUMBER.finditer(text)):
            start, end = rng.choice(found).span()
            text = text[:start] + rng.choice(ODD_SIZES) + text[end:]
    return text.encode()


def damage_parquet(content: bytes, rng: random.Random) -> bytes:
    """Change a column or some of its values, the rows, the metadata or the way of writing of a table."""
    table = pq.read_table(io.BytesIO(content))
    name = rng.choice(table.column_names)
    place = table.column_names.index(name)
    column = table[name].to_pylist()
    match rng.randrange(13):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.append_column(name, table[name])
        case 2:
            other = rng.choice([*table.column_names, *ODD_TEXTS[:20]])
            table = table.rename_columns([other if each == name else each for each in table.column_names])
        case 3:
            table = table.take(pa.array([rng.randrange(len(table)) for _ in range(rng.randrange(5))], pa.int64()))
        case 4:
            about = dict(table.schema.metadata or {})
            key = rng.choice([*about, b"pandas"])
            about[key] = damage_bytes(about.get(key, b"{}"), rng)
            table = table.replace_schema_metadata(about)
        case 5:
            names = rng.sample(table.column_names, rng.choice((len(table.column_names), 1, 0)))
            table = table.select(names)
        case 6:
            places = list(range(len(table)))
            rng.shuffle(places)
            table = rng.choice((table.take(pa.array(places, pa.int64())), pa.concat_tables([table, table])))
        case 7 | 8:
            table = table.set_column(place, name, _of_another_type(table[name], rng))
        case _:
            values = rng.choice(
                (ODD_TEXTS, ODD_VALUES, [float("nan"), -1.0, 1e300], [-1, 0, 2**31, 2**62], [b"\xff", b"a"])
            )
            some = rng.random() < 0.5
            new = [rng.choice(values) if not some or rng.random() < 0.1 else old for old in column]
            table = table.set_column(place, name, _any_array(new))
    sink = io.BytesIO()
    pq.write_table(
        table, sink, compression=rng.choice(("zstd", "snappy", "none")), row_group_size=rng.choice((None, 7))
    )
    return sink.getvalue()


def damage_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Change the header, or the numbers of a tensor."""
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    name = rng.choice([each for each in header if each != "__metadata__"])
    about = header[name]
    begin, end = about["data_offsets"]
    kinds = {
        "F32": np.float32,
        "F64": np.float64,
        "I64": np.int64,
        "I32": np.int32,
        "I16": np.int16,
        "U8": np.uint8,
        "BOOL": np.bool_,
    }
    kind = np.dtype(kinds.get(about["dtype"], np.uint8))
    match rng.randrange(6):
        case 0:
            changed = json.loads(damage_json(json.dumps(header).encode(), rng))
            header = changed if isinstance(changed, dict) else header
        case 1:
            about["dtype"] = rng.choice(["F32", "I32", "I64", "U8", "F64", "F16", "BF16", "BOOL"])
        case 2:  # a tensor of another length, at the end, so that the file is sound
            count = (end - begin) // kind.itemsize
            new = np.resize(np.frombuffer(bytes(body[begin:end]), kind), max(0, count + rng.choice((-1, 1, -count, 7))))
            arrays = {
                key: np.frombuffer(bytes(body[slice(*value["data_offsets"])]), np.uint8)
                for key, value in header.items() if key != "__metadata__"
            }  # fmt: skip
            arrays[name] = new.view(np.uint8)
            body, at = bytearray(), 0
            for key, array in arrays.items():
                shape = [len(new)] if key == name else header[key]["shape"]
                header[key] = {"dtype": header[key]["dtype"], "shape": shape, "data_offsets": [at, at + array.nbytes]}
                body += array.tobytes()
                at += array.nbytes
        case _ if end > begin and kind.kind in "iuf":
            values = np.frombuffer(bytes(body[begin:end]), kind).copy()
            odd = [0, 1, 2, 3, 127] + (
                [np.nan, np.inf, -1e30] if kind.kind == "f" else [np.iinfo(kind).max, np.iinfo(kind).min]
            )
            for _ in range(rng.choice((1, 1, 5, len(values)))):
                values[rng.randrange(len(values))] = rng.choice(odd)
            body[begin:end] = values.tobytes()
        case _:
            body = bytearray(damage_bytes(bytes(body), rng))
    text = json.dumps(header).encode(errors="replace")
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _of_another_type(column: pa.ChunkedArray, rng: random.Random) -> pa.Array:
    """The same values as another type, or in lists, structs, maps or a dictionary. Nulls if they cannot be."""
    flat = column.combine_chunks()
    match rng.randrange(6):
        case 0:
            return flat.dictionary_encode()
        case 1:
            return pa.ListArray.from_arrays(pa.array(range(len(flat) + 1), pa.int32()), flat)
        case 2:
            return pa.StructArray.from_arrays([flat, flat], ["a", "b"])
        case 3:
            keys = pa.array(["k"] * len(flat))
            return pa.MapArray.from_arrays(pa.array(range(len(flat) + 1), pa.int32()), keys, flat)
        case _:
            type_ = rng.choice(ODD_TYPES)
            try:
                return flat.cast(type_, safe=False)
            except pa.ArrowException:
                return pa.nulls(len(flat), type_)


def _any_array(values: list) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, OverflowError):
        return pa.array([str(value).encode(errors="replace").decode() for value in values])


def _change_somewhere(holder: dict | list, rng: random.Random) -> str | int | None:
    """Walk down at random, and change the value where the walk ends. Gives its key."""
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return None
    key = rng.choice(keys)
    value = holder[key]
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        return _change_somewhere(value, rng)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
        case 1:
            holder.insert(key, value)
        case 2:
            holder[key] = rng.choice(ODD_TEXTS)
        case 3 if isinstance(value, int | float):
            holder[key] = rng.choice((-value, value + 1, value * 1e9, str(value), 0))
        case 4:
            holder[key] = [value] if rng.random() < 0.5 else {"x": value}
        case 5:
            holder[key] = MARK
        case 6 if isinstance(holder, dict):
            holder[MARK] = rng.choice(ODD_VALUES)  # the same key a second time
        case _:
            holder[key] = rng.choice(ODD_VALUES)
    return key


DAMAGE = {
    "bytes": damage_bytes, "json": damage_json, "jsonl": damage_lines, "csv": damage_csv, "text": damage_text,
    "numbers": damage_numbers, "parquet": damage_parquet, "safetensors": damage_safetensors,
}  # fmt: skip


def damage_whole(content: bytes, rng: random.Random) -> bytes:
    """Another encoding, a compressed file, or far more or far less than there was."""
    pack = rng.choice((gzip.compress, bz2.compress, lambda plain: pa.compress(plain, "zstd", asbytes=True)))
    encoding = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32"))
    unit = rng.choice((b"\0", b"[", b'"', b"a,", b"a: ", b"\n"))
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.decode("latin-1").encode(encoding),
        lambda: pack(content),
        lambda: _cut(pack(content), rng),
        lambda: _bomb(pack, unit),
        lambda: unit * 2**20,
        lambda: content + content,
        lambda: b"\0" * len(content),
        lambda: _cut(content, rng),
        bytes,
    )
    return rng.choice(ways)()


def _bomb(pack: Callable[[bytes], bytes], unit: bytes) -> bytes:
    """Packs 32 to 96 MiB of the same. bz2 takes ten seconds for that, so its stream is one MiB, 32 times."""
    return pack(unit * 2**20) * 32 if pack is bz2.compress else pack(unit * 2**25)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def damaged(content: bytes, structure: str, rng: random.Random) -> bytes:
    """A damaged copy: mostly of the structure, else of the bytes or as a whole."""
    if rng.random() < 0.04:
        return damage_whole(content, rng)
    if structure == "bytes" or rng.random() < 0.3:
        return damage_bytes(content, rng)
    try:
        return DAMAGE[structure](content, rng)
    except (
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
        pa.ArrowException,
    ):  # what cannot be written cannot be read either
        return damage_bytes(content, rng)
