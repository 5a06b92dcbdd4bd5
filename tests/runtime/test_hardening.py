"""The launcher as a file: what a program that reads what others wrote should be."""

from __future__ import annotations

import re
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runtime.conftest import RUNTIME, Launcher, make

PROGRAMS = ("shifter", "setupRoot", "unsetupRoot")


def elf(path: Path, *options: str) -> str:
    command = ["readelf", "--wide", *options, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_needs_no_library_and_lies_anywhere(built: Path, program: str) -> None:
    assert re.search(r"Type: +DYN", elf(built / program, "--file-header"))
    assert "INTERP" not in elf(built / program, "--segments")
    dynamic = elf(built / program, "--dynamic")
    assert "NEEDED" not in dynamic
    assert "PIE" in dynamic


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_nothing_to_write_and_execute(built: Path, program: str) -> None:
    segments = elf(built / program, "--segments")
    assert re.search(r"GNU_STACK .* RW +0x", segments)
    assert "RWE" not in segments
    assert "GNU_RELRO" in segments
    assert "NOW" in elf(built / program, "--dynamic")
    assert "__stack_chk_fail" in elf(built / program, "--symbols")


def test_the_compilers_own_libc_will_do(base: Path, shifter: Launcher) -> None:
    own = make(base / "own-libc", base, "all", "MUSL=", "CFLAGS=-O0")
    assert "NEEDED" not in elf(own / "shifter", "--dynamic")
    assert "from the image" in replace(shifter, program=own / "shifter").inside("cat /etc/motd")


CALLS = {
    "memcpy": "memcpy(to, text, length)",
    "memmove": "memmove(to, text, length)",
    "memset": "memset(to, 1, length)",
    "strcpy": "strcpy(to, text)",
    "stpcpy": "stpcpy(to, text)",
    "snprintf": 'snprintf(to, length, "%s", text)',
    "vsnprintf": "vsnprintf(to, length, text, nothing)",
    "fgets": "fgets(to, (int)length, stdin)",
    "read": "read(0, to, length)",
    "pread": "pread(0, to, length, 0)",
    "readlink": 'readlink("/proc/self/exe", to, length)',
    "getcwd": "getcwd(to, length)",
    "getgroups": "getgroups((int)length, (gid_t *)(void *)to)",
    "poll": "poll((struct pollfd *)(void *)to, length, 0)",
}

PROGRAM = """
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static va_list nothing;

int main(int argc, char **argv)
{
    const char *text = argv[2];
    size_t length = strlen(text);

    (void)argc;
    CALLS
    return 2;
}
"""
ONE = """
    if (strcmp(argv[1], "NAME") == 0) {
        _Alignas(8) char to[8];

        (void)!CALL;
        __asm__ volatile("" : : "r"(to) : "memory");
        return 0;
    }
"""


@pytest.fixture(scope="session")
def overflowing(base: Path) -> Path:
    """Return a program made as the launcher is: `CALL TEXT` writes as many bytes as TEXT into 8."""
    place = base / "hardening"
    place.mkdir()
    calls = "".join(ONE.replace("NAME", name).replace("CALL", CALLS[name]) for name in CALLS)
    (place / "overflow.c").write_text(PROGRAM.replace("CALLS", calls))
    rules = f"""include Makefile
{place}/overflow: {place}/overflow.c
	$(COMPILE) -w -fPIE -c -o $@.o $<
	$(call LINK,$@.o)
"""
    make = ["make", "-s", "-C", str(RUNTIME), "-f", "-", f"OUT={place}", f"{place}/overflow"]
    subprocess.run(make, check=True, input=rules, text=True)
    return place / "overflow"


@pytest.mark.parametrize("call", CALLS)
def test_what_would_be_written_beyond_an_object_ends_the_program(
    overflowing: Path, call: str
) -> None:
    def run(text: str) -> int:
        with Path("/dev/zero").open() as zero:
            command = [str(overflowing), call, text]
            return subprocess.run(command, stdin=zero, cwd="/", check=False).returncode

    assert run("x" * (1 if call in ("getgroups", "poll") else 7)) == 0
    assert run("x" * 9) in (-signal.SIGILL, -signal.SIGABRT, -signal.SIGTRAP)
