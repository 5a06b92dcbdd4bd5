"""Every image of the corpus, through all that is installed: registry, worker, squashfs."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, User, installed
from tests.corpus import names
from tests.corpus.case import Case
from tests.corpus.every import CASES
from tests.helpers import faulty, spool, trees, users

Answers = dict[str, spool.Answer]
_WORKERS = 2
_TIMEOUT = 600.0
# What is synced a thousand times is synced in memory, if there is a place for that.
_PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
# unsquashfs wants to say the whole of a path.
_LONGEST_PATH = 4000


@pytest.fixture(scope="module")
def store(user: User) -> Iterator[Path]:
    """A store of the ordinary user's."""
    with users.directory(user, _PLACE) as home:
        made = home / "store"
        subprocess.run(
            _command(user, "shifter-admin", made, "init", "--private"),
            env=_environment(home),
            check=True,
            capture_output=True,
        )
        yield made


def _command(user: User, program: str, store: Path, *arguments: str) -> list[str]:
    return [*user.prefix, str(installed(program)), "--store", str(store), *arguments]


def _environment(home: Path) -> dict[str, str]:
    path = f"{installed('shifterimg').parent}:/usr/bin:/bin:/usr/sbin:/sbin"
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8"}


@pytest.fixture(scope="module")
def answers(user: User, store: Path) -> Answers:
    """What became of every image, by its claim: all are asked for at once."""
    home = store.parent
    with faulty.serving() as registry:
        asked = {
            registry.add(f"c{number}", "1", case.image): case.claim
            for number, case in enumerate(CASES)
        }
        requests = spool.ask(store, user, asked)
        workers = [
            subprocess.Popen(
                _command(user, "shifter-worker", store, "drain"),
                env=_environment(home),
                cwd=home,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(_WORKERS)
        ]
        for worker in workers:
            assert worker.wait(_TIMEOUT) == 0
    return {asked[image]: spool.answer(store, name) for image, name in requests.items()}


def image_of(case: Case, answers: Answers, store: Path) -> Path:
    """Return the squashfs file that CASE became."""
    answer = answers[case.claim]
    assert answer.state == "READY", answer.fact
    return store / "images" / answer.image_id[:2] / f"{answer.image_id}.squashfs"


GOOD = [case for case in CASES if case.tree and max(map(len, case.tree)) < _LONGEST_PATH]
NAMED = [case for case in names.CASES if case.tree]
BAD = [case for case in CASES if case.tree is None]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where images are unpacked, one after the other."""
    return tmp_path_factory.mktemp("scratch")


@pytest.mark.timeout(_TIMEOUT)
@pytest.mark.parametrize("case", GOOD, ids=[case.claim for case in GOOD])
def test_the_image_has_its_tree(case: Case, answers: Answers, store: Path, scratch: Path) -> None:
    assert trees.of_image(image_of(case, answers, store), scratch) == case.tree


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("case", NAMED, ids=[case.claim for case in NAMED])
def test_the_kernel_has_the_same_tree(
    case: Case, answers: Answers, store: Path, tmp_path: Path
) -> None:
    assert trees.of_mounted(image_of(case, answers, store), tmp_path) == case.tree


@pytest.mark.timeout(_TIMEOUT)
@pytest.mark.parametrize("case", BAD, ids=[case.claim for case in BAD])
def test_the_image_is_refused(case: Case, answers: Answers) -> None:
    answer = answers[case.claim]
    assert (answer.state, answer.exit_code, answer.image_id) == ("FAILURE", 65, "")
    assert answer.hint
    # One line, whatever the image puts into its names.
    assert answer.fact.isprintable()
    for word in case.because:
        assert word in answer.fact


@pytest.mark.parametrize("case", BAD[::60], ids=[case.claim for case in BAD[::60]])
def test_who_pulls_sees_one_line_and_a_hint(
    case: Case, run: Runner, faulty_registry: faulty.Registry
) -> None:
    done = run("shifterimg", "pull", faulty_registry.add("bad", "1", case.image))
    assert done.returncode == 65
    assert done.stdout.endswith("status: FAILURE\n")
    fact, hint = done.stderr.splitlines()
    assert fact.startswith("shifterimg: ")
    assert hint.startswith("  hint: ")
    for word in case.because:
        assert word in fact


def test_nothing_is_published_of_what_is_refused(answers: Answers, store: Path) -> None:
    published = {answer.image_id for answer in answers.values()} - {""}
    assert {path.stem for path in (store / "images").glob("??/*")} == published
    assert not list(store.glob("**/.*"))


def test_the_cache_holds_verified_blobs_only(answers: Answers, store: Path) -> None:
    blobs = [path for path in (store / "cache/blobs").glob("??/*") if path.suffix != ".toc"]
    assert len(blobs) > len(answers) / 2
    found = subprocess.run(["sha256sum", *blobs], capture_output=True, text=True, check=True)
    for line in found.stdout.splitlines():
        digest, path = line.split()
        assert os.path.basename(path) == digest
