"""Container Device Interface: what a vendor says that a container needs, as lines of udiRoot.conf.

See SPEC.md of the container-device-interface, versions 0.3.0 to 1.1.0.  A specification edits
a container's OCI description; here the same is said with what a module can do:

    mounts                        module_NAME_siteFs
    env                           module_NAME_siteEnv
    hook update-ldcache           module_NAME_siteEnvPrepend, with LD_LIBRARY_PATH; and, as no
                                  ldconfig is run, the links that it would make, as mounts
    hook create-symlinks          mounts of what the links lead to
    device nodes below /dev       nothing: a container has the host's /dev

All else becomes a comment that says what is not done.  What cannot be written in a line is an
error: a line that says something else is never written.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from shifter_lite.errors import BadConfig
from shifter_lite.fields import Node, checked_path

_VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_KIND = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9.-]{0,252})/[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
)
_NAME = re.compile(r"(?!(?i:none)$)[A-Za-z0-9][A-Za-z0-9-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ALL = "all"
# Where the launcher lets nobody mount anything: there, and below the last ones.
_CLOSED = ("/", "/etc", "/opt", "/var")
_CLOSED_BELOW = ("/proc", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf")
_LOCAL = ("ro", "rw", "bind", "rbind", "private", "rprivate", "nosuid", "nodev")
_HINT = "JSON is read, not YAML: nvidia-ctk cdi generate --format=json"

Links = Callable[[str], Sequence[str]]


class Mount(NamedTuple):
    """A file or directory of the host, and where the container has it."""

    host: str
    container: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        """Return it as siteFs has it."""
        return ":".join((self.host, self.container, *self.flags))


_SPEC = "cdiVersion kind annotations devices containerEdits"
_DEVICE = "name annotations containerEdits"
_EDITS = "env deviceNodes netDevices mounts hooks intelRdt additionalGids"


def module(data: bytes, source: str, links: Links, *, name: str = "", device: str = _ALL) -> str:
    """Return the lines of udiRoot.conf that do what DATA, a specification in SOURCE, says.

    NAME is the module's, else the vendor's; DEVICE is one of its devices, or all of them.
    LINKS returns the symbolic links beside a file of the host that lead to it, or raises
    FileNotFoundError.  Raises BadConfig.
    """
    spec = Node(_decode(data, source), source, _SPEC)
    if spec.text("cdiVersion") not in _VERSIONS:
        raise BadConfig(
            f"{source}: the version {spec.text('cdiVersion')!r} of the Container Device Interface "
            "is not known",
            hint=f"known are {', '.join(_VERSIONS)}",
        )
    kind = _KIND.fullmatch(spec.text("kind"))
    if kind is None:
        raise BadConfig(f"{source}.kind: not a kind: {spec.text('kind')!r}")
    name = name or kind[1].partition(".")[0]
    if not _NAME.fullmatch(name):
        raise BadConfig(
            f"not a module's name: {name!r}",
            hint="letters, digits and '-', since a '_' would end it in udiRoot.conf: use --name",
        )
    made = _Module(links)
    # What is said for all devices comes first, as for other runtimes.
    for edits in (spec.node("containerEdits", _EDITS), *_devices(spec, device)):
        made.add(edits)
    return made.lines(name, f"{kind[0]}, device {device!r}, of {source}")


def _decode(data: bytes, source: str) -> object:
    try:
        decoded: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{source}: not JSON: {error}", hint=_HINT) from error
    return decoded


def _devices(spec: Node, wanted: str) -> list[Node]:
    """Return the edits of the device WANTED of SPEC, or of all if none has that name."""
    found = {
        each.text("name"): each.node("containerEdits", _EDITS)
        for each in spec.nodes("devices", _DEVICE)
    }
    if wanted in found:
        return [found[wanted]]
    if wanted != _ALL or not found:
        raise BadConfig(
            f"{spec.where}: there is no device {wanted!r}",
            hint=f"there are: {', '.join(found) or 'none at all'}",
        )
    return list(found.values())


class _Module:
    """What edits have come to; each thing once, in the order in which it was said."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._mounts: dict[Mount, None] = {}
        self._env: dict[str, None] = {}
        self._folders: dict[str, None] = {}
        self._wanted_links: dict[tuple[str, str], None] = {}
        self._not_done: dict[str, None] = {}

    def add(self, edits: Node) -> None:
        """Take EDITS of a container; raises BadConfig."""
        for each in edits.nodes("mounts", "hostPath containerPath options type"):
            self._add_mount(each)
        for text in edits.texts("env"):
            self._add_env(text, edits.where)
        for each in edits.nodes(
            "deviceNodes", "path hostPath type major minor fileMode permissions uid gid"
        ):
            self._add_device(each.path("path"), each.path("hostPath", each.text("path")))
        for each in edits.nodes("hooks", "hookName path args env timeout"):
            self._add_hook(each)
        for name in ("additionalGids", "intelRdt", "netDevices"):
            if edits.has(name):
                self._give_up(f"{name}: users have the groups and resources that the node gives")

    def _add_mount(self, mount: Node) -> None:
        options = mount.texts("options")
        host, container = mount.path("hostPath"), mount.path("containerPath")
        if mount.text("type", "") not in ("", "none", "bind"):
            self._give_up(f"mount of type {mount.text('type')} on {container}")
            return
        if host == "/" or _is_closed(container):
            self._give_up(f"mount of {host} on {container}: the launcher does not allow it")
            return
        flags = ["ro"] if "ro" in options else []
        flags += ["rec"] if "rbind" in options else []
        flags += ["slave"] if {"slave", "rslave"} & set(options) else []
        self._mounts[Mount(host, container, tuple(flags))] = None
        for option in options:
            if option not in (*_LOCAL, "slave", "rslave"):
                self._give_up(f"option {option} of the mount on {container}")

    def _add_env(self, text: str, where: str) -> None:
        name, equals, value = text.partition("=")
        if not equals or not _VARIABLE.fullmatch(name):
            raise BadConfig(f"{where}.env: not a variable: {text!r}")
        if not value.isprintable() or " " in value or value.endswith("\\"):
            self._give_up(f"{name}: its value has what udiRoot.conf cannot hold: {value!r}")
        else:
            self._env[text] = None

    def _add_device(self, path: str, host: str) -> None:
        if not path.startswith("/dev/"):
            self._give_up(f"device node {path}: only those below /dev are there")
        elif path != host:
            self._give_up(f"device node {path}: it must have this name on the host, not {host}")

    def _add_hook(self, hook: Node) -> None:
        args = hook.texts("args")
        shown = " ".join([hook.path("path"), *args[1:]])
        words = [word for word in args[1:] if word != "hook"]
        options = list(_options(words[1:]))
        match words[:1]:
            case ["update-ldcache"]:
                for value in (value for option, value in options if option == "folder"):
                    self._folders[checked_path(value, f"{hook.where}.args")] = None
            case ["create-symlinks"]:
                for value in (value for option, value in options if option == "link"):
                    self._add_link(value, hook.where)
            case ["enable-cuda-compat"]:
                self._give_up(
                    f"hook {shown}: for an image whose CUDA is newer than the driver, users give "
                    "-e LD_LIBRARY_PATH=/usr/local/cuda/compat"
                )
            case _:
                self._give_up(f"hook {hook.text('hookName', '')}: {shown}")

    def _add_link(self, text: str, where: str) -> None:
        target, separator, link = text.partition("::")
        if not separator:
            raise BadConfig(f"{where}.args: not a link: {text!r}")
        link = checked_path(link, f"{where}.args")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(link), target))
        self._wanted_links[checked_path(target, f"{where}.args"), link] = None

    def _give_up(self, what: str) -> None:
        self._not_done[what] = None

    def _aliases(self) -> Iterator[Mount]:
        """Yield mounts for the names under which programs look for libraries.

        They are links: those that ldconfig(8) has made on the host, and those that are asked for.
        """
        at = {mount.container: mount for mount in self._mounts}
        for mount, there in self._names():
            if there not in at:
                at[there] = mount._replace(container=there)
                yield at[there]
        for target, link in self._wanted_links:
            if target not in at:
                self._give_up(f"link {link} to {target}")
            elif link not in at:
                at[link] = at[target]._replace(container=link)
                yield at[link]

    def _names(self) -> Iterator[tuple[Mount, str]]:
        """Yield libraries with the other names that they have on the host."""
        absent = 0
        for mount in self._mounts:
            folder, _, base = mount.container.rpartition("/")
            if folder in self._folders and ".so" in base:
                try:
                    links = self._links(mount.host)
                except FileNotFoundError:
                    absent += 1
                    continue
                for link in links:
                    yield mount, checked_path(f"{folder}/{posixpath.basename(link)}", repr(link))
        if absent:
            self._give_up(
                f"names like libcuda.so.1 for {absent} libraries that are not on this host: "
                "do this where the driver is installed"
            )

    def lines(self, name: str, what: str) -> str:
        """Return the module NAME, made of WHAT."""
        mounts = [*self._mounts, *self._aliases()]
        lines = [f"# {_comment(what)}"]
        if mounts:
            lines.append(f"module_{name}_siteFs={';'.join(map(str, mounts))}")
        if self._env:
            lines.append(f"module_{name}_siteEnv={' '.join(self._env)}")
        if self._folders:
            lines.append(f"module_{name}_siteEnvPrepend=LD_LIBRARY_PATH={':'.join(self._folders)}")
        lines += [f"# not done: {_comment(each)}" for each in self._not_done]
        return "\n".join(lines)


def _is_closed(path: str) -> bool:
    return path in _CLOSED or any(f"{path}/".startswith(f"{each}/") for each in _CLOSED_BELOW)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of WORDS with their values: --name VALUE or --name=VALUE."""
    at = 0
    while at < len(words):
        name, equals, value = words[at].lstrip("-").partition("=")
        if not equals and at + 1 < len(words) and not words[at + 1].startswith("-"):
            at += 1
            value = words[at]
        yield name, value
        at += 1


def _comment(text: str) -> str:
    """Return TEXT as a comment can hold it: on one line that does not go on."""
    safe = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return f"{safe}." if safe.endswith("\\") else safe
