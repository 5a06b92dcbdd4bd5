"""Lie to programs about what the filesystem said, with helpers/liar.c.

liar.says(Lie("rename", "*/new/*"))              done, and said to be lost
liar.says(Lie("open,readdir", "*/index*", "before", errno.EIO, most=3))
liar.to(runner)("shifterimg", "pull", NAME)      the same runner, lied to
liar.lies()                                      what was lied about
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.conftest import Runner

# What a server answers if what is asked was done before: ENOENT or EEXIST.
LOST = 0


@dataclass(frozen=True, slots=True)
class Lie:
    """Of OPERATIONS on paths that match PATTERN, so many at MOST are lied about, each by CHANCE."""

    operations: str
    pattern: str
    when: Literal["before", "after"] = "after"
    error: int = LOST
    chance: float = 1.0
    most: int = 1

    def __str__(self) -> str:
        error = self.error or "lost"
        return f"{self.operations} {self.pattern} {self.when} {error} {self.chance} {self.most}\n"


class Liar:
    """Lies to what is run with it."""

    def __init__(self, program: Path, scratch: Path, seed: int = 1) -> None:
        """Use PROGRAM, and keep rules and log in the directory SCRATCH."""
        self._rules, self._log = scratch / "lies.rules", scratch / "lies.log"
        self._log.write_text("")
        files = ("-r", str(self._rules), "-l", str(self._log))
        self.command: tuple[str, ...] = (str(program), "-s", str(seed), *files)
        self.says()

    def says(self, *lies: Lie) -> None:
        """Lie so from now on, also to what runs already."""
        whole = self._rules.with_suffix(".new")
        whole.write_text("".join(map(str, lies)))
        whole.rename(self._rules)

    def to(self, runner: Runner) -> Runner:
        """Return a runner that lies to the programs it runs."""
        user = replace(runner.user, prefix=(*self.command, *runner.user.prefix))
        return replace(runner, user=user)

    def lies(self) -> list[str]:
        """Return what was lied about: operations with their paths."""
        lines = self._log.read_text(errors="surrogateescape").splitlines()
        return [" ".join(line.split("\t")[1:]).rstrip() for line in lines]
