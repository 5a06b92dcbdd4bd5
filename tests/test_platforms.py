"""Platforms are understood however they are written, and told apart as containerd does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite import platforms
from shifter_lite.errors import BadReference


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("Linux/X86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("i386", "linux/386"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.2", "linux/arm64/v8.2"),
        ("linux/arm64/v9.0", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("ppc64le", "linux/ppc64le"),
        ("linux/s390x", "linux/s390x"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_platform_is_understood_however_it_is_written(written: str, meant: str) -> None:
    assert platforms.parse(written) == meant
    assert platforms.parse(meant) == meant
    assert platforms.is_platform(meant)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "linux",
        "linux/",
        "/amd64",
        "linux//v8",
        "linux/arm64/",
        "linux/arm/v7/x",
        "nonsense",
        "linux/amd64\n",
        "linux/" + "a" * 99,
    ],
)
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(BadReference) as caught:
        platforms.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "runs"),
    [
        ("linux/amd64", "linux/amd64 linux/386"),
        ("linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64 linux/386"),
        ("linux/arm/v7", "linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm/v6", "linux/arm/v6 linux/arm/v5"),
        ("linux/arm64", "linux/arm64 linux/arm/v8 linux/arm/v7 linux/arm/v6 linux/arm/v5"),
        ("linux/arm64/v8.1", "linux/arm64/v8.1 linux/arm64 linux/arm/v8 linux/arm/v7"),
        ("linux/arm64/v9", "linux/arm64/v9 linux/arm64/v8.5 linux/arm64/v8.4 linux/arm64/v8.3"),
        ("linux/ppc64le", "linux/ppc64le"),
    ],
)
def test_a_machine_runs_its_own_first_and_then_what_is_older(machine: str, runs: str) -> None:
    found = " ".join(platforms.runnable(machine))
    assert found == runs or found.startswith(f"{runs} ")


@given(st.text(max_size=20) | st.text(alphabet="linuxarm64/v8.9_-", max_size=20))
def test_any_text_is_a_platform_in_normal_form_or_refused(text: str) -> None:
    try:
        meant = platforms.parse(text)
    except BadReference:
        return
    assert platforms.is_platform(meant)
    assert platforms.parse(meant) == meant
    assert platforms.runnable(meant)[0] == meant


V2 = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3", "fpu"}
V3 = V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(("flags", "level"), [(set(), 1), (V2, 2), (V3, 3), (V4, 4)])
def test_a_processor_has_the_level_of_x86_64_of_which_it_has_everything(
    flags: set[str], level: int
) -> None:
    assert platforms.x86_level(flags) == level
    for lacking in flags - {"fpu"}:
        assert platforms.x86_level(flags - {lacking}) < level
