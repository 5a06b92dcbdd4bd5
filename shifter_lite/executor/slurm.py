"""Give builds to Slurm, ask how they are, and take them back.

The only module that knows submitit, which writes the batch script, submits it, and runs our
function in the job.  It asks sacct how jobs are, and not every cluster has that; so we ask
squeue, for all jobs at once.  And we never load what a job has pickled.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shifter_lite import config
from shifter_lite.errors import BadConfig, ClusterBusy
from shifter_lite.executor import node
from shifter_lite.executor.order import Desk, Order

if TYPE_CHECKING:
    from submitit import SlurmExecutor

# What Slurm's programs, and so jobs, see of the worker's environment: no secret goes to Slurm that
# need not, and nothing but the site's configuration says how jobs are submitted (SBATCH_…).
_KEPT = frozenset(
    (
        *("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ"),
        *("SLURM_CONF", "SSL_CERT_DIR", "SSL_CERT_FILE"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    )
)
# In paths, Slurm replaces what follows a %, and reads a \\ as an order.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@:,=~-]+")
# What sbatch says if asking later may help; all else is for the administrator to put right.
_BUSY = re.compile(
    r"contact|timed out|temporar|zero bytes|connection|communication|munge|authenticat|credential"
    r"|job submit limit|try again|resource.*unavailable|unexpected message",
    re.IGNORECASE,
)
_LINE = re.compile(r"^([0-9]+) ([A-Z_]+)", re.MULTILINE)
# Slurm's programs give up by themselves, but not in every state of their controller.
_SUBMIT_SECONDS = 100
_ASK_SECONDS = 30.0
_CANCEL_SECONDS = 5.0
# States in which a job may still run, or is running: squeue(1).
_OPEN = frozenset(
    (
        *("CONFIGURING", "COMPLETING", "PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"),
        *("RESIZING", "RESV_DEL_HOLD", "RUNNING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT"),
        *("STOPPED", "SUSPENDED"),
    )
)


def check(root: Path) -> None:
    """Raise BadConfig unless jobs on the store at ROOT can be given to Slurm."""
    _submitit()
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise BadConfig(
                f"executor.kind is 'slurm', and there is no {program!r} on this host",
                hint="run the worker where jobs can be submitted",
            )
    for path in (str(root), sys.executable):
        if not _PLAIN_PATH.fullmatch(path):
            raise BadConfig(
                f"executor.kind is 'slurm', and Slurm would not take {path!r} as it is",
                hint="have the store and the programs at paths of letters, digits and -_./+@:,=~",
            )


def submit(how: config.Executor, desk: Desk, order: Order) -> str:
    """Give ORDER to Slurm as HOW says, with DESK for its files; return the job's id.

    Raises ClusterBusy, or BadConfig if Slurm refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError  # noqa: PLC0415

    try:
        job = _executor(how, desk).submit(node.run, str(desk.path), order)
    except (FailedJobError, FailedSubmissionError) as error:
        raise refusal(str(error)) from error
    return str(job.job_id)


def _submitit() -> type[SlurmExecutor]:
    try:
        # Only who gives builds to Slurm needs it.
        from submitit import SlurmExecutor  # noqa: PLC0415
    except ImportError as error:
        raise BadConfig(
            f"executor.kind is 'slurm', and submitit cannot be loaded: {error}",
            hint="install shifter-lite[slurm]",
        ) from error

    class Executor(SlurmExecutor):
        """Submits with an environment of its own."""

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            # By names alone: what stands on a command line, everybody on the host can read.
            options = (f"--unset={name}" for name in os.environ if name not in _KEPT)
            command: list[str] = super()._make_submission_command(submission_file_path)
            return ["env", *options, "--", "timeout", str(_SUBMIT_SECONDS), *command]

    return Executor


def _executor(how: config.Executor, desk: Desk) -> SlurmExecutor:
    executor = _submitit()(
        folder=desk.path,
        # No module is taken from the directory that happens to be the current one.
        python=f"{shlex.quote(sys.executable)} -P",
    )
    executor.update_parameters(**_parameters(how, desk))
    return executor


def _parameters(how: config.Executor, desk: Desk) -> dict[str, Any]:
    """Return submitit's names of sbatch's options.  Nothing of them is a user's."""
    named = {"partition": how.partition, "account": how.account, "mem": how.memory}
    return {
        "job_name": "shifter-worker",
        "time": how.minutes,
        "nodes": 1,
        "cpus_per_task": how.cpus,
        **{key: value for key, value in named.items() if value},
        # It would be submitit's own.
        "wckey": None,
        "use_srun": False,
        "stderr_to_stdout": True,
        "additional_parameters": {
            # The request is what is queued again: a job that Slurm ran twice would be one too many.
            "no-requeue": True,
            "chdir": str(desk.path),
            # All that env(1) has left of it.  With a list, Slurm runs a login shell on the node.
            "export": "ALL",
            **dict(_option(text) for text in how.extra),
        },
    }


def _option(text: str) -> tuple[str, str | bool]:
    name, equals, value = text.partition("=")
    return name, value if equals else True


def refusal(said: str) -> ClusterBusy | BadConfig:
    """Return what it means that sbatch has SAID this."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in said.splitlines()]
    reason = next((line for line in reversed(lines) if line.strip()), "")
    if not reason:
        return ClusterBusy("Slurm does not take jobs: sbatch hangs, or does not say why it fails")
    if _BUSY.search(said):
        return ClusterBusy(f"Slurm does not take jobs: {reason}", hint="ask again later")
    return BadConfig(
        f"Slurm refuses the job: {reason}",
        hint="tell the administrator of the store: [executor] in shifter_lite.toml",
    )


def states(user: int) -> dict[str, str]:
    """Return the state of each job of USER's that Slurm knows; raises ClusterBusy.

    An ended job stays known for a while: MinJobAge in slurm.conf(5).
    """
    options = ["--noheader", "--states=all", "--format=%A %T", f"--user={user}"]
    try:
        done = _run(["squeue", *options], _ASK_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ClusterBusy("Slurm does not say how jobs are: squeue hangs") from error
    if done.returncode != 0:
        raise ClusterBusy(f"Slurm does not say how jobs are: {done.stderr.strip()}")
    return {match[1]: match[2] for match in _LINE.finditer(done.stdout)}


def is_open(state: str) -> bool:
    """Return whether a job in STATE may still bring a result."""
    return state in _OPEN


def cancel(jobs: list[str]) -> str:
    """Tell Slurm to end JOBS; return what went wrong.  Those that have ended are left alone."""
    if not jobs:
        return ""
    try:
        done = _run(["scancel", "--quiet", *jobs], _CANCEL_SECONDS)
    except subprocess.TimeoutExpired:
        return "scancel hangs"
    except OSError as error:
        # As when there are too many processes: the job ends by itself.
        return f"scancel: {error.strerror}"
    return done.stderr.strip()


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={name: value for name, value in os.environ.items() if name in _KEPT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )
