"""Debian's docker-registry, on a free port of the loopback, over an empty directory."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {directory}/data}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0", secret: test}}
# Else it refuses manifests that name what it lacks.
validation: {{disabled: true}}
"""
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:([0-9]+)")
_PATIENCE = 30.0


@contextmanager
def serving() -> Iterator[str]:
    """Run a registry; yield its address, ``localhost:PORT``."""
    with TemporaryDirectory(prefix="registry-") as directory:
        config, log = Path(directory, "config.yml"), Path(directory, "log")
        config.write_text(_CONFIG.format(directory=directory))
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["docker-registry", "serve", config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            # The registry chose the port itself: nobody can have taken it in between.
            yield f"localhost:{_port(process, log)}"
        finally:
            process.terminate()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if match := _LISTENING.search(log.read_text()):
            return match[1]
        time.sleep(0.02)
    raise RuntimeError(f"docker-registry does not start:\n{log.read_text()}")
