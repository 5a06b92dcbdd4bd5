"""A launch shows the files that its names lead to now, whatever older containers show."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runtime.conftest import GID, UID, Launcher
from tests.runtime.store import make_store
from tests.runtime.test_container import LONG, rank, servers

NUMBER = int(os.environ.get("SHIFTER_TEST_ORDERS", "150"))


def made(path: Path, **files: str) -> Path:
    """Make the directory PATH of the caller's, with FILES in it."""
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    for each in (path, *path.iterdir()):
        os.chown(each, UID, GID)
    return path


def replaced(path: Path, text: str) -> None:
    """Replace the file PATH as editors do: by another file of this name."""
    other = path.with_name("other")
    other.write_text(text)
    other.rename(path)


@pytest.fixture
def shifter(shifter: Launcher, playground: Path) -> Iterator[Launcher]:
    """The launcher, whose containers stay open for further ranks until the end of the test."""
    shifter.env |= LONG
    with rank(shifter, "-V", f"{playground}:/play"):
        yield shifter
    for process in Path("/proc").glob("[0-9]*/comm"):
        try:
            if process.read_text() == "shifter-keeper\n" and process.stat().st_uid == UID:
                os.kill(int(process.parent.name), 9)
        except OSError:
            continue
    shutil.rmtree(f"/dev/shm/shifter_lite.{UID}", ignore_errors=True)


# ------------------------------------------------------------------------------- sources


def test_a_directory_that_was_made_anew_is_shown(shifter: Launcher, playground: Path) -> None:
    source = playground / "in"
    for number in range(3):
        made(source, data=f"{number}\n")
        assert shifter.inside("cat /in/data", "-V", f"{source}:/in") == f"{number}\n"
        shutil.rmtree(source)


def test_results_go_into_the_directory_of_the_name(shifter: Launcher, playground: Path) -> None:
    out, old = playground / "out", playground / "out.1"
    made(out)
    shifter.inside("echo 1 > /out/result", "-V", f"{out}:/out")
    out.rename(old)
    made(out)
    shifter.inside("echo 2 > /out/result", "-V", f"{out}:/out")
    assert [(old / "result").read_text(), (out / "result").read_text()] == ["1\n", "2\n"]


def test_a_file_that_was_replaced_is_shown(shifter: Launcher, playground: Path) -> None:
    source = playground / "settings"
    for text in ("a=1\n", "a=2\n"):
        replaced(source, text)
        assert shifter.inside("cat /s", "-V", f"{source}:/s") == text
        source.write_text(text * 2)
        assert shifter.inside("cat /s", "-V", f"{source}:/s") == text * 2


def test_a_link_is_followed_anew(shifter: Launcher, playground: Path) -> None:
    link = playground / "current"
    for name in ("one", "two"):
        made(playground / name, data=f"{name}\n")
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert shifter.inside("cat /in/data", "-V", f"{link}:/in") == f"{name}\n"


def test_the_present_directory_that_was_made_anew_gets_the_results(
    shifter: Launcher, playground: Path
) -> None:
    run = playground / "run"
    for number in range(3):
        made(run)
        shifter.inside(f"echo {number} > out", cwd=run)
        assert (run / "out").read_text() == f"{number}\n"
        shutil.rmtree(run)


def test_a_home_that_was_made_anew_is_shown(shifter: Launcher, playground: Path) -> None:
    home = playground / "home"
    for number in range(2):
        made(home, data=f"{number}\n")
        assert shifter.inside("cat ~/data", env={"HOME": str(home)}) == f"{number}\n"
        shutil.rmtree(home)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("siteFs={0}/site:/site", "/site/data"),
        ("siteFs={0}/site:/site:optional", "/site/data"),
        ("optUdiImage={0}/site", "/opt/udiImage/data"),
        ("defaultModules=m\nmodule_m_siteFs={0}/site:/site", "/site/data"),
        ("defaultModules=m\nmodule_m_copyPath={0}/site", "/opt/udiImage/modules/m/data"),
        ("etcPath={0}/site", "/etc/data"),
    ],
)
def test_what_the_site_has_replaced_is_shown(
    shifter: Launcher, playground: Path, line: str, shown: str
) -> None:
    site, config = playground / "site", playground / "udiRoot.conf"
    config.write_text(line.format(playground) + "\n")
    env = {"SHIFTER_CONFIG": str(config)}
    made(site, data="first\n")
    assert shifter.inside(f"cat {shown}", env=env) == "first\n"
    shutil.rmtree(site)
    made(site, data="second\n")
    assert shifter.inside(f"cat {shown}", env=env) == "second\n"
    (site / "data").write_text("third\n")
    assert shifter.inside(f"cat {shown}", env=env) == "third\n"


def test_a_source_that_has_come_is_shown(shifter: Launcher, playground: Path) -> None:
    config = playground / "udiRoot.conf"
    config.write_text(f"siteFs={playground}/late:/late:optional\n")
    env = {"SHIFTER_CONFIG": str(config)}
    assert shifter.inside("ls -d /late || echo none", env=env) == "none\n"
    made(playground / "late", data="come\n")
    assert shifter.inside("cat /late/data", env=env) == "come\n"


def test_a_store_that_was_made_anew_is_asked(shifter: Launcher, playground: Path) -> None:
    image = next(shifter.store.glob("images/*/*.squashfs"))
    other = playground / "other"
    for name in ("docker.io/library/test:latest", "docker.io/library/new:latest"):
        make_store(other, image, name)
        found = [
            shifter.run("-i", each, "true", env={"SHIFTER_STORE": str(other)}).returncode
            for each in ("test", "new")
        ]
        assert found == ([0, 125] if "/test:" in name else [125, 0])
        shutil.rmtree(other)


def test_what_is_the_same_shares_one_container(shifter: Launcher, playground: Path) -> None:
    source = made(playground / "in", data="x")
    before = len(servers(shifter))
    for number in range(3):
        (source / "data").write_text(str(number))
        (source / f"new{number}").write_text("")
        assert shifter.inside("cat /in/data", "-V", f"{source}:/in") == str(number)
        assert len(servers(shifter)) == before + 1


def test_the_order_of_volumes_makes_no_other_container(shifter: Launcher, playground: Path) -> None:
    source = made(playground / "in")
    inner = made(playground / "inner", data="inner\n")
    volumes = [f"{source}:/v", f"{inner}:/v/below"]
    os.mkdir(source / "below")
    before = len(servers(shifter))
    for order in (volumes, volumes[::-1]):
        assert shifter.inside("cat /v/below/data", "-V", ";".join(order)) == "inner\n"
    assert len(servers(shifter)) == before + 1


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_a_seccomp_filter_that_knows_no_new_calls_changes_nothing(
    shifter: Launcher, playground: Path, error: str
) -> None:
    source = playground / "in"
    calls = f"inject=statx,name_to_handle_at:error={error}"
    before = ("strace", "-o", "/dev/null", "-e", calls)
    kept = []
    for number in range(3):
        made(source, data=f"{number}\n")
        options = ("-V", f"{source}:/in")
        assert shifter.inside("cat /in/data", *options, before=before) == f"{number}\n"
        # Without handles only a directory that lives keeps its number.
        kept.append(source.rename(playground / f"past{number}"))
    assert len(kept) == 3


# --------------------------------------------------------------------------- random orders


def change(chance: random.Random, playground: Path, number: int) -> Path:
    """Let a name mean another file than before; return a name to be looked at."""
    link = playground / "link"
    one, other = (playground / name for name in chance.sample(["a", "b", "c"], 2))
    match chance.randrange(5):
        case 0:
            shutil.rmtree(one)
            made(one, data=f"{number}\n")
        case 1:
            one.rename(playground / f"old{number}")
            made(one, data=f"{number}\n")
        case 2:
            spare = playground / "spare"
            one.rename(spare)
            other.rename(one)
            spare.rename(other)
        case 3:
            replaced(one / "data", f"{number}\n")
        case 4:
            link.unlink()
            link.symlink_to(one.name)
    return chance.choice([one, other, link])


def test_in_any_order_of_changes_a_launch_sees_what_is_there(
    shifter: Launcher, playground: Path
) -> None:
    chance = random.Random(1)
    for name in ("a", "b", "c"):
        made(playground / name, data=f"first {name}\n")
    (playground / "link").symlink_to("a")
    for number in range(NUMBER):
        source = change(chance, playground, number)
        script = f"cat data; echo > mark{number}"
        if chance.random() < 0.5:
            found = shifter.inside(f"cd /in; {script}", "-V", f"{source}:/in")
        else:
            found = shifter.inside(script, cwd=source)
        assert found == (source / "data").read_text(), number
        assert (source / f"mark{number}").exists()


@contextmanager
def swapping(directory: Path) -> Iterator[None]:
    """Replace the directory again and again, each time with a larger number in its file."""
    over = threading.Event()

    def swap() -> None:
        number = 0
        while not over.is_set():
            number += 1
            spare = made(directory.with_name(f"next{number}"), data=f"{number}\n")
            directory.rename(directory.with_name(f"past{number}"))
            spare.rename(directory)
            over.wait(0.003)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def number_in(directory: Path) -> int:
    """Return the number of the directory, which may be missing for a moment."""
    while True:
        try:
            return int((directory / "data").read_text())
        except OSError:
            continue


def test_a_launch_shows_nothing_older_than_its_start(shifter: Launcher, playground: Path) -> None:
    source = made(playground / "in", data="0\n")
    seen = 0
    with swapping(source):
        for _ in range(NUMBER // 2):
            before = number_in(source)
            done = [
                shifter.popen("-i", "test", "-V", f"{source}:/in", "cat", "/in/data",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                for _ in range(3)
            ]  # fmt: skip
            for process in done:
                out, error = process.communicate(timeout=20)
                if process.returncode == 125:
                    assert "cannot find" in error
                    continue
                assert before <= int(out) <= number_in(source)
                seen += 1
    assert seen > NUMBER
