"""Run our programs many times, without starting Python each time: each is a fork of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.users import User

# Who runs it may be unable to read where the tests lie.
_SERVER = """
import json, os, sys
from shifter_lite import worker
from shifter_lite.catalog import images
from shifter_lite.cli import admin, shifterimg, worker as cli_worker

PROGRAMS = {"shifter-worker": cli_worker, "shifter-admin": admin, "shifterimg": shifterimg}

def become(order, error):
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    os.dup2(error, 2)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    sys.argv = order["command"]
    PROGRAMS[sys.argv[0]].main()

def serve(order):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        become(order, writing)
    os.close(writing)
    with open(reading, errors="replace") as said:
        text = said.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps({"status": status, "said": text}), flush=True)

while line := sys.stdin.readline():
    serve(json.loads(line))
"""


@dataclass(frozen=True, slots=True)
class Programs:
    """What runs our programs, as one user."""

    server: subprocess.Popen[str]

    def __call__(
        self, environment: Mapping[str, str], directory: Path, *command: str
    ) -> subprocess.CompletedProcess[str]:
        """Run COMMAND, one of our programs, to its end, with ENVIRONMENT in DIRECTORY."""
        order = {"environment": dict(environment), "directory": str(directory), "command": command}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        ended = json.loads(self.server.stdout.readline())
        return subprocess.CompletedProcess(command, ended["status"], "", ended["said"])


@contextmanager
def programs(user: User) -> Iterator[Programs]:
    """Yield what runs our programs as USER."""
    command = [*user.prefix, sys.executable, "-c", _SERVER]
    server = subprocess.Popen(
        command, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Programs(server)
    finally:
        server.communicate()
