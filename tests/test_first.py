"""What a start reads first lies together, and last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shifter_lite.build.first import First
from shifter_lite.build.press import BLOCK
from shifter_lite.config import Policy
from tests.helpers import images
from tests.test_convert import SITE, built, noise


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("lib64/ld-linux-x86-64.so.2", "bin/sh"),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", "usr/bin/bash"),
        ("lib/ld-musl-aarch64.so.1", "bin/busybox"),
        ("./usr/bin/env", "usr/bin/python3.11"),
        ("/etc/ld.so.cache", "usr/lib/python3.11/encodings/__pycache__/utf_8.cpython-311.pyc"),
        ("usr/lib64/libm-2.28.so", "usr/local/bin/python3"),
    ],
)
def test_loaders_and_libc_come_before_shells_and_these_before_interpreters(
    earlier: str, later: str
) -> None:
    first = First()
    ranks = [first.rank(name.encode()) for name in (earlier, later)]
    assert ranks[0] is not None
    assert ranks[1] is not None
    assert ranks[0] < ranks[1]


@pytest.mark.parametrize(
    "name",
    [
        "home/bin/sh",
        "usr/share/doc/libc.so.6",
        "usr/lib/python3.11/encodings/__pycache__/cp1252.cpython-311.pyc",
        "opt/lib/libc.so.6",
        "etc/passwd/x",
    ],
)
def test_of_other_files_nobody_knows(name: str) -> None:
    assert First().rank(name.encode()) is None


def test_a_trace_comes_before_all_in_its_order() -> None:
    first = First(["/opt/app", "/opt/data", "/opt/app"])
    names = (b"opt/app", b"./opt/data", b"usr/lib/libc.so.6")
    ranks = [rank for name in names if (rank := first.rank(name)) is not None]
    assert len(ranks) == 3
    assert ranks == sorted(ranks)


def test_what_comes_first_lies_together_behind_all_other_data(tmp_path: Path) -> None:
    sizes = {"usr/bin/bash": 2 * BLOCK, "opt/app": 700, "etc/passwd": 300, "other": 3 * BLOCK}
    sizes |= {"usr/lib/libc.so.6": BLOCK + 1, "small": 900}
    data = {name: noise(size, size) for name, size in sizes.items()}
    layer = images.layer([images.file(name, data[name]) for name in sizes])
    policy = Policy(first_files=("/opt/app",))
    _, image = built([layer], tmp_path, site=replace(SITE, policy=policy))
    order = sorted(sizes, key=lambda name: image.index(data[name][:64]))
    assert order == ["other", "small", "usr/lib/libc.so.6", "usr/bin/bash", "opt/app", "etc/passwd"]
