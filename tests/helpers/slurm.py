"""A small Slurm on the loopback: one controller, a few nodes, no accounting.

Each node is a slurmd with host name, processes and mounts of its own, as on a cluster; the
filesystem is shared.  A node's first process is killed with all that run on it: that is how a
node crashes.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE = 60.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_OWN = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child")
# Values that make a small cluster quick; what is not said is Slurm's own default.
_CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={owner}
SlurmdUser={owner}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
KillWait=2
SlurmdTimeout=10
MessageTimeout=2
PropagateResourceLimits=NONE
NodeName=n[1-{nodes}] NodeHostname=n[1-{nodes}] NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=8
PartitionName=tests Nodes=ALL Default=YES MaxTime=60 State=UP
"""
# The init of a node: the first process of its namespaces, so that all others die with it.
_NODE = """\
hostname "$1"
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$2/hosts" /etc/hosts
shift 2
"$@" &
# As any init, it takes the place of parents that have died.
while kill -0 $! 2>/dev/null; do wait $!; done
"""


@dataclass(slots=True)
class Cluster:
    """A Slurm that runs, whose files are in ``place``."""

    place: Path
    names: tuple[str, ...]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What makes Slurm's programs talk to this one."""
        return {"SLURM_CONF": str(self.place / "slurm.conf")}

    def __call__(self, *command: str) -> str:
        """Return what Slurm's program COMMAND prints."""
        environment = {"PATH": _PATH, "LC_ALL": "C", **self.environment}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Return the state of each job that has not ended, by its id."""
        words = self("squeue", "--noheader", "--format=%A %T").split()
        return dict(zip(words[::2], words[1::2], strict=True))

    def node_of(self, job: str) -> str:
        """Return the node on which JOB runs."""
        return self("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()

    def start_controller(self) -> None:
        """Start the controller."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.place / "slurm.conf"))

    def start_node(self, name: str) -> None:
        """Start the node NAME."""
        slurmd = ["slurmd", "-D", "-N", name, "-f", str(self.place / "slurm.conf")]
        self._start(name, *_OWN, "sh", "-c", _NODE, "node", name, str(self.place), *slurmd)

    def kill(self, name: str) -> None:
        """Kill the controller, or a node with all that runs on it, without any warning."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def crash(self, node: str) -> None:
        """Kill NODE with all that runs on it, and let Slurm notice, which else takes its time."""
        self.kill(node)
        self("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=crashed")

    def stop(self, name: str) -> None:
        """End the controller, or the node, as its administrator does."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def mend(self) -> None:
        """End all jobs, and start again what was killed or stopped."""
        if "slurmctld" not in self.processes:
            self.start_controller()
        for name in self.names:
            if name not in self.processes:
                self.start_node(name)
        for job in self.jobs():
            self("scancel", job)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until no job is there, and every node can have one."""
        deadline = time.monotonic() + _PATIENCE
        while not self._is_idle():
            ended = [name for name, each in self.processes.items() if each.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = [*self.place.glob("*.log"), *self.place.glob("*.out")]
                said = "\n".join(path.read_text(errors="replace")[-2000:] for path in logs)
                raise RuntimeError(f"Slurm does not come up; ended are {ended}:\n{said}")
            time.sleep(0.05)

    def _is_idle(self) -> bool:
        with suppress(RuntimeError):
            states = self("sinfo", "--noheader", "--Node", "--format=%t").split()
            return states == ["idle"] * len(self.names) and not self.jobs()
        return False

    def _start(self, name: str, *command: str) -> None:
        with (self.place / f"{name}.out").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", *command],
                env={"PATH": _PATH, "LC_ALL": "C", **self.environment},
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def missing() -> str:
    """Return what this machine lacks for a Slurm; empty if nothing."""
    if os.getuid() != 0:
        return "only root can run nodes for other users"
    if subprocess.run([*_OWN, "true"], check=False, capture_output=True).returncode != 0:
        return "nobody here may have host names, processes and mounts of his own"
    lacking = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not _found(name)]
    return f"there is no {', '.join(lacking)}" if lacking else ""


def _found(program: str) -> bool:
    return shutil.which(program, path=_PATH) is not None


@contextmanager
def running(nodes: int = 2) -> Iterator[Cluster]:
    """Run a cluster with NODES nodes, and end it."""
    place = Path(tempfile.mkdtemp(prefix="slurm-", dir="/var/tmp"))
    place.chmod(0o755)
    names = tuple(f"n{number}" for number in range(1, nodes + 1))
    cluster = Cluster(place, names)
    try:
        _configure(place, names)
        _start_munge(cluster)
        cluster.start_controller()
        for name in names:
            cluster.start_node(name)
        cluster.wait_until_idle()
        yield cluster
    finally:
        # Munge last: without it the others cannot end in order.
        for name in reversed(list(cluster.processes)):
            (cluster.stop if name in ("munged", "slurmctld") else cluster.kill)(name)
        shutil.rmtree(place)


def _configure(place: Path, names: tuple[str, ...]) -> None:
    port, *ports = _free_ports(1 + len(names))
    owner = pwd.getpwuid(os.getuid()).pw_name
    config = _CONFIG.format(
        place=place, port=port, owner=owner, nodes=len(names), first=ports[0], last=ports[-1]
    )
    (place / "slurm.conf").write_text(config)
    hosts = ["localhost", socket.gethostname(), *names]
    (place / "hosts").write_text(f"127.0.0.1 {' '.join(hosts)}\n")
    (place / "state").mkdir(mode=0o700)


def _free_ports(count: int) -> list[int]:
    """Return COUNT ports in a row that nobody uses now, and that the kernel gives to nobody."""
    for _ in range(100):
        first = random.randrange(10_000, 30_000)
        ports = list(range(first, first + count))
        if all(map(_is_free, ports)):
            return ports
    raise RuntimeError("no free ports in a row")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _start_munge(cluster: Cluster) -> None:
    place = cluster.place / "munge"
    place.mkdir()
    key = place / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
    options = [f"--{option}={place / name}" for option, name in files.items()]
    log = f"--log-file={cluster.place / 'munged.log'}"
    # It minds whom the directories above belong to; they are root's, or sticky.
    cluster._start("munged", "munged", "--foreground", "--force", *options, log)
    deadline = time.monotonic() + _PATIENCE
    while not (place / "socket").exists():
        if time.monotonic() > deadline:
            raise RuntimeError((cluster.place / "munged.out").read_text())
        time.sleep(0.02)
