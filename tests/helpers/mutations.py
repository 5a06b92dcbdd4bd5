"""Damage JSON: bytes, tokens and structure of documents, by chance, as a fuzzer wants it.

mutated(random, seeds)    one document, made of one of SEEDS, often no document any more
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+|\s+|"')
# Above all that is read, and small enough to be made often.
_LARGEST = 1 << 18
_SIZES = (1, 3, 20, 255, 256, 4096, 4300, 5000, 65536)
# What has confused readers before, as it stands in a document.
_TOKENS = (
    b"null true false 0 -0 1 -1 1.0 0.0 1e0 1e999 -1e999 1E400 NaN Infinity -Infinity 2147483648 "
    b"4294967295 4294967296 9223372036854775808 18446744073709551616 1e-400 01 +1 .5 0x10 1_000 "
    b'{ } [ ] , : " "" [] {} {"":{}} "\\ud800" "\\udc80" "\\ud83d\\ude00" "\\u0000" "\\n" "\\x00" '
    b'"../.." "/" "//" "." "\\u202e" "v" "uid" "name" "path" "\xc3\xa9" "\xff" "\xed\xa0\x80" '
    b"/**/ // # ' \xef\xbb\xbf \xc2\xa0"
).split(b" ")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.0, 1.5, 1e308, float("nan"), float("inf"), 10**30, 10**4200),
    *(
        "",
        "0",
        "1",
        "\0",
        "\n",
        "\x1b[2J",
        "\ud800",
        "\udcff",
        "é",
        "e\u0301",
        "\u202egnp",
        "a" * 300,
    ),
    *("/", "//", "/..", "/a/../b", ".", "..", "linux/amd64", "linux/arm64/v8", "debian", "x:1"),
    *([], [[]], {}, {"v": 1}, [0] * 50, "docker.io/library/debian:12", "id:" + "a" * 64),
)
_KEYS = ("v", "V", "", "uid", "path", "ref", "name", "time", "image", "__class__", "\0", "a" * 300)
_ENCODINGS = (
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "utf-32-be",
    "utf-8-sig",
    "utf-7",
    "cp500",
)


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of SEEDS after one to four changes."""
    data = random.choice(seeds)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        data = random.choice(_CHANGES)(random, data)[:_LARGEST]
    return data


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _put_byte(random: Random, data: bytes) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + bytes([random.randrange(256)]) + data[at + random.randint(0, 1) :]


def _cut(random: Random, data: bytes) -> bytes:
    first, last = sorted(random.randint(0, len(data)) for _ in range(2))
    return data[:first] + data[last:] if random.random() < 0.7 else data[:last]


def _repeat(random: Random, data: bytes) -> bytes:
    first, last = sorted(random.randint(0, len(data)) for _ in range(2))
    return data[:last] + data[first:last] * random.choice((1, 1, 2, 200)) + data[last:]


def _tokens(random: Random, data: bytes) -> bytes:
    tokens = _TOKEN.findall(data) or [b""]
    at = random.randrange(len(tokens))
    match random.randrange(5):
        case 0:
            tokens[at] = random.choice(_TOKENS)
        case 1:
            del tokens[at]
        case 2:
            tokens.insert(at, random.choice(_TOKENS))
        case 3:
            other = random.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        case _:
            tokens[at] = random.choice((b"9", b"a", b"[", b" ", b'{"":')) * random.choice(_SIZES)
    return b"".join(tokens)


def _structure(random: Random, data: bytes) -> bytes:
    """Change the fields of DATA, if it has fields."""
    try:
        pairs = list(json.loads(data).items())
    except (ValueError, RecursionError, AttributeError):
        return data
    return _document(random, _changed(random, pairs))


_Pairs = list[tuple[str, Any]]


def _changed(random: Random, pairs: _Pairs) -> _Pairs:
    """Return PAIRS with one change, or one in an object among them."""
    at = random.randrange(len(pairs) + 1)
    key, value = pairs[at] if at < len(pairs) else (random.choice(_KEYS), None)
    if isinstance(value, dict) and random.random() < 0.8:
        inner = dict(_changed(random, list(value.items())))
        return [*pairs[:at], (key, inner), *pairs[at + 1 :]]
    match random.randrange(6):
        case 0:
            pairs[at : at + 1] = [(key, random.choice(_VALUES))]
        case 1:
            del pairs[at : at + 1]
        case 2:
            pairs.insert(random.randint(0, len(pairs)), (key, random.choice((value, *_VALUES))))
        case 3:
            pairs[at : at + 1] = [(random.choice(_KEYS), value)]
        case 4:
            pairs[at : at + 1] = [(key, _longer(random, value))]
        case _:
            random.shuffle(pairs)
    return pairs


def _longer(random: Random, value: Any) -> Any:
    """Return something like VALUE, but larger, deeper or of another type."""
    if isinstance(value, str):
        at = random.randint(0, len(value))
        piece = random.choice(("a", "-", ".", "/", "_", ":", "@", "[", "\0", "\ud800", " ", value))
        return value[:at] + piece * random.choice(_SIZES[:6]) + value[at:]
    if isinstance(value, int):
        return random.choice((str(value), float(value % 2**60), value + 1, -value, [value]))
    for _ in range(random.choice((1, 10, 200, 450))):
        value = random.choice(([value], {"v": value}))
    return value


def _document(random: Random, pairs: _Pairs) -> bytes:
    """Return PAIRS as an object, in which a key may stand twice."""
    comma, colon = random.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:\r")))
    escaped = random.random() < 0.7
    try:
        words = [
            colon.join(json.dumps(each, ensure_ascii=escaped) for each in pair) for pair in pairs
        ]
        return ("{" + comma.join(words) + "}").encode(errors="surrogatepass")
    except RecursionError:
        return b"[" * 65536


def _encoded(random: Random, data: bytes) -> bytes:
    text = data.decode(errors="surrogateescape")
    return text.encode(random.choice(_ENCODINGS), errors="replace")


_Change = Callable[[Random, bytes], bytes]
_CHANGES: tuple[_Change, ...] = (
    *(_flip, _put_byte, _cut, _repeat, _tokens, _tokens, _tokens),
    *(_structure, _structure, _structure, _structure, _encoded),
)
