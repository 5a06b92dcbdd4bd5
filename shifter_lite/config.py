"""Where the store is, and how the site wants images made: read once, checked, frozen.

What every user's program needs, the place of the store, stands in Shifter's own
``/etc/shifter/udiRoot.conf`` as ``imagePath``, which the launcher reads too.  What
only workers need stands in ``/etc/shifter/shifter_lite.toml``.
"""

from __future__ import annotations

import os
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from shifter_lite import platforms, registries
from shifter_lite.errors import BadConfig, BadReference
from shifter_lite.layout import Layout
from shifter_lite.registries import Registries

_DIRECTORY = Path("/etc/shifter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """How this site wants things; every field is a key of ``shifter_lite.toml``.

    ``system`` is the name that ``shifterimg images`` prints.  ``platform`` is what
    compute nodes run, like ``linux/amd64``.  ``state_dir`` is on the local disk of
    each service node.  ``cache_bytes`` is how large the cache of layers may grow.
    ``poll_seconds`` is how long a request made on another node waits at most.
    ``registries`` is how each registry is asked.
    """

    system: str
    platform: str
    state_dir: str
    cache_bytes: int = 20 << 30
    poll_seconds: float = 2.0
    registries: Registries = field(default_factory=Registries)


def store_layout(option: str | None, environ: Mapping[str, str]) -> Layout:
    """Return the store that OPTION, else ENVIRON, else the site's configuration names.

    Without any, it is the user's own: ``$XDG_DATA_HOME/shifter-lite``.
    """
    named = option or environ.get("SHIFTER_STORE") or _image_path(_DIRECTORY / "udiRoot.conf")
    if named:
        return Layout(Path(named).absolute())
    return Layout(_home(environ, "XDG_DATA_HOME", ".local/share"))


def _image_path(path: Path) -> str:
    """Return ``imagePath`` of the udiRoot.conf at PATH, or nothing.

    Lines are ``key=value``; ``#`` begins a comment in the first column only, and a
    backslash at the end of a line continues it.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""
    found = ""
    for line in text.replace("\\\n", " ").split("\n"):
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#") and key.strip() == "imagePath":
            found = value.strip()
    return found


def _home(environ: Mapping[str, str], variable: str, default: str) -> Path:
    base = environ.get(variable, "")
    # The specification of these variables says that relative ones are void.
    if os.path.isabs(base):
        return Path(base) / "shifter-lite"
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        raise BadConfig(
            "there is no store configured, and HOME is not set",
            hint="set SHIFTER_STORE, or use --store",
        )
    return Path(home) / default / "shifter-lite"


def read_site(environ: Mapping[str, str]) -> Site:
    """Return the site's configuration; raises BadConfig, naming the key."""
    path = _DIRECTORY / "shifter_lite.toml"
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        given = {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error}") from error
    values: dict[str, Any] = {
        "system": os.uname().nodename.partition(".")[0],
        "platform": _host_platform(),
        **given,
    }
    if "state_dir" not in values:
        values["state_dir"] = str(_home(environ, "XDG_STATE_HOME", ".local/state"))
    try:
        return Site(**{key: _checked(key, value) for key, value in values.items()})
    except (BadConfig, BadReference) as error:
        raise BadConfig(f"{path}: {error}", hint=error.hint) from error


def _checked(key: str, value: Any) -> Any:
    types = {entry.name: str(entry.type) for entry in fields(Site)}
    if key not in types:
        raise BadConfig(f"unknown key {key!r}", hint=f"keys are: {', '.join(types)}")
    if key == "registries":
        return registries.parse(value)
    wanted = {"str": (str,), "int": (int,), "float": (int, float)}[types[key]]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise BadConfig(f"{key} = {value!r} is not of type {types[key]}")
    return platforms.parse(str(value)) if key == "platform" else value


def _host_platform() -> str:
    return f"linux/{platform.machine()}"
