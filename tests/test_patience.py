"""How long a registry asks to be left alone."""

import time
from email.utils import formatdate
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build.wire.patience import Effort, Fault, Patience, retry_after
from shifter_lite.errors import RegistryBusy


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("86400", 86400),
        ("86401", None),
        ("9" * 5000, None),
        ("-1", None),
        ("1.5", None),
        ("\xb2", None),
        ("soon", None),
        ("", None),
        (formatdate(0, usegmt=True), None),
        ("Sun, 06 Nov 9994 08:49:37 GMT", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_a_pause_is_believed_if_it_can_be_meant(header: str, seconds: float | None) -> None:
    assert retry_after(header) == seconds


@pytest.mark.parametrize("gmt", [True, False])
def test_a_pause_may_be_a_date(gmt: bool) -> None:
    seconds = retry_after(formatdate(time.time() + 60, usegmt=gmt))
    assert seconds is not None
    assert 50 < seconds <= 60


@given(st.text(max_size=40) | st.text(alphabet="0123456789: JanMonGT,+-", max_size=40))
def test_any_text_is_a_pause_or_none(header: str) -> None:
    seconds = retry_after(header)
    assert seconds is None or 0 <= seconds <= 86400


def busy(wait: float | None = None) -> Fault:
    return Fault(RegistryBusy("busy"), again=True, wait=wait)


def test_attempts_end_and_pauses_grow() -> None:
    patience = Patience(attempts=4, first_pause=0.02)
    effort, started = Effort(patience, Event()), time.monotonic()
    for _ in range(3):
        effort.wait_after(busy())
    assert time.monotonic() - started > 0.1
    with pytest.raises(RegistryBusy):
        effort.wait_after(busy())


def test_all_attempts_together_have_their_time() -> None:
    effort = Effort(Patience(attempts=99, first_pause=0.05, total=0.2), Event())
    with pytest.raises(RegistryBusy):  # noqa: PT012  # somewhere in there
        for _ in range(99):
            effort.wait_after(busy())
    effort.renew()
    effort.wait_after(busy())


def test_what_does_not_pass_is_not_waited_for() -> None:
    effort = Effort(Patience(), Event())
    with pytest.raises(RegistryBusy):
        effort.wait_after(Fault(RegistryBusy("wrong"), again=False))


def test_who_gives_up_waits_no_more() -> None:
    aborted = Event()
    aborted.set()
    with pytest.raises(RegistryBusy):
        Effort(Patience(), aborted).wait_after(busy(20.0))
