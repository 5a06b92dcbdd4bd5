"""Modules whose libraries an image cannot use, and modules made of CDI specifications."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shifter_lite import cdi
from tests.runtime.conftest import Launcher
from tests.runtime.store import described, make_store
from tests.runtime.test_config import config as config  # the fixture
from tests.test_cdi import AMD, NVIDIA, module


@pytest.fixture
def mpi(shifter: Launcher, store: Path, image: Path, playground: Path, config: Path) -> Launcher:
    """An image whose programs need a libmpi.so.40, and modules that bring one or another."""
    libs = ["libc.so.6", "libmpi.so.40"]
    make_store(
        store,
        described(image, [("libs", name) for name in libs], playground / "mpi.squashfs"),
        env=["PATH=/bin"],
    )
    config.write_text(
        "module_mpich_requires=libmpi.so.12 libfabric.so.1\n"
        "module_openmpi_requires=libmpi.so.40\n"
        "module_cuda_requires=libcuda.so.1\n"
        "module_plain_siteEnv=A=b\n"
    )
    return shifter


@pytest.mark.parametrize("name", ["openmpi", "cuda", "plain", "openmpi,cuda,plain", "none"])
def test_a_module_that_can_be_used_or_does_no_harm_is_taken(mpi: Launcher, name: str) -> None:
    done = mpi.run("-i", "test", f"--module={name}", "true")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["mpich", "plain,mpich"])
def test_a_module_of_another_version_ends_the_launch_before_anything_is_mounted(
    mpi: Launcher, name: str, playground: Path
) -> None:
    trace = playground / "trace"
    before = ["strace", "-f", "-o", str(trace)]
    done = mpi.run("-i", "test", f"--module={name}", "true", before=before)
    assert done.returncode == 125
    fact, hint = done.stderr.splitlines()[:2]
    assert fact == (
        "shifter: the module 'mpich' is for programs that need 'libmpi.so.12', "
        "and the image's need 'libmpi.so.40'"
    )
    assert hint.startswith("  hint: ")
    calls = trace.read_text()
    assert "mount(" not in calls
    assert "unshare(" not in calls


def test_an_image_that_does_not_say_what_it_needs_is_launched(
    mpi: Launcher, store: Path, image: Path
) -> None:
    make_store(store, image, env=["PATH=/bin"], number=2)
    assert mpi.run("-i", "test", "--module=mpich", "true").returncode == 0


def test_what_is_made_of_a_cdi_specification_is_a_module(shifter: Launcher, config: Path) -> None:
    config.write_text("\n".join(["imagePath=/x", *module(NVIDIA), *module(AMD)]))
    done = shifter.run("--check-config")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_made_of_a_cdi_specification_brings_its_libraries(
    shifter: Launcher, config: Path, playground: Path
) -> None:
    library = playground / "libcuda.so.550"
    library.write_text("the driver's\n")
    edits = {
        "env": ["CUDA=yes"],
        "mounts": [{"hostPath": str(library), "containerPath": "/host/libcuda.so.550"}],
        "hooks": [
            {
                "hookName": "createContainer",
                "path": "/x",
                "args": ["x", "update-ldcache", "--folder", "/host"],
            }
        ],
    }
    devices = [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/null"}]}}]
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
    data = json.dumps({**spec, "containerEdits": edits}).encode()
    config.write_text(cdi.module(data, "s", lambda _: ["/usr/lib/libcuda.so.1"]))
    out = shifter.inside('cat /host/libcuda.so.1; echo "$CUDA $LD_LIBRARY_PATH"', "--module=nvidia")
    assert out == "the driver's\nyes /host\n"
