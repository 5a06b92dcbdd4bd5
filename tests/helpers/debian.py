"""A real image of Debian 12 in three layers, kept because mmdebstrap takes its time."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.helpers import images, kept
from tests.helpers.images import Image, Layer

# Part of the kept image's name: to change what is made, change it.
_RECIPE = "2"
_SUITE = "bookworm"
_SOURCE = re.compile(rf"{_SUITE}(-updates|-security|/updates)?")
# How this machine reaches its mirror: proxies and the like.
_OPTION = re.compile(r"Acquire::(https?|Check-[A-Za-z-]+|Retries)\b.*\S \".+\";")


def push(registry: str, name: str = "debian", tag: str = "12") -> str:
    """Put the image into the registry at the address REGISTRY; return the name to pull."""
    images.push(registry, name, tag, image())
    return f"{registry}/{name}:{tag}"


def image() -> Image:
    """Return the image, made now unless it was made before."""
    return kept.image(f"debian-{_RECIPE}", _make)


def _make(scratch: Path) -> Image:
    archive = scratch / "debian.tar"
    bootstrap(archive)
    return images.image(
        [images.packed(archive.read_bytes()), _changes(), _links()],
        settings={
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "DEMO_GREETING=hello from the image",
            ],
            "WorkingDir": "/opt/demo",
            "Cmd": ["/opt/demo/greet"],
        },
    )


def _changes() -> Layer:
    """Something new, something changed, something gone."""
    return images.layer(
        [
            images.directory("opt/demo"),
            images.file("opt/demo/greet", b'#!/bin/sh\necho "$DEMO_GREETING"\n', mode=0o755),
            images.file("opt/demo/data", bytes(range(256)) * 4096),
            images.file("etc/motd", b"This file was changed by the second layer.\n"),
            images.whiteout("usr/share/doc/bash"),
            images.whiteout("usr/share/common-licenses/GPL-1"),
        ]
    )


def _links() -> Layer:
    """Names for what is there."""
    return images.layer(
        [
            images.file("opt/demo/one", b"one file, two names\n"),
            images.hardlink("opt/demo/two", "opt/demo/one"),
            images.symlink("opt/demo/current", "one"),
            images.symlink("usr/local/bin/greet", "/opt/demo/greet"),
        ]
    )


def bootstrap(archive: Path, *packages: str) -> None:
    """Write a minimal Debian and PACKAGES to ARCHIVE, from where this machine's apt gets them."""
    command = ["mmdebstrap", "--variant=minbase", "--quiet"]
    command += [f"--aptopt={option}" for option in _apt_options()]
    # The options are about this machine, not about the image.
    command += ['--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"']
    command += [f"--include={package}" for package in packages]
    command += [_SUITE, str(archive), *_apt_sources()]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(images.MTIME)},
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")


def _apt_options() -> list[str]:
    dump = _output("apt-config", "dump")
    return [line for line in dump.splitlines() if _OPTION.fullmatch(line)]


def _apt_sources() -> list[str]:
    """Return the Debian sources of this machine; none means what mmdebstrap takes by default."""
    format_ = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)"
    rows = _output("apt-get", "indextargets", "--format", format_, "Created-By: Packages")
    sources = set()
    for row in rows.splitlines():
        uri, release, component, signed_by = row.split("|", 3)
        if _SOURCE.fullmatch(release) and component == "main":
            options = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
            sources.add(f"deb {options}{uri} {release} {component}")
    return sorted(sources)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
