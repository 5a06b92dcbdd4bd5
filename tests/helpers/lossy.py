"""A site on a filesystem that lies: users pull, cancel and launch until enough was lied about.

    storm = Storm(site, asker, launcher, registry, liar, scratch)
    result = storm.rage(LOST, 500)

Every answer is compared with what a program finds that is not lied to.  In the end the worker is
stopped, another one tidies up, and nothing may be left over.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from tests.conftest import Runner, installed
from tests.helpers import images, whole
from tests.helpers.lying import Liar, Lie

_BUSYBOX = Path("/bin/busybox")
_TROUBLE = (
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EREMOTEIO,
)
_CHANGES = "rename,unlink,link,mkdir,rmdir,create"
_ALL = f"{_CHANGES},open,readdir,stat,fstat,read,chmod,fsync,flock,utimens,truncate"
# What a user may be told: it is there, it is not known or nothing came of it, it was cancelled.
_READY, _AGAIN, _CANCELLED = 0, 75, 79
_CANCEL_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is lied about, how often by chance to whom, and what that is called."""

    called: str
    lies: Sequence[Lie]

    def below(self, store: Path, factor: float) -> list[Lie]:
        """Return the lies about STORE, by so many times the chance."""
        return [
            replace(lie, pattern=f"{store}*", chance=lie.chance * factor, most=-1)
            for lie in self.lies
        ]


LOST = Plan(called="lost replies", lies=[Lie(_CHANGES, "", chance=0.15)])
TRANSIENT = Plan(
    called="transient errors",
    lies=[
        *(Lie(_ALL, "", "before", number, 0.004) for number in _TROUBLE),
        *(Lie(_CHANGES, "", "after", number, 0.01) for number in _TROUBLE),
    ],
)


@dataclass(slots=True)
class Result:
    """What happened: lies by program and operation, answers by what was said, and what is wrong."""

    lies: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    worker_ends: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield what is worth saying."""
        for name, found in (("lies", self.lies), ("answers", self.answers)):
            yield f"{name}: {found.total()}"
            yield from (f"    {number:5} {what}" for what, number in found.most_common())
        yield f"workers that ended: {dict(self.worker_ends)}"
        yield f"wrong: {len(self.wrong)}"
        yield from (f"    {each}" for each in self.wrong[:20])
        yield f"left over: {len(self.left)}"
        yield from (f"    {each}" for each in self.left[:20])


class Storm:
    """Users, a worker and launches on the store of SITE."""

    def __init__(
        self, site: Runner, asker: Runner, launcher: Path, registry: str, liar: Path, scratch: Path
    ) -> None:
        """Use LAUNCHER, whose server can be traced; lie with the program LIAR."""
        self._site, self._asker, self._launcher = site, asker, launcher
        self._registry, self._program, self._scratch = registry, liar, scratch
        self._numbers = count()
        self._mutex, self._pushing = threading.Lock(), threading.Lock()
        self._result = Result()
        self._plan, self._most = LOST, 0
        self._lies_to_worker: Liar | None = None
        binary = images.file("bin/busybox", _BUSYBOX.read_bytes(), mode=0o755)
        self._base = images.layer([images.directory("bin"), binary])

    def rage(self, plan: Plan, lies: int, *, users: int = 3) -> Result:
        """Let so many LIES of PLAN be told to USERS at once, to a worker and to launches."""
        self._plan, self._most, self._result = plan, lies, Result()
        with self._worker(), ThreadPoolExecutor(users) as pool:
            for done in [pool.submit(self._use) for _ in range(users)]:
                done.result()
        self._settle()
        return self._result

    # --------------------------------------------------------------------------------- actors

    def _liar(self, name: str) -> Liar:
        place = Path(mkdtemp(prefix=f"{name}-", dir=self._scratch))
        place.chmod(0o755)
        return Liar(self._program, place, seed=next(self._numbers))

    def _count(self, who: str, liar: Liar) -> None:
        with self._mutex:
            self._result.lies.update(f"{who} {each.split()[0]}" for each in liar.lies())

    def _is_enough(self) -> bool:
        with self._mutex:
            told = self._result.lies.total()
        return (
            told + (len(self._lies_to_worker.lies()) if self._lies_to_worker else 0) >= self._most
        )

    @contextmanager
    def _worker(self) -> Iterator[None]:
        """Run a worker that is lied to, and another one whenever it ends, as systemd would."""
        stop = threading.Event()
        liar = self._liar("worker")
        liar.says(*self._plan.below(self._site.store, 0.3))
        self._lies_to_worker = liar

        def keep() -> None:
            while not stop.is_set():
                process = self._start(liar)
                while process.poll() is None and not stop.wait(0.1):
                    pass
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                self._result.worker_ends[process.wait(120)] += 1

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()
            self._lies_to_worker = None
            self._count("worker", liar)

    def _start(self, liar: Liar) -> subprocess.Popen[bytes]:
        runner = liar.to(self._site)
        with (self._scratch / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [*runner.user.prefix, installed("shifter-worker"), "run"],
                env=runner.environment,
                cwd=runner.home,
                stderr=log,
            )

    def _push(self, number: int) -> str:
        """Make an image that holds NUMBER; return its name."""
        layer = images.layer([images.file("number", b"%d" % number)])
        # The registry forgets one of two equal blobs that come at the same moment.
        with self._pushing:
            images.push(self._registry, "lossy", str(number), images.image([self._base, layer]))
        return f"{self._registry}/lossy:{number}"

    def _use(self) -> None:
        """Be a user until enough was lied about."""
        number = next(self._numbers)
        chance = random.Random(number)
        while not self._is_enough():
            number = next(self._numbers)
            name = self._push(number)
            liar = self._liar("client")
            liar.says(*self._plan.below(self._site.store, 1))
            what = chance.random()
            if what < _CANCEL_SHARE:
                self._cancel(liar, name)
            elif what < 2 * _CANCEL_SHARE:
                self._interrupt(liar, name, chance.uniform(0.2, 1.5))
            elif self._pull(liar, name):
                self._launch(name, number)
            self._count("client", liar)

    # -------------------------------------------------------------------------------- answers

    def _pull(self, liar: Liar, name: str) -> bool:
        """Pull NAME; return whether it is READY, and there."""
        done = liar.to(self._asker)("shifterimg", "pull", "--refresh", name, timeout=600)
        if match := re.search(r"shifterimg wait ([0-9]+-[0-9]+-[0-9a-f]+)", done.stderr):
            # It is not known: so asking again must tell, once the filesystem is well.
            self._answer("not known yet", done, good=True)
            done = self._asker("shifterimg", "wait", match[1], timeout=600)
            if done.returncode == 66:
                # It was not accepted.
                self._answer("was not accepted", done, good=not self._is_there(name))
                return False
        is_there = self._is_there(name)
        right = {_READY: is_there, _AGAIN: not is_there}.get(done.returncode, False)
        self._answer(f"pull {done.returncode}", done, good=right)
        return done.returncode == _READY and is_there

    def _cancel(self, liar: Liar, name: str) -> None:
        """Ask for NAME, and cancel that."""
        made = liar.to(self._asker)("shifterimg", "pull", "--no-wait", name)
        request = made.stdout.strip()
        self._answer(f"ask {made.returncode}", made, good=made.returncode in (0, _AGAIN))
        if made.returncode != 0:
            return
        done = liar.to(self._asker)("shifterimg", "cancel", request)
        ended = self._asker("shifterimg", "wait", request, timeout=600)
        is_there = self._is_there(name)
        # A worker may have been faster.
        right = {_CANCELLED: True, _READY: is_there, _AGAIN: not is_there}
        good = right.get(ended.returncode, False) and done.returncode in (0, _AGAIN, 66)
        said = f"cancel {done.returncode}, then {ended.returncode}"
        self._answer(said, done if done.returncode else ended, good=good)

    def _interrupt(self, liar: Liar, name: str, seconds: float) -> None:
        """Pull NAME, and let the user press ctrl-C after so many SECONDS."""
        runner = liar.to(self._asker)
        program = str(installed("shifterimg"))
        command = [*runner.user.prefix, program, "pull", "--refresh", name]
        with subprocess.Popen(
            command,
            env=runner.environment,
            cwd=runner.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=300)
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        # Before Python has come so far, it is the signal that ends it.
        right = {130: True, -2: True, _READY: self._is_there(name), _AGAIN: True}
        self._answer(f"interrupted {done.returncode}", done, good=right.get(done.returncode, False))

    def _is_there(self, name: str) -> bool:
        return self._asker("shifterimg", "lookup", name).returncode == 0

    def _launch(self, name: str, number: int) -> None:
        liar = self._liar("launch")
        liar.says(*self._plan.below(self._site.store, 3))
        command = [f"--image={name}", "/bin/busybox", "cat", "/number"]
        done = subprocess.run(
            [*liar.command, *self._asker.user.prefix, self._launcher, *command],
            env={**self._asker.environment, "SHIFTER_LINGER": "0"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        good = (done.returncode, done.stdout) == (0, str(number))
        self._answer(f"launch {done.returncode}", done, good=good)
        self._count("launch", liar)

    def _answer(self, what: str, done: subprocess.CompletedProcess[str], *, good: bool) -> None:
        with self._mutex:
            self._result.answers[what] += 1
            if not good:
                said = " ".join((done.stdout + done.stderr).split())
                self._result.wrong.append(f"{what}: {said[:400]}")

    # ------------------------------------------------------------------------------- recovery

    def _settle(self) -> None:
        """Let another worker, which is not lied to, tidy up; note what is left then."""
        store = self._site.store
        for command in (["shifter-worker", "drain"], ["shifter-admin", "verify"]):
            program, *arguments = command
            done = self._site(program, *arguments, timeout=600)
            if done.returncode != 0:
                self._result.wrong.append(f"{command}: {done.stderr[:400]}")
        whole.names(store)
        # Whoever pulls again goes on with a layer where an interrupted one ended.
        kept = re.compile(r"status/.*|cache/blobs/[0-9a-f]{2}/[0-9a-f]{64}\.part")
        left = {path for path in whole.left_over(store) if not kept.fullmatch(path)}
        self._result.left = sorted(left)
        for name in os.listdir(store / "status"):
            state = whole.told(store, name).state
            # Those of cancelled requests are swept: another of the user's programs may wait.
            if state != "CANCELLED":
                self._result.left.append(f"status/{name}: {state}")
