"""The launcher answers every vector of the index as the contract says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runtime.conftest import Launcher

VECTORS = Path(__file__).parents[2] / "spool" / "vectors" / "indexes"
ANSWERS = [
    line.split("\t")
    for line in (VECTORS / "answers.tsv").read_text(encoding="utf-8").splitlines()[1:]
]
ID = "0123456789abcdef" * 4
WORDS = {
    # What was found is a directory, so that no launch goes on.
    "found": "is not a regular file",
    "absent": "no image 'docker.io/library/x:1' in the store",
    "damaged": "is damaged",
    "newer": "was made by a newer version",
}


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_a_vector_is_answered_as_it_should_be(
    shifter: Launcher, store: Path, name: str, answer: str
) -> None:
    (store / "index").mkdir()
    (store / "images" / "01" / f"{ID}.squashfs").mkdir(parents=True)
    shutil.copy(VECTORS / name, store / "index" / "images.0000000001.cdb")
    done = shifter.run("--image=x:1", "true")
    assert done.returncode == 125
    assert WORDS[answer] in done.stderr
