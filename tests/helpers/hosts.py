"""Several hosts on one machine: each has a name, a configuration, a home and a clock of its own.

What runs on a host reaches the store by the path that the host has to it, and its processes are
ours to signal: everything on the way to them is an ``exec``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tests.conftest import Runner
from tests.helpers import clocks
from tests.helpers import etc as configurations
from tests.helpers.ends import Ends

# The host's /etc is everybody's, with its own configuration over it.
_ENTER = """\
hostname "$1"
mount -t overlay -o "ro,lowerdir=$2:/etc" overlay /etc
shift 2
exec "$@"
"""


def on_host(runner: Runner, name: str, store: Path, *, config: str = "", clock: int = 0) -> Runner:
    """Return what runs the programs of RUNNER's user on the host NAME, whose way to it is STORE.

    CONFIG is the host's ``shifter_lite.toml``; its CLOCK is so many seconds ahead.
    """
    host = runner.home / name
    home, etc = host / "home", host / "etc"
    (etc / "shifter").mkdir(parents=True, exist_ok=True)
    (etc / "shifter/shifter_lite.toml").write_text(f"{config}\n{configurations.ASKS_THIS_HOST}")
    home.mkdir(exist_ok=True)
    os.chown(home, runner.user.uid, runner.user.gid)
    enter = ("unshare", "--uts", "--mount", "--", "sh", "-euc", _ENTER, "sh", name, str(etc))
    shifted = clocks.ahead(clock, host)
    user = replace(runner.user, prefix=(*enter, *runner.user.prefix, *shifted))
    return replace(runner, user=user, home=home, store=store)


def pair(runner: Runner, ends: Ends, config: str = "") -> tuple[Runner, Runner]:
    """Return what runs programs of RUNNER's user on two hosts, with the store at ENDS."""
    return (
        on_host(runner, "host-a", ends.a, config=config),
        on_host(runner, "host-b", ends.b, config=config),
    )
