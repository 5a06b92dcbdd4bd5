"""What Shifter's image manager does between a registry and mksquashfs, with the standard library.

    shifters_way.py download HOST:PORT/NAME:TAG CACHE
    shifters_way.py extract CACHE TREE

One process, one layer after the other, each archive read once for its members
and once for their content.  It is what dockerv2.py does, without what it gets wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

_ACCEPT = (
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
_CHUNK = 4 << 20
_MARK = ".wh."

_opener = build_opener(ProxyHandler({}))


def main() -> None:
    match sys.argv[1:]:
        case ["download", name, cache]:
            download(name, Path(cache))
        case ["extract", cache, tree]:
            extract(Path(cache), Path(tree))
        case _:
            sys.exit(__doc__)


def download(name: str, cache: Path) -> None:
    address, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    base = f"http://{address}/v2/{repository}"
    cache.mkdir()
    with _opener.open(Request(f"{base}/manifests/{tag}", headers={"Accept": _ACCEPT})) as answer:
        manifest = json.load(answer)
    for digest in (layer["digest"] for layer in manifest["layers"]):
        with _opener.open(f"{base}/blobs/{digest}") as answer, (cache / digest).open("wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
        done = subprocess.run(
            ["sha256sum", cache / digest], check=True, capture_output=True, text=True
        )
        if done.stdout.split()[0] != digest.removeprefix("sha256:"):
            sys.exit(f"{digest} is something else")
    (cache / "layers").write_text("\n".join(layer["digest"] for layer in manifest["layers"]))


def extract(cache: Path, tree: Path) -> None:
    tree.mkdir()
    with ExitStack() as stack:
        archives = [
            stack.enter_context(tarfile.open(cache / name))
            for name in (cache / "layers").read_text().split()
        ]
        for archive, members in zip(archives, merge(archives), strict=True):
            # All that is in there is wanted as it is, whatever this Python's default.
            archive.extraction_filter = lambda member, _: member
            archive.extractall(tree, members)
    subprocess.run(["chmod", "-R", "a+rX,u+w", tree], check=True)


def merge(archives: Iterable[tarfile.TarFile]) -> list[list[tarfile.TarInfo]]:
    """Return which members of each archive no archive above takes away."""
    merged: list[list[tarfile.TarInfo]] = []
    for archive in archives:
        members = [member for member in archive.getmembers() if is_wanted(member)]
        marks = {member.name for member in members if is_mark(member.name)}
        gone = {mark.replace(_MARK, "", 1) for mark in marks}
        replaced = {member.name for member in members if not member.isdir()}
        merged = [list(without(lower, gone, replaced)) for lower in merged]
        merged.append([member for member in members if member.name not in marks])
    return merged


def is_wanted(member: tarfile.TarInfo) -> bool:
    member.name, member.mode = member.name.removeprefix("./"), member.mode | 0o200
    escapes = member.name.startswith("/") or ".." in member.name.split("/")
    return not (escapes or member.isdev() or member.name.startswith("dev/"))


def is_mark(name: str) -> bool:
    return os.path.basename(name).startswith(_MARK)


def without(
    members: Iterable[tarfile.TarInfo], gone: set[str], replaced: set[str]
) -> Iterable[tarfile.TarInfo]:
    """Give those MEMBERS of a lower layer that no layer above takes away."""
    for member in members:
        if member.name in replaced:
            continue
        parts = member.name.split("/") if gone else []
        if not any("/".join(parts[:length]) in gone for length in range(1, len(parts) + 1)):
            yield member


if __name__ == "__main__":
    main()
