"""A worker's log has one line an event, whatever happens and whoever wrote it."""

import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite import config, logs
from shifter_lite.reference import Reference
from tests.conftest import Runner
from tests.helpers import images
from tests.test_asked import asked
from tests.test_worker import small

HOSTILE = 'x\n2018-05-24T12:00:00.000Z INFO ready\r\x1b[2J\x7f\x85\u2028\udcff"\\ y'
values = st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none())


def line(form: logs.Form, event: str, **fields: object) -> str:
    record = logging.makeLogRecord(
        {
            "msg": "%s",
            "args": (event,),
            "levelname": "INFO",
            "created": 1527163200.25,
            "msecs": 250.0,
            "fields": fields,
        }
    )
    return logs._Formatter(form).format(record)


@given(event=st.text(), value=values)
@pytest.mark.parametrize("form", ["text", "json"])
def test_an_event_is_one_line_of_ascii(form: logs.Form, event: str, value: object) -> None:
    said = line(form, event, field=value)
    assert said.isascii()
    assert said.isprintable()


def test_json_has_all_fields_as_they_are() -> None:
    said = json.loads(line("json", "ready", request=HOSTILE, user=1000, seconds=1.23456, path=None))
    assert said == {
        "time": "2018-05-24T12:00:00.250Z",
        "level": "INFO",
        "event": "ready",
        "request": HOSTILE,
        "user": 1000,
        "seconds": pytest.approx(1.235, abs=0.001),
        "path": None,
    }


def test_text_is_for_people_and_quotes_what_could_be_taken_for_more() -> None:
    image = Reference.parse("debian:12")
    said = line("text", "not ready", image=image, user=7, seconds=1.23456, reason="it is = so")
    assert said == (
        "2018-05-24T12:00:00.250Z INFO not ready image=docker.io/library/debian:12 user=7 "
        'seconds=1.235 reason="it is = so"'
    )
    assert line("text", "x", reason="").endswith('reason=""')


SAYS = """
import logging, sys
from shifter_lite import logs
logs.set_up(sys.argv[1])
logs.info("begun", what=sys.argv[2])
logging.getLogger("urllib3").error("https://user:secret@example.org/?token=secret")
logging.getLogger().critical("secret")
try:
    raise ValueError("several\\nlines")
except ValueError as error:
    logs.error("a bug", error, user=1)
"""


@pytest.fixture(params=["text", "json"])
def said(request: pytest.FixtureRequest) -> tuple[str, list[str]]:
    """The form, and the lines that a program says in it."""
    command = [sys.executable, "-c", SAYS, request.param, HOSTILE.encode(errors="replace")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return request.param, done.stderr.splitlines()


def test_a_bug_is_one_line_too_and_libraries_say_nothing(said: tuple[str, list[str]]) -> None:
    form, lines = said
    assert len(lines) == 2
    assert "secret" not in "".join(lines)
    assert "ValueError: several" in lines[1]
    if form == "json":
        assert json.loads(lines[1])["event"] == "a bug"
        assert json.loads(lines[1])["traceback"].endswith("ValueError: several\nlines\n")


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([sys.executable, "-c", SAYS, "text", "x"], stderr=full, check=False)
    assert done.returncode == 0


def test_a_workers_events_have_what_they_are_about_in_fields(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "logged", "1", small())
    ready, failed = (asked(asker, f"{registry}/logged:{tag}") for tag in (1, 2))
    done = site("shifter-worker", "drain", "--log", "json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    # Who asked in the same second is served as chance has it.
    second, first = sorted(events, key=lambda each: str(each["event"]))
    about = {"user": asker.user.uid, "platform": config.read_site(asker.environment).platform}
    image_id = asker("shifterimg", "lookup", f"{registry}/logged:1").stdout.strip()
    expected = {"level": "INFO", "event": "ready", "request": ready, "id": image_id}
    assert first.items() >= {**about, **expected, "image": f"{registry}/logged:1"}.items()
    assert first["seconds"] > 0
    expected = {"level": "WARNING", "event": "failed", "request": failed}
    assert second.items() >= {**about, **expected, "image": f"{registry}/logged:2"}.items()
    assert second["code"] == 66
    assert f"{registry}/logged:2" in second["reason"]
