"""A configuration of a site's own for single programs, whatever the machine's /etc says."""

from __future__ import annotations

import os
from pathlib import Path

# The registries of tests are on this host, where a site's workers ask only what the site names.
ASKS_THIS_HOST = '[registries."*"]\nprivate = true\n'

# The machine's /etc is everybody's, with the configuration over it.
_ENTER = """\
mount -t overlay -o "ro,lowerdir=$1:/etc" overlay /etc
shift
exec "$@"
"""


def over(place: Path, config: str) -> tuple[str, ...]:
    """Return what makes a command see CONFIG as ``shifter_lite.toml``; its file is in PLACE.

    What is mounted later, the command sees as well.
    """
    (place / "shifter").mkdir(parents=True, exist_ok=True)
    (place / "shifter/shifter_lite.toml").write_text(config)
    unshare = ["unshare", "--mount", "--propagation=slave"]
    drop: tuple[str, ...] = ()
    if os.getuid() != 0:
        unshare += ["--user", "--map-current-user", "--keep-caps"]
        drop = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--")
    return (*unshare, "--", "sh", "-euc", _ENTER, "sh", str(place), *drop)
