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
http: {{addr: "127.0.0.1:0", secret: test{tls}}}
# Else it refuses manifests that name what it lacks.
validation: {{disabled: true}}
"""
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:([0-9]+)")
_PATIENCE = 30.0


@contextmanager
def serving() -> Iterator[str]:
    """Run a registry; yield its address, ``localhost:PORT``."""
    with (
        TemporaryDirectory(prefix="registry-") as directory,
        _running(Path(directory), "plain") as address,
    ):
        yield address


@contextmanager
def serving_twice() -> Iterator[tuple[str, str]]:
    """Run two registries that serve the same; yield their addresses, the second one's with TLS."""
    with TemporaryDirectory(prefix="registry-") as directory:
        place = Path(directory)
        certificate = f", tls: {{certificate: {place}/certificate, key: {place}/key}}"
        _certify(place)
        with _running(place, "plain") as plain, _running(place, "tls", certificate) as tls:
            yield plain, tls


def _certify(place: Path) -> None:
    """Make a key and a certificate that nobody trusts."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", str(place / "key"), "-out", str(place / "certificate")]
    subprocess.run([*command, *files], check=True, capture_output=True)


@contextmanager
def _running(place: Path, name: str, tls: str = "") -> Iterator[str]:
    """Run one over PLACE/data, with files called NAME; yield its address."""
    config, log = place / f"{name}.yml", place / f"{name}.log"
    config.write_text(_CONFIG.format(directory=place, tls=tls))
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
