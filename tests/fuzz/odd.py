"""Odd values, of which damaged files are made."""

import pyarrow as pa

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
# Put where a value of JSON was; `json.dumps` writes none of these.
ODD_JSON = [
    "NaN", "Infinity", "-Infinity", "1e999", "-0", "1" * 5000, "01", "1.", ".5", "+1", "0x10", "tru", "None", "'x'",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\x41"', '"a\nb"', '"\0"', "[1,]", "{,}", '{"a": 1, "a": 2}', "/**/ 1", "",
    "[" * 500, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000,
]  # fmt: skip
# Put where a number of YAML or JSON was: at the ends of types, and beyond
ODD_SIZES = [
    "0", "-1", "0.5", "2147483648", "9007199254740991", "9007199254740993", "9223372036854775807",
    "18446744073709551616", "-9223372036854775809", "9" * 25, "9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e25", "1e308",
    "-1e308", "1e400", "1e-320", ".inf", ".nan", "NaN", "Infinity", "1_000", "\u00b2",
]  # fmt: skip
# Put where a value of YAML was: tags, anchors, bombs, and numbers and dates that look like texts.
ODD_YAML = [
    "!!python/object/apply:os.system [true]", "!!binary x", "!!int x", "!x y", "&a [*a]", "*a", "<<", "? ", "- ", "|",
    ">-", "{a: 1, a: 2}", "{[1]: 2}", "{? {a: 1}: 2}", "[" * 3000, "@x", "`x", "%x", ".nan", "-.inf", "1_000", "0o17",
    "1:30:00", "2026-01-01", "2026-99-99", "yes", "~", "1e400", "9" * 5000, "\t",
    "[&a [x,x,x,x], &b [*a,*a,*a], &c [*b,*b,*b], *c]",
]  # fmt: skip
ODD_TYPES = [
    pa.null(), pa.bool_(), pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(),
    pa.string(), pa.large_string(), pa.binary(), pa.binary(3), pa.decimal128(38, 2), pa.decimal256(70, 5), pa.date32(),
    pa.timestamp("ns"), pa.timestamp("us", "Europe/Paris"), pa.time64("us"), pa.duration("s"),
]  # fmt: skip
