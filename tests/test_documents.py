"""Documents say what the code does."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import click
import pytest

from shifter_lite import config, errors
from shifter_lite.cli import admin, shifterimg, worker
from shifter_lite.records import Entry
from shifter_lite.registries import Rules
from shifter_lite.request import STATES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "spool/README.md").read_text(encoding="utf-8")
PROGRAMS = {"shifterimg": shifterimg, "shifter-worker": worker, "shifter-admin": admin}


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/docs", "--check"], capture_output=True)
    assert done.stdout.decode() == ""
    assert done.returncode == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_is_in_the_readme_and_no_other(program: str) -> None:
    commands = set(PROGRAMS[program].program.commands)
    shown = set(re.findall(rf"`?{program} (?:--store \S+ +)?([a-z]+)", README))
    assert shown == commands


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_and_option_has_help(program: str) -> None:
    group = PROGRAMS[program].program
    for command in group.commands.values():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help
        done = subprocess.run(
            [Path(sys.executable).parent / program, command.name or "", "--help"],
            capture_output=True,
            check=True,
        )
        assert done.stdout.startswith(f"Usage: {program}".encode())


def as_given(site: config.Site) -> dict[str, object]:
    """Return all of SITE but its registries as a toml file says it."""
    fields = config.Site.__dataclass_fields__.values()
    plain = {each.name: getattr(site, each.name) for each in fields if not each.metadata}
    del plain["registries"]
    plain |= {key: asdict(plain[key]) for key in ("executor", "limits", "policy", "queue")}
    decoded: dict[str, object] = json.loads(json.dumps(plain))
    return decoded


def test_the_readmes_configuration_is_accepted_and_complete(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "shifter_lite.toml").write_text(shown, encoding="utf-8")
    monkeypatch.setattr(config, "_DIRECTORY", tmp_path)
    site = config.read_site({})
    given = tomllib.loads(shown)
    tables = given.pop("registries")
    assert as_given(site) == given
    assert set(site.registries.tables) == set(tables)
    assert {key for table in tables.values() for key in table} == set(Rules.__dataclass_fields__)


def test_the_contract_names_every_state_that_a_user_sees() -> None:
    assert all(state in CONTRACT for state in STATES)


def test_the_contract_names_every_field_of_an_entry() -> None:
    index = (ROOT / "spool/index.md").read_text(encoding="utf-8")
    fields = (set(Entry.__dataclass_fields__) - {"config"}) | {"v", "sum", "env", "entrypoint"}
    for field in fields | {"cmd", "workdir", "user"}:
        assert f"| `{field}` |" in index


def test_the_tree_of_errors_lists_every_error_and_its_code() -> None:
    listed = dict(re.findall(r"[├└]── (\w+) +(\d+)", errors.__doc__ or ""))
    known = {
        name: str(each.exit_code)
        for name, each in vars(errors).items()
        if isinstance(each, type)
        and issubclass(each, errors.ShifterError)
        and each not in (errors.ShifterError, errors.Reported)
    }
    assert listed == known


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("spool/*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
