"""The merged tree is the one that umoci unpacks, of any image that umoci takes."""

import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import assume, given, settings

from shifter_lite.errors import BadImage
from tests.corpus.case import BAKED, Is, Tree
from tests.corpus.chance import images_by_chance
from tests.helpers import images, layouts, planned, trees
from tests.helpers.images import Entry


@settings(max_examples=150, deadline=None)
@given(images_by_chance())
def test_the_merge_is_what_umoci_unpacks(layers: list[list[Entry]]) -> None:
    assume(not _mixes_whiteouts_and_links(layers))
    if os.geteuid() != 0:
        # Where it may not make devices, it makes files.
        layers = [[each for each in layer if each.type != tarfile.CHRTYPE] for layer in layers]
    packed = [images.layer(layer, "none") for layer in layers]
    theirs = _unpacked(images.image(packed))
    try:
        ours = planned.tree(packed)
    except BadImage:
        assert theirs is None
        return
    # What we take and umoci refuses are whiteouts and links in an order that it cannot follow.
    if theirs is not None:
        assert _comparable(ours, ours) == _comparable(theirs, ours)


def _mixes_whiteouts_and_links(layers: list[list[Entry]]) -> bool:
    """Return whether a layer has whiteouts and entries whose parents are symbolic links.

    To us, whiteouts act before anything else does; to umoci, which reads once, some links
    are still there when entries come through them, and others are there when whiteouts do.
    """
    entries = [entry for layer in layers for entry in layer]
    # A hard link may be one to a symbolic link.
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE)
    linked = {_path(entry) for entry in entries if entry.type in kinds}
    return any(
        any(".wh." in _path(entry) for entry in layer)
        and any(_has_parent_in(linked, _path(entry)) for entry in layer)
        for layer in layers
    )


def _path(entry: Entry) -> str:
    return str(Path("/", os.fsdecode(entry.name)))


def _has_parent_in(linked: set[str], path: str) -> bool:
    return any(str(parent) in linked for parent in Path(path).parents)


def _unpacked(image: images.Image) -> Tree | None:
    """Return the tree that umoci unpacks, or None if it refuses."""
    with TemporaryDirectory(prefix="umoci-") as scratch:
        layouts.write(Path(scratch, "oci"), image, "x")
        rootless = [] if os.geteuid() == 0 else ["--rootless"]
        command = ["umoci", "unpack", *rootless, "--image", f"{scratch}/oci:x", f"{scratch}/out"]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0:
            return None
        # Our policy does so as well; and else there would be nothing to see, but for root.
        subprocess.run(["chmod", "-R", "a+rX", f"{scratch}/out"], check=True)
        try:
            return trees.of_directory(Path(scratch, "out/rootfs"))
        finally:
            trees.remove(Path(scratch, "out"))


def _comparable(tree: Tree, ours: Tree) -> Tree:
    """Return TREE after our policy, without what umoci does not keep.

    It gives directories that no entry is about a time of now and, if they are new, the mode of
    what was there before; and others the time of the last change in them.
    """
    found = {path: _after_policy(what) for path, what in tree.items() if path not in BAKED}
    return {
        path: replace(what, mtime=0, mode=0 if _is_implied(path, ours) else what.mode)
        if what.kind == "directory"
        else what
        for path, what in found.items()
        if what.kind in ("file", "directory", "symlink", "fifo")
    }


def _is_implied(path: bytes, ours: Tree) -> bool:
    return path in ours and ours[path].mtime == 0


def _after_policy(what: Is) -> Is:
    mode = what.mode & 0o1777 | 0o444
    if what.kind == "directory" or mode & 0o111:
        mode |= 0o111
    return replace(what, mode=0o777 if what.kind == "symlink" else mode)
