"""Images by chance: few names, so that entries meet, and every kind of entry."""

from __future__ import annotations

import tarfile
from dataclasses import replace

from hypothesis import strategies as st

from tests.helpers.images import (
    Entry,
    device,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

# Some are rather directories than files; else most entries would be below a file.
_LEAVES, _BRANCHES = "abc", "de"
_PATHS = st.tuples(
    st.lists(st.sampled_from(_BRANCHES), max_size=2),
    st.sampled_from(_LEAVES + _LEAVES + _LEAVES + _BRANCHES),
).map(lambda parts: "/".join([*parts[0], parts[1]]))
_DIRECTORY_PATHS = st.lists(st.sampled_from(_BRANCHES), min_size=1, max_size=2).map("/".join)
_WRITTEN = st.tuples(st.sampled_from(("", "", "", "./", "/")), _PATHS).map("".join)
_TARGETS = st.one_of(
    _PATHS,
    _PATHS.map("/{}".format),
    _PATHS.map("../{}".format),
    st.sampled_from(("..", "../..", ".", "/", "d/..", "/../d", "nowhere/e")),
)
_DATA = st.integers(0, 99).map(lambda number: b"%d" % number * (number % 3))
_FILE_MODES = st.sampled_from((0o644, 0o755, 0o600, 0o4711, 0, 0o1777))
_DIRECTORY_MODES = st.sampled_from((0o755, 0o700, 0o1777, 0o2750, 0))
_TIMES = st.sampled_from((0, 1, 1_600_000_000, 1 << 31, (1 << 32) - 1))

# Files and directories more often than what they meet.
_ENTRIES = st.one_of(
    st.builds(file, _WRITTEN, _DATA, mode=_FILE_MODES, mtime=_TIMES),
    st.builds(file, _WRITTEN, _DATA, mode=_FILE_MODES, mtime=_TIMES),
    st.builds(directory, _DIRECTORY_PATHS, mode=_DIRECTORY_MODES, mtime=_TIMES),
    st.builds(directory, _WRITTEN, mode=_DIRECTORY_MODES, mtime=_TIMES),
    st.builds(symlink, _WRITTEN, _TARGETS, mtime=_TIMES),
    st.builds(hardlink, _WRITTEN, _PATHS),
    st.builds(fifo, _WRITTEN, mode=_FILE_MODES, mtime=_TIMES),
    st.builds(device, _WRITTEN, st.just(1), st.just(3)),
    st.builds(whiteout, _PATHS),
    st.builds(whiteout, _DIRECTORY_PATHS),
    st.builds(opaque, st.one_of(st.just(""), _DIRECTORY_PATHS)),
)


@st.composite
def images_by_chance(draw: st.DrawFn) -> list[list[Entry]]:
    """Return the layers of an image, in which most hard links have a target."""
    layers = draw(st.lists(st.lists(_ENTRIES, max_size=8), min_size=1, max_size=4))
    names: list[str | bytes] = []
    for layer in layers:
        for number, entry in enumerate(layer):
            if entry.type == tarfile.LNKTYPE and names and draw(st.integers(0, 9)):
                layer[number] = replace(entry, target=draw(st.sampled_from(names)))
            elif entry.type in (tarfile.REGTYPE, tarfile.SYMTYPE) and b".wh." not in _raw(entry):
                names.append(entry.name)
    return layers


def _raw(entry: Entry) -> bytes:
    return entry.name.encode() if isinstance(entry.name, str) else entry.name
