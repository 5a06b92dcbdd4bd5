"""Build hook: compile the launcher, and put it beside the Python programs in the wheel."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Launcher(BuildHookInterface):
    """Makes ``shifter``, and says that the wheel is for this platform only."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        output = Path(self.directory) / "launcher"
        command = ["make", "-C", str(Path(self.root) / "runtime"), f"OUT={output.absolute()}"]
        subprocess.run(command, check=True)
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
        build_data["shared_scripts"][str(output / "shifter")] = "shifter"
