"""Whole images: how many layers, which of them twice, and what their configs say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.corpus.case import IMPLIED, Case, Is, holds, is_file, refused
from tests.helpers import images
from tests.helpers.images import Layer, encode, file, layer, opaque, whiteout

_A = layer([file("a", b"a")])
_TREE = {"a": is_file(b"a")}
_GONE = layer([whiteout("a")])


def _many(count: int) -> Case:
    """Every layer adds a file, replaces one, and deletes what the one before it added."""
    layers = [
        [file(f"d/{n}", b"%d" % n), file("last", b"%d" % n), whiteout(f"d/{n - 2}")]
        for n in range(count)
    ]
    last = count - 1
    tree: dict[str, Is] = {"d": IMPLIED, "last": is_file(b"%d" % last)}
    tree |= {f"d/{n}": is_file(b"%d" % n) for n in (last - 1, last)}
    return holds(f"an image may have {count} layers", *layers, tree=tree)


_LAYERS = [
    holds("an image may have no layer at all", tree={}),
    holds("an image may have one layer without an entry", [], tree={}),
    holds("layers without an entry change nothing", [], [file("a", b"a")], [], [], tree=_TREE),
    holds("a layer may be there twice", _A, _A, tree=_TREE),
    holds("a layer may be there twice, and count twice", _A, _GONE, _A, tree=_TREE),
    holds("a layer may be there three times", _A, _GONE, _A, _GONE, tree={}),
    holds(
        "a layer that empties and fills a directory may be there twice",
        *[layer([opaque("d"), file("d/x", b"x"), whiteout("d/x"), file("d/y")])] * 2,
        tree={"d": IMPLIED, "d/x": is_file(b"x"), "d/y": is_file()},
    ),
    _many(127),
    _many(300),
]


def _config(text: bytes, *layers: Layer) -> images.Image:
    return images.image(layers, config=text)


def _with(settings: Any, **more: Any) -> images.Image:
    """Return an image whose config has SETTINGS for its "config", and MORE beside it."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [_A.diff_id]},
        **more,
    }
    return _config(encode(document), _A)


_NULLS = dict.fromkeys(
    ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "Volumes", "ExposedPorts")
)
_GOOD_CONFIGS = {
    "that is null": _with(None),
    "that is empty": _with({}),
    "with a null for everything": _with(_NULLS),
    "with a list of nothing for everything": _with({"Env": [], "Cmd": [], "Entrypoint": []}),
    "with keys that nobody knows": _with({"Healthcheck": {"Test": 7}, "\u4e2d": [None]}),
    "with odd values that nobody reads": _with(
        {"Volumes": 3, "ExposedPorts": [], "OnBuild": {}, "Tty": "yes", "StopSignal": 9}
    ),
    "with an odd history": _with({}, history="none", created=-1, author=[], container={}),
    "with a variable twice": _with({"Env": ["A=1", "A=2"]}),
    "with an empty variable": _with({"Env": ["A="]}),
    "with a variable of several lines": _with({"Env": ["A=1\n2\n3", "B=\t"]}),
    "with a variable with an equals sign": _with({"Env": ["A=b=c"]}),
    "with an empty word": _with({"Cmd": [""], "Entrypoint": ["", "x"]}),
    "in Chinese": _with({"Env": ["A=\u4e2d\u6587"], "Labels": {"\u4e2d": "\u6587"}}),
    "with a thousand labels": _with({"Labels": {f"l{n}": "x" for n in range(1000)}}),
    "with a place that is not there": _with({"WorkingDir": "/not/there"}),
    "with another system's name": _with({}, os="", architecture=None, variant=""),
}
_ODD_SETTINGS: dict[str, Any] = {
    "Env that is text": {"Env": "A=b"},
    "Env that is an object": {"Env": {"A": "b"}},
    "Env of numbers": {"Env": [1]},
    "Env of lists": {"Env": [["A=b"]]},
    "Env with a null": {"Env": ["A=b", None, 7]},
    "Env without an equals sign": {"Env": ["A"]},
    "Env without a name": {"Env": ["=b"]},
    "Env with a NUL": {"Env": ["A=\0"]},
    "Env that is no Unicode": {"Env": ["A=\udc80"]},
    "Cmd that is text": {"Cmd": "sh -c true"},
    "Cmd that is true": {"Cmd": True},
    "Cmd with an object": {"Cmd": [{}]},
    "Cmd with a NUL": {"Cmd": ["a\0b"]},
    "Entrypoint that is text": {"Entrypoint": "/bin/sh"},
    "Entrypoint that is a number": {"Entrypoint": 1},
    "WorkingDir that is a list": {"WorkingDir": ["/"]},
    "WorkingDir with a NUL": {"WorkingDir": "/\0"},
    "User that is a number": {"User": 1000},
    "Labels that are a list": {"Labels": ["a=b"]},
    "Labels of numbers": {"Labels": {"a": 1}},
    "settings that are a list": [],
    "settings that are text": "Env",
    "settings that are false": False,
}
_LARGE = [f"A{n}={'x' * 1000}" for n in range(200)]
_DIFF_ID = _A.diff_id
_BAD_CONFIGS: dict[str, tuple[images.Image, str]] = {
    **{what: (_with(settings), "image config") for what, settings in _ODD_SETTINGS.items()},
    "Env that is too large": (_with({"Env": _LARGE}), "more than 131072"),
    **{
        f"diff_ids that are {what}": (_with({}, rootfs={"diff_ids": value}), "diff_ids")
        for what, value in {
            "missing": None,
            "text": _DIFF_ID,
            "none": [],
            "two": [_DIFF_ID, _DIFF_ID],
            "numbers": [1],
            "without an algorithm": [_DIFF_ID[7:]],
            "of another algorithm": [f"md5:{_DIFF_ID[7:39]}"],
            "in capitals": [f"sha256:{_DIFF_ID[7:].upper()}"],
            "an object": {_DIFF_ID: 1},
        }.items()
    },
    "a rootfs that is a list": (_with({}, rootfs=[]), "diff_ids"),
    "a rootfs that is missing": (_config(b"{}", _A), "diff_ids"),
    "the diff_id of other content": (
        _with({}, rootfs={"diff_ids": [_GONE.diff_id]}),
        "not the diff_id",
    ),
    "the blob's digest for its diff_id": (
        _with({}, rootfs={"diff_ids": [images.sha256(_A.blob)]}),
        "not the diff_id",
    ),
    "os that is a number": (_with({}, os=1), "os"),
    "architecture that is a list": (_with({}, architecture=["amd64"]), "architecture"),
    **{
        f"a config that is {what}": (_config(text, _A), "image config")
        for what, text in {
            "null": b"null",
            "a list": b"[]",
            "text": b'"config"',
            "a number": b"7",
            "of no bytes": b"",
            "cut off": b'{"config": {',
            "followed by garbage": b"{} {}",
            "no JSON": b"{config: {}}",
            "binary": bytes(range(256)),
            "nested too deep": b'{"config":' + b"[" * 100_000,
            "a gzip file": _A.blob,
        }.items()
    },
}


def _configs() -> Iterator[Case]:
    for what, made in _GOOD_CONFIGS.items():
        yield holds(f"a config may be one {what}", _A, tree=_TREE, made=made)
    for what, (made, because) in _BAD_CONFIGS.items():
        yield refused(f"{what}: refused", _A, because=[because], made=made)


_KINDS = [
    holds("docker's media types are as good", _A, tree=_TREE, made=images.image([_A], docker=True)),
    holds(
        "docker's zstd is as good",
        layer([file("a", b"a")], "zstd"),
        tree=_TREE,
        made=images.image([layer([file("a", b"a")], "zstd")], docker=True),
    ),
    holds(
        "an image may be in an index",
        _A,
        tree=_TREE,
        made=images.index(
            {"linux/arm64": images.image([_GONE]), "linux/amd64": images.image([_A])}
        ),
    ),
]

CASES: list[Case] = [*_LAYERS, *_configs(), *_KINDS]
