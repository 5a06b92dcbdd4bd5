"""The examples for administrators do what they say."""

import configparser
import re
import shlex
import subprocess
from pathlib import Path

from tests.conftest import Runner, installed
from tests.helpers import images
from tests.helpers.processes import running
from tests.test_asked import asked
from tests.test_worker import small, spool

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
UNIT = (EXAMPLES / "shifter-worker.service").read_text(encoding="utf-8")
CRON = (EXAMPLES / "shifter-worker.cron").read_text(encoding="utf-8")
PROGRAM = "/opt/shifter_lite/bin/shifter-worker"


def parsed() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read_string(UNIT)
    return unit


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    # Whatever systemd's version, it can be read; this one says more.
    assert parsed()["Service"]["User"] == "shifter"
    path = tmp_path / "shifter-worker.service"
    path.write_text(UNIT.replace(PROGRAM, str(installed("shifter-worker"))))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, check=False)
    assert (done.stderr.decode(), done.returncode) == ("", 0)


def test_the_units_command_works_until_it_is_told_to_stop(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "unit", "1", small())
    program, *arguments = shlex.split(parsed()["Service"]["ExecStart"])
    assert program == PROGRAM
    with running(site, "shifter-worker", *arguments) as worker:
        assert asker("shifterimg", "pull", f"{registry}/unit:1").returncode == 0
        worker.terminate()
        _, log = worker.communicate(timeout=30)
    assert worker.returncode == int(parsed()["Service"]["SuccessExitStatus"])
    assert '"event": "ready"' in log


def test_the_crontabs_command_drains_at_any_overlap(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "cron", "1", small())
    (line,) = re.findall(r"^\*.*", CRON, re.MULTILINE)
    *when, user, command = line.split(maxsplit=6)
    assert when == ["*"] * 5
    assert user == "shifter"
    assert "%" not in command
    log = site.home / "worker.log"
    command = command.replace(PROGRAM, str(installed("shifter-worker")))
    command = command.replace("/var/log/shifter/worker.log", str(log))
    names = [asked(asker, f"{registry}/cron:{number % 2}") for number in range(6)]
    started = [
        subprocess.Popen(
            [*site.user.prefix, "/bin/sh", "-c", command], env=site.environment, cwd=site.home
        )
        for _ in range(3)
    ]
    assert [each.wait(timeout=60) for each in started] == [0, 0, 0]
    assert spool(site.store, "new") == spool(site.store, "work") == []
    assert len(spool(site.store, "done") + spool(site.store, "failed")) == 6
    told = log.read_text().splitlines()
    assert sorted(re.findall(r"request=(\S+)", "\n".join(told))) == sorted(names)
