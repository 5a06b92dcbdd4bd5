"""Where the store is, and how the site wants images made: read once, checked, frozen.

What every user's program needs, the place of the store, stands in Shifter's own
``udiRoot.conf`` as ``imagePath``, which the launcher reads too.  What only workers need
stands in ``/etc/shifter/shifter_lite.toml``.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from shifter_lite import places, platforms, registries, udiroot
from shifter_lite.errors import BadConfig, BadReference
from shifter_lite.layout import Layout
from shifter_lite.registries import Registries

_DIRECTORY = Path("/etc/shifter")
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "float": (int, float),
    "int": (int,),
    "str": (str,),
}
_PLAIN_PATH = re.compile(r"(/[^/\0-\x1f:]{1,255})+")
_DOTS = re.compile(r"/\.\.?(/|$)")
_HIGHEST_LEVEL = 19
# Of a number that may not be 0.  A heart beats every 2 seconds.
# The base layers of a site's images are wanted again and again, by all its users ...
_SHARED_CACHE_BYTES = 20 << 30
# ... and of one user's hardly, on a disk that is for something else: two or three usual images.
_OWN_CACHE_BYTES = 2 << 30
_LOWEST = {
    "executor.cpus": 1,
    "executor.jobs": 1,
    "executor.minutes": 1,
    "executor.poll_seconds": 0.1,
    "lease_seconds": 6,
    "limits.build_seconds": 1,
    "limits.memory_bytes": 1 << 27,
    "poll_seconds": 0.01,
    "queue.waiting_per_user": 1,
}
# What texts must match.
_WORDS = {
    "executor.kind": "local|slurm",
    "executor.partition": "[A-Za-z0-9._,-]*",
    "executor.account": "[A-Za-z0-9._-]*",
    "executor.memory": "([0-9]+[KMGT]?)?",
}
_OPTION = re.compile(r"[a-z][a-z0-9-]+(=[A-Za-z0-9._,:+@/=&|*()\[\]-]+)?")
# Options of sbatch on which it depends that jobs do what they should, and with whose rights.
_OUR_OPTIONS = frozenset(
    (
        *("array", "chdir", "cpus-per-task", "error", "export", "export-file", "get-user-env"),
        *("gid", "input", "job-name", "no-requeue", "nodes", "ntasks", "ntasks-per-node"),
        *("open-mode", "output", "parsable", "quiet", "requeue", "test-only", "uid", "usage"),
        *("help", "version", "wait", "wait-all-nodes", "wckey", "wrap"),
    )
)


# Of a field that no file may set.
_NO_KEY = {"key": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an image may have at most, so that a small download cannot fill a filesystem.

    Every field is a key of the table ``limits``.  ``layers`` and ``entries`` are numbers;
    ``bytes`` counts all layers uncompressed, and again all files; ``file_bytes`` is of one file.
    ``tree_bytes`` counts what is held in memory: names, links and attributes, and 512 bytes more
    for each entry.
    ``memory_bytes`` is what a build on the worker's own node may have, and ``build_seconds`` how
    long it may take.
    """

    layers: int = 500
    entries: int = 5_000_000
    bytes: int = 1 << 40
    file_bytes: int = 1 << 39
    tree_bytes: int = 3 << 30
    memory_bytes: int = 4 << 30
    build_seconds: int = 4 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an image keeps of what its layers say; it is part of the recipe.

    Every field is a key of the table ``policy``.  With ``readable``, everybody may read all and
    enter every directory (``a+rX``), as what only root may read nobody can read here.
    ``user_xattrs`` keeps the extended attributes ``user.*``.  ``baked_mount_points`` are
    directories that every image has, for a launch to mount something on.  ``first_files`` are
    paths in images that are read first at a start, in their order; they lie together.  Setuid
    and setgid bits, devices, owners and all other attributes are never kept.
    """

    readable: bool = True
    user_xattrs: bool = False
    baked_mount_points: tuple[str, ...] = ()
    first_files: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the policy's part of a recipe."""
        modes = "a+rX" if self.readable else "modes"
        xattrs = "userxattr" if self.user_xattrs else "noxattr"
        first = "\0".join(self.first_files).encode(errors="surrogateescape")
        order = (f"first={hashlib.sha256(first).hexdigest()[:12]}",) if self.first_files else ()
        words = (f"root-{modes}-nosuid-nodev-{xattrs}-1", *self.baked_mount_points, *order)
        return ":".join(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Whose turn it is, and how many may ask.

    Every field is a key of the table ``queue``.  Requests of ``admins``, login names or uids, go
    first.  At most ``running`` builds are under way at a time; of one user, on a store of many,
    at most ``running_per_user``; 0 is no limit.  Of one user's requests at most
    ``waiting_per_user`` may wait; more are refused.
    """

    admins: tuple[str, ...] = ()
    running: int = 0
    running_per_user: int = 4
    waiting_per_user: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Where images are built; every field is a key of the table ``executor``.

    ``kind`` is ``local``, on the worker's own node, of which a worker has at most ``builds`` at a
    time (0: one for each processor, at least 2 and at most 8), or ``slurm``, each as a batch job,
    of which it has at most ``jobs``.  On a store of many users one of these is always for others
    than the user who has all the rest.  ``partition``, ``account``, ``minutes``, ``cpus``,
    ``memory`` (like ``8G``) and ``extra``, further options of sbatch without their dashes, are
    what a job asks for; empty ones are for Slurm to choose.  Every ``poll_seconds`` Slurm is asked
    which jobs have ended; for ``patience_seconds`` a request
    waits for a Slurm that does not answer.
    """

    kind: str = "local"
    builds: int = 0
    jobs: int = 4
    partition: str = ""
    account: str = ""
    minutes: int = 60
    cpus: int = 4
    memory: str = ""
    extra: tuple[str, ...] = ()
    poll_seconds: float = 5.0
    patience_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """How this site wants things; every field is a key of ``shifter_lite.toml``.

    ``system`` is the name that ``shifterimg images`` prints, if udiRoot.conf is not to say it.
    ``platform`` is what compute nodes run, like ``linux/amd64``, or a list where they are of
    several architectures: the first is the default, and ``further_platforms``, which is no key,
    are the rest.  ``is_platform_given`` is none either: else it is this host's.
    ``state_dir`` is on the local disk of each service node.  ``cache_bytes`` is how large the
    cache of layers may grow; if it is negative, as it is unless it is set, that depends on the
    store: see ``cache_limit``.
    ``poll_seconds`` is how long a request made on another node waits at most.
    What was pulled less than ``pull_fresh_seconds`` ago is pulled again without its registry.
    A worker that has not shown for ``lease_seconds`` that it lives is taken for dead.
    ``compression_level`` is zstd's, 1 to 19.  ``queue``, ``limits`` and ``policy`` are tables,
    and ``registries`` is how each registry is asked.
    """

    system: str = ""
    platform: str
    state_dir: str = ""
    cache_bytes: int = -1
    poll_seconds: float = 2.0
    pull_fresh_seconds: float = 60.0
    lease_seconds: float = 60.0
    compression_level: int = 3
    queue: Queue = field(default_factory=Queue)
    executor: Executor = field(default_factory=Executor)
    limits: Limits = field(default_factory=Limits)
    policy: Policy = field(default_factory=Policy)
    registries: Registries = field(default_factory=Registries)
    further_platforms: tuple[str, ...] = field(default=(), metadata=_NO_KEY)
    is_platform_given: bool = field(default=False, metadata=_NO_KEY)

    def platforms_for(self, platform: str) -> tuple[str, ...]:
        """Return the platforms of nodes that names belong to, where PLATFORM is asked for.

        Nodes of an architecture that the site does not list may be there all the same.
        """
        known = (self.platform, *self.further_platforms)
        if platforms.architecture(platform) in map(platforms.architecture, known):
            return known
        return (*known, platforms.of_architecture(platforms.architecture(platform)))

    def cache_limit(self, *, shared: bool) -> int:
        """Return how large the cache of layers may grow, in a store that may be SHARED."""
        if self.cache_bytes >= 0:
            return self.cache_bytes
        return _SHARED_CACHE_BYTES if shared else _OWN_CACHE_BYTES


_TABLES: dict[str, type[Any]] = {
    "Executor": Executor,
    "Limits": Limits,
    "Policy": Policy,
    "Queue": Queue,
}


def store_layout(option: str | None, environ: Mapping[str, str], *, check: bool = False) -> Layout:
    """Return the store that OPTION, else ENVIRON, else the site's configuration names.

    Without any, it is the user's own: ``$XDG_DATA_HOME/shifter-lite``.  With CHECK a mistake in
    ``udiRoot.conf`` is an error even where the store is named otherwise, as in the launcher.
    """
    if named := _named_store(option, environ, check=check):
        return Layout(Path(named).absolute())
    return Layout(_home(environ, "XDG_DATA_HOME", ".local/share"))


def names_store(option: str | None, environ: Mapping[str, str]) -> bool:
    """Return whether OPTION, ENVIRON or the site's configuration names a store."""
    return bool(_named_store(option, environ, check=False))


def _named_store(option: str | None, environ: Mapping[str, str], *, check: bool) -> str:
    named = option or environ.get("SHIFTER_STORE", "")
    if named and not check:
        return named
    # Read even where it decides nothing: a mistake in it is to be told.
    configured = udiroot.read(environ, _DIRECTORY).image_path
    return named or configured


def system_name(environ: Mapping[str, str]) -> str:
    """Return what the site calls this machine: in its configuration, else by its host's name."""
    named = read_site(environ).system or udiroot.read(environ, _DIRECTORY).system
    return named or os.uname().nodename.partition(".")[0]


def state_home(environ: Mapping[str, str]) -> Path:
    """Return where our programs keep what is a user's own; raises BadConfig if he has no home."""
    return _home(environ, "XDG_STATE_HOME", ".local/state")


def _home(environ: Mapping[str, str], variable: str, default: str) -> Path:
    base = places.own(environ, variable, default)
    if base is None:
        raise BadConfig(
            "there is no store configured, and HOME is not set",
            hint="set SHIFTER_STORE, or use --store",
        )
    return base


def read_site(environ: Mapping[str, str]) -> Site:
    """Return the site's configuration; raises BadConfig, naming the key."""
    path = _DIRECTORY / "shifter_lite.toml"
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        given = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}") from error
    values = dict(given)
    if "state_dir" not in values:
        # Who only asks needs none; see ``cataloguing.catalog_path``.
        with suppress(BadConfig):
            values["state_dir"] = str(state_home(environ))
    try:
        first, *further = _platforms(values.pop("platform", _host_platform()))
        site: Site = _table(Site, {**values, "platform": first}, "")
        return replace(
            site, further_platforms=tuple(further), is_platform_given="platform" in given
        )
    except (BadConfig, BadReference) as error:
        raise BadConfig(f"{path}: {error}", hint=error.hint) from error


def _platforms(given: Any) -> list[str]:
    """Return the platforms that are GIVEN, one or a list, in normal form; raises BadConfig."""
    listed = given if isinstance(given, list) else [given]
    if not listed or not all(isinstance(each, str) for each in listed):
        raise BadConfig(
            f"platform = {given!r} names no platform", hint='write "linux/amd64", or a list of such'
        )
    found = [platforms.parse(each) for each in listed]
    if len({platforms.architecture(each) for each in found}) < len(found):
        raise BadConfig(
            f"platform = {given!r} has an architecture twice",
            hint="name the lowest variant that all nodes of an architecture can run",
        )
    return found


def _table(kind: type[Any], given: dict[str, Any], where: str) -> Any:
    """Return a KIND, one of the dataclasses above, of what is GIVEN under the name WHERE."""
    types = {each.name: str(each.type) for each in fields(kind) if each.metadata.get("key", True)}
    values = {}
    for key, value in given.items():
        if key not in types:
            hint = f"keys are: {', '.join(types)}"
            raise BadConfig(f"unknown key {where + key!r}", hint=hint)
        values[key] = _checked(types[key], value, where + key)
    return kind(**values)


def _checked(kind: str, value: Any, where: str) -> Any:
    if kind == "Registries":
        return registries.parse(value)
    if kind in _TABLES and isinstance(value, dict):
        return _table(_TABLES[kind], value, f"{where}.")
    if kind == "tuple[str, ...]" and isinstance(value, list):
        read = _MEMBERS.get(where, _plain_path)
        return tuple(read(member, where) for member in value)
    wanted = _TYPES.get(kind, ())
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "bool"):
        raise BadConfig(f"{where} = {value!r} is not of type {kind}")
    return _fitting(value, where)


def _fitting(value: Any, where: str) -> Any:
    """Return VALUE, which is of the right type, if WHERE may have it."""
    lowest = _LOWEST.get(where, 0)
    if isinstance(value, int | float) and not value >= lowest:
        raise BadConfig(f"{where} = {value!r} is too low", hint=f"at least {lowest}")
    if where in _WORDS and not re.fullmatch(_WORDS[where], value):
        raise BadConfig(f"{where} = {value!r} cannot be", hint=f"it matches {_WORDS[where]}")
    if where == "compression_level" and value not in range(1, _HIGHEST_LEVEL + 1):
        raise BadConfig(f"{where} = {value!r}", hint=f"zstd's levels are 1 to {_HIGHEST_LEVEL}")
    return value


def _login(name: Any, where: str) -> str:
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name):
        raise BadConfig(f"{where}: {name!r} is neither a login name nor a uid")
    return str(name)


def _option(text: Any, where: str) -> str:
    """Return TEXT, an option of sbatch, unless it is one that only we may choose."""
    if not isinstance(text, str) or not _OPTION.fullmatch(text):
        raise BadConfig(
            f"{where}: {text!r} is no option of sbatch",
            hint="write options without dashes: 'qos=low', 'exclusive'",
        )
    name = text.partition("=")[0]
    if name in _OUR_OPTIONS:
        raise BadConfig(f"{where}: {name!r} is not for the site to choose")
    return text


def _plain_path(path: Any, where: str) -> str:
    if not isinstance(path, str) or not _PLAIN_PATH.fullmatch(path) or _DOTS.search(path):
        raise BadConfig(f"{where}: {path!r} is not a plain absolute path")
    return path


_MEMBERS: dict[str, Callable[[Any, str], str]] = {
    "executor.extra": _option,
    "queue.admins": _login,
}


def _host_platform() -> str:
    machine = platform.machine()
    level = platforms.x86_level(_host_flags()) if machine == "x86_64" else 1
    return f"linux/{machine}/v{level}" if level > 1 else f"linux/{machine}"


def _host_flags() -> frozenset[str]:
    """Return what the first processor of this host can do, in the words of /proc/cpuinfo."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()
