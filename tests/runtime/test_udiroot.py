"""Two programs read udiRoot.conf: the launcher, and with the same rules shifterimg."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from shifter_lite import udiroot

FLAGS = [
    "ro", "RO", "rec", "Slave", "private", "slave", "optional", "rw", "perNodeCache",
    "perNodeCache=", "perNodeCache=size=1G", "PERNODECACHE=SIZE=1.5kb", "perNodeCache=size=1X",
    "size=2G", "fs=xfs", "fs=", "FS=XFS", "bs=4k", "bs=x", "method=loop", "METHOD=LOOP", "method=x",
]  # fmt: skip
PATHS = [
    "/a", "/a/b", "/etc", "/etc/passwd", "/proc/x", "/var", "/opt", "/opt/x", "/", "//x//./y/",
    "/a/../b", "/..", "/...", "/a b", "/a /b", "/" + "y" * 800, "/" + "z" * 5000,
]  # fmt: skip
# What values are made of; the words of one rule are tried with the keys of others, too.
WORDS = [
    *FLAGS, *PATHS, "relative", ".", "", "A=1", "B=", "=", "=x", "A", "0", "1", "2", "-1", "9",
    "999999999", "1000000000", "docker", "custom", "shared", "1G", "1.5T", ".5K", "1.K", "8E",
    "7.9E", "1KB", "1BB", "0.1B", "123456789012345678", "1234567890123456789", "mpi", "\xe9",
    "\xff\xfe", "\x01", "\t", "\r", "\v", "x" * 250,
]  # fmt: skip
BETWEEN = ["", "", " ", ":", ":", ":", ",", ";", ";", "; ", " : ", "'", '"', "=", "\\\n", " \\\n "]
KEYS = [
    *udiroot.FILE_KEYS,
    *(f"module_{name}_{key}" for name in ("m", "gpu") for key in udiroot.MODULE_KEYS),
    "module_x", "module__siteFs", "module_none_siteFs", "module_.x_siteFs", "module_a_b_siteEnv",
    f"module_{'n' * 64}_x", f"module_{'n' * 65}_siteEnv", "x", "", "sitefs", "siteEnvx", "k" * 300,
]  # fmt: skip


def value(chance: random.Random) -> str:
    """Return a value, mostly a wrong one."""
    words = [chance.choice(WORDS) + chance.choice(BETWEEN) for _ in range(chance.randint(0, 5))]
    return chance.choice(["", "", " ", '"', "'"]) + "".join(words)


def volume(chance: random.Random) -> str:
    """Return a volume that may be good."""
    paths = chance.choices(PATHS, k=2)
    flags = chance.choices(FLAGS, k=chance.choice([0, 0, 1, 1, 2, 3]))
    words = [*paths[: chance.choice([1, 2, 2, 2])], *flags]
    quote = chance.choice(["", "", "", '"', "'"])
    return (
        quote + "".join(word + chance.choice([":", ":", ":", ",", " : "]) for word in words) + quote
    )


def line(chance: random.Random) -> str:
    """Return a line: what it says is often nonsense."""
    if chance.randint(0, 1):
        volumes = [volume(chance) for _ in range(chance.randint(1, 3))]
        return chance.choice(["siteFs=", "module_m_siteFs="]) + ";".join(volumes)
    key = chance.choice(KEYS)
    match chance.randint(0, 11):
        case 0:
            key = "".join(c.upper() if chance.random() < 0.3 else c for c in key)
        case 1:
            at = chance.randint(0, len(key))
            key = key[:at] + chance.choice(["x", "_", " ", "\t", "\xc9"]) + key[at + 1 :]
        case 2:
            return chance.choice(["# x\\", " # x", "nonsense", "", " ", "\\", "a\\", "=", "\v#x"])
    return chance.choice(["", " "]) + key + chance.choice(["=", " = ", "="]) + value(chance)


def text(chance: random.Random) -> bytes:
    """Return a file whose first lines are likely to be good."""
    good = ["system=x", "imagePath=/\xe9 s", "siteFs=/a:/b:ro;/c", "# c\\", "siteEnv=A=1 B=2", ""]
    lines = chance.choices(good, k=chance.randint(0, 3)) + [line(chance)] * chance.randint(0, 1)
    lines += [line(chance) for _ in range(chance.randint(0, 2))]
    return ("\n".join(lines) + chance.choice(["", "\n", "\\", "\\\n"])).encode("latin-1")


def launchers(built: Path, texts: list[bytes]) -> list[list[bytes]]:
    """Return what the launcher's reader says of TEXTS."""
    done = subprocess.run(
        [built / "obj" / "asked_test", "files"],
        input=b"".join(each + b"\0" for each in texts),
        capture_output=True,
        check=True,
        env={"ASAN_OPTIONS": "detect_leaks=0"},
    )
    words = done.stdout.split(b"\0")[:-1]
    return [words[at : at + 3] for at in range(0, len(words), 3)]


def ours(given: bytes) -> list[bytes]:
    """Return what shifterimg's reader says of GIVEN, in the same form."""
    try:
        said = ["0", udiroot.parse(given).image_path, ""]
    except udiroot.Wrong as wrong:
        said = [str(wrong.line), str(wrong), wrong.hint]
    return [word.encode(errors="surrogateescape") for word in said]


def test_both_readers_know_the_same_keys_and_rules(built: Path) -> None:
    driver = subprocess.run(
        [built / "obj" / "asked_test", "rules"], capture_output=True, text=True, check=True
    )
    modules = {f"module_NAME_{key}": rule for key, rule in udiroot.MODULE_KEYS.items()}
    printed = [tuple(row.split("\t")) for row in driver.stdout.splitlines()]
    assert printed == list({**udiroot.FILE_KEYS, **modules}.items())


@pytest.mark.parametrize("seed", range(4))
def test_both_readers_say_the_same_of_any_file(built: Path, seed: int) -> None:
    chance = random.Random(seed)
    texts = [text(chance) for _ in range(2000)]
    said = launchers(built, texts)
    assert len(said) == len(texts)
    for given, answer in zip(texts, said, strict=True):
        assert ours(given) == answer, given
    assert {answer[0] for answer in said} >= {b"0", b"1", b"2", b"3"}


def test_both_readers_say_the_same_of_what_sites_write(built: Path) -> None:
    root = Path(__file__).parents[2]
    files = [*root.glob("docs/examples/udiRoot.conf"), *root.glob("docs/**/*.md")]
    texts = [path.read_bytes() for path in files]
    assert [ours(each) for each in texts] == launchers(built, texts)
    assert os.fsencode("0") == launchers(built, texts)[0][0]
