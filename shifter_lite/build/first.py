"""Which files are read first when a container starts.  Pure.

They lie together, last of all data and next to the inodes, so that a first start reads one
part of the image and not all over it.  Nobody knows what will be run, but it will
need a loader and libc, most likely a shell, and perhaps an interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LIBRARIES = "c|m|dl|rt|pthread|tinfo|selinux|pcre2-8|gcc_s|stdc[+][+]|z|expat|mpi|ffi|crypt"
_PROGRAMS = "sh|bash|dash|busybox|env|ls|cat|true|date|id|hostname|mkdir|sleep"
_CONFIGURATION = "ld[.]so[.]cache|passwd|group|nsswitch[.]conf|os-release|profile|bash[.]bashrc"
_MODULES = (
    "__init__|_[a-z_]+|abc|aliases|ast|base64|bisect|bz2|codecs|contextlib|copy|copyreg|datetime|"
    "decimal|dis|enum|fnmatch|functools|genericpath|hashlib|inspect|io|keyword|latin_1|linecache|"
    "locale|lzma|numbers|opcode|operator|os|pathlib|pickle|platform|posixpath|random|re|reprlib|"
    "runpy|selectors|shutil|signal|site|sre_[a-z]+|stat|string|struct|subprocess|tempfile|"
    "textwrap|threading|token|tokenize|traceback|types|typing|utf_8|warnings|weakref|zipimport"
)
_PYTHON = r"usr/(?:local/)?lib/python3[.]\d+"
# In the order in which they are read; matched against the whole path.
# (?>…) never tries again what it has matched: names are as long as an image likes.
_RANKS = (
    r"(?:usr/)?lib(?:32|64|x32)?/(?:(?>[^/]+?-linux-)[^/]+/)?"
    rf"(?:ld-(?>[^/]+?[.]so)[^/]*|lib(?:{_LIBRARIES})(?:-2[.]\d+)?[.]so[^/]*)",
    rf"(?:usr/)?bin/(?:{_PROGRAMS})|etc/(?:{_CONFIGURATION})|usr/lib/os-release",
    r"usr/(?:local/)?bin/(?:python3(?:[.]\d+)?|perl)|"
    r"usr/(?:local/)?lib/(?:[^/]+/)?libpython3[^/]*|"
    rf"{_PYTHON}/(?:encodings/)?__pycache__/(?:{_MODULES})[.]cpython-\d+[.]pyc|"
    rf"{_PYTHON}/(?:collections|importlib|json|re)/__pycache__/[^/]+[.]pyc",
)
_PATTERN = re.compile("|".join(f"({rank})" for rank in _RANKS).encode())


class First:
    """Knows what is read first: what a TRACE says, in its order, then the usual."""

    def __init__(self, trace: Sequence[str] = ()) -> None:
        """Take TRACE, absolute paths in the image."""
        self._traced = {
            path.encode(errors="surrogateescape").lstrip(b"/"): rank
            for rank, path in reversed(list(enumerate(trace)))
        }

    def rank(self, name: bytes) -> int | None:
        """Return when the file NAME is read, the smaller the earlier; None if nobody knows."""
        path = name.removeprefix(b"./").lstrip(b"/")
        if self._traced and (traced := self._traced.get(path)) is not None:
            return traced
        match = _PATTERN.fullmatch(path)
        return None if match is None else len(self._traced) + (match.lastindex or 0)
