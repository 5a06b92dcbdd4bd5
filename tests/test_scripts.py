"""What scripts and CI take from elsewhere is what was looked at, and machines stay as they were."""

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIB = ROOT / "scripts/lib"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", each) for each in requirements)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def locked(file: str) -> dict[str, str]:
    """Return the versions that FILE locks, each of which has hashes."""
    text = (LIB / file).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(
            r"([a-z0-9-]+)==([\w.]+)( ; [^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+", line
        )
        assert match, line
        found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_all_that_scripts_install_is_locked_with_hashes(file: str) -> None:
    wanted = names([*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"]])
    if "dev" in file:
        wanted |= names(PROJECT["project"]["optional-dependencies"]["dev"])
    # Else: scripts/lock.
    assert wanted <= locked(file).keys()


def test_what_is_installed_without_development_is_what_is_developed_with() -> None:
    assert locked("requirements.txt").items() <= locked("requirements-dev.txt").items()


def test_no_script_installs_anything_that_is_not_locked_or_outside_of_a_venv() -> None:
    for path in (*(ROOT / "scripts").rglob("*"), ROOT / ".ci/run"):
        if not path.is_file() or path.name in ("lock", "requirements.txt", "requirements-dev.txt"):
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.search(r"\bpip\b.* install\b", line):
                assert line.strip().startswith('"$venv/bin/pip" install'), (path, line)
                assert "--require-hashes" in line or "--no-build-isolation" in line, (path, line)


@pytest.mark.skipif(os.getuid() != 0, reason="only root opens it")
def test_a_script_leaves_the_device_of_fuse_as_it_was(tmp_path: Path) -> None:
    device = tmp_path / "fuse"
    device.touch(0o600)
    setting = f". scripts/lib/setup.sh; fuse={device} fuse_kept={tmp_path}/kept"
    script = f"""
        {setting}
        trap close_fuse EXIT
        open_fuse
        stat -c %a "$fuse"
        # Another one begins meanwhile, and ends earlier.
        bash -c '{setting}; open_fuse; close_fuse'
        stat -c %a "$fuse"
        exit 3
    """
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("666\n666\n", "", 3)
    assert stat.S_IMODE(device.stat().st_mode) == 0o600
    assert not (tmp_path / "kept").exists()
