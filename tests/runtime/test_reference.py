"""Names, and what the other pure parts of the launcher claim of themselves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

VECTORS = Path(__file__).parents[2] / "spool" / "vectors" / "references" / "names.tsv"


@pytest.mark.parametrize(
    ("driver", "arguments"),
    [
        ("reference_test", [VECTORS]),
        ("asked_test", []),
        ("identity_test", []),
        ("index_test", []),
        ("plan_test", []),
    ],
)
def test_claims_of_the_pure_parts_hold(built: Path, driver: str, arguments: list[Path]) -> None:
    done = subprocess.run(
        [built / "obj" / driver, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 0, done.stderr
