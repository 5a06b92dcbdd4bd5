"""How others make a squashfs file of an image: the commands of each, as its users would type them.

First it is pulled and unpacked, then squashed.  What can be squashed in two
ways is unpacked once, and each way is counted as if it were the only one.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from timing import AS_ROOT, ROOT

Commands = Mapping[str, list[str]]

_ZSTD = "mksquashfs zstd 3"
_WAYS = {"mksquashfs": [], _ZSTD: ["-comp", "zstd", "-Xcompression-level", "3"]}

# An ordinary user's podman becomes root among the user's ids, unless it hears that it is already.
_TOLD = [
    "env",
    "_CONTAINERS_USERNS_CONFIGURED=done",
    f"_CONTAINERS_ROOTLESS_UID={os.getuid()}",
    f"_CONTAINERS_ROOTLESS_GID={os.getgid()}",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The NAME to pull, its name at the registry with TLS, and an empty directory to work in."""

    name: str
    secure: str
    place: Path

    def at(self, name: str) -> str:
        """Return the path of NAME in the directory."""
        return str(self.place / name)

    def squashed(self, way: str) -> Path:
        """Return where the squashfs file belongs that is made in this WAY."""
        return self.place / f"{way.replace(' ', '-')}.squashfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One of the others: the commands that unpack, then one of those that squash."""

    unpack: Callable[[Job], Commands]
    squash: Callable[[Job], Commands]


def _squash(job: Job, way: str) -> list[str]:
    """Return what follows the tree in mksquashfs's arguments."""
    return [str(job.squashed(way)), "-no-progress", *_WAYS[way]]


def _umoci_unpack(job: Job) -> Commands:
    layout = job.at("layout")
    copy = ["skopeo", "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]
    unpack = ["umoci", "unpack", *([] if ROOT else ["--rootless"])]
    return {
        "skopeo copy": [*copy, f"docker://{job.name}", f"oci:{layout}:image"],
        "umoci unpack": [*unpack, "--image", f"{layout}:image", job.at("bundle")],
    }


def _umoci_squash(job: Job) -> Commands:
    tree = job.at("bundle/rootfs")
    return {way: ["mksquashfs", tree, *_squash(job, way)] for way in _WAYS}


def _podman(job: Job) -> list[str]:
    places = {"--root": "storage", "--runroot": "run/storage", "--tmpdir": "run/libpod"}
    options = [word for option, at in places.items() for word in (option, job.at(at))]
    return [*([] if ROOT else _TOLD), "podman", *options]


def _podman_unpack(job: Job) -> Commands:
    pull = ["pull", "--quiet", "--tls-verify=false", job.name]
    return {"podman pull": [*AS_ROOT, *_podman(job), *pull]}


def _podman_squash(job: Job) -> Commands:
    mount = shlex.join([*_podman(job), "image", "mount", job.name])
    script = f'tree=$({mount}); exec mksquashfs "$tree" "$@"'
    shell = [*AS_ROOT, "sh", "-ec", script, "sh"]
    return {way: [*shell, *_squash(job, way)] for way in _WAYS}


def _charliecloud_unpack(job: Job) -> Commands:
    # It knows no registry without TLS.  Its build cache would cost more than it saves here.
    pull = ["ch-image", "--tls-no-verify", "--no-cache", "pull", job.secure, "image"]
    return {"ch-image pull": pull}


def _charliecloud_squash(job: Job) -> Commands:
    convert = ["ch-convert", "-i", "ch-image", "-o", "squash", "image"]
    tree = job.at("charliecloud/img/image")
    return {
        "ch-convert": [*convert, str(job.squashed("ch-convert"))],
        _ZSTD: ["mksquashfs", tree, *_squash(job, _ZSTD)],
    }


def _shifter_unpack(job: Job) -> Commands:
    script = Path(__file__).with_name("shifters_way.py")
    command = ["/usr/bin/python3", str(script)]
    return {
        "download": [*command, "download", job.name, job.at("cache")],
        "extract": [*command, "extract", job.at("cache"), job.at("tree")],
    }


def _shifter_squash(job: Job) -> Commands:
    command = ["mksquashfs", job.at("tree"), str(job.squashed("mksquashfs"))]
    return {"mksquashfs": [*command, "-all-root", "-no-xattrs"]}


PEERS = {
    "umoci": Peer(unpack=_umoci_unpack, squash=_umoci_squash),
    "podman": Peer(unpack=_podman_unpack, squash=_podman_squash),
    "charliecloud": Peer(unpack=_charliecloud_unpack, squash=_charliecloud_squash),
    "shifter": Peer(unpack=_shifter_unpack, squash=_shifter_squash),
}
