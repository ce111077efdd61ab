"""Damages files: bytes of any file, and the structure of JSON, CSV, YAML, Parquet and safetensors."""

import io
import json
import random
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ODD_TEXTS = [
    "", " ", "-", "NA", "null", "\0", "\ufeff", "\u202e", "\u0345", "é", "e\u0301", "\ufb00", "İ", "ß", "कि", "\ud83d",
    "💩", "a\nb", "a\rb", "a\u2028b", '"', '""', "'", "\\", "\\u0000", "=1+1", "../../x", "/etc/passwd", "a|b", "a > b",
    ">", "|", ",", ";", "\t", "%s", "{}", "${x}", "01.1.4", "1e999", "-1", "0", "9" * 25, "1,99", "x" * 5000,
    "[" * 2000, "__import__('os')",
]  # fmt: skip
ODD_VALUES = [
    None, True, False, 0, 1, -1, 2, 255, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-320, 1e308, [], {},
    [[]], [None], {"a": 1}, {"": None}, [1] * 100, "x" * 70000,
]  # fmt: skip
ODD_NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1", "1e400", "2147483648", "-9223372036854775809", "0x10", "1_0", ""]


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
    _change_somewhere(holder, rng)
    return json.dumps(holder.get("", rng.choice(ODD_VALUES)), ensure_ascii=rng.random() < 0.5).encode(errors="replace")


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
    match rng.randrange(8):
        case 0:
            del cells[cell]
        case 1:
            cells.insert(cell, cells[rng.randrange(len(cells))])
        case 2:
            cells[cell] = '"' + cells[cell]
        case 3:
            lines.insert(at, rng.choice(("", sign * 3, "sep=;", lines[at], "#")))
        case 4:
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
                lines[at] = f"{key}{sign} {rng.choice(ODD_TEXTS)}"
        if not lines:
            return b""
    return "\n".join(lines).encode(errors="surrogatepass")


def damage_parquet(content: bytes, rng: random.Random) -> bytes:
    """Change a column or some of its values, the rows, the metadata or the way of writing of a table."""
    table = pq.read_table(io.BytesIO(content))
    name = rng.choice(table.column_names)
    place = table.column_names.index(name)
    column = table[name].to_pylist()
    match rng.randrange(9):
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


def _any_array(values: list) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, ValueError, OverflowError):
        return pa.array([str(value).encode(errors="replace").decode() for value in values])


def _change_somewhere(holder: dict | list, rng: random.Random) -> None:
    """Walk down at random, and change the value where the walk ends."""
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    if not keys:
        return
    key = rng.choice(keys)
    value = holder[key]
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        _change_somewhere(value, rng)
        return
    match rng.randrange(6):
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
        case _:
            holder[key] = rng.choice(ODD_VALUES)


DAMAGE = {
    "bytes": damage_bytes, "json": damage_json, "jsonl": damage_lines, "csv": damage_csv, "text": damage_text,
    "parquet": damage_parquet, "safetensors": damage_safetensors,
}  # fmt: skip


def damaged(content: bytes, structure: str, rng: random.Random) -> bytes:
    """A damaged copy: mostly of the structure, else of the bytes."""
    if structure == "bytes" or rng.random() < 0.35:
        return damage_bytes(content, rng)
    try:
        return DAMAGE[structure](content, rng)
    except (ValueError, LookupError, TypeError, pa.ArrowException):  # what cannot be written cannot be read either
        return damage_bytes(content, rng)
