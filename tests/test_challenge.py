"""Challenges are read in every form that the RFC allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build.challenge import Challenge, read

USUAL = Challenge("bearer", "https://a/token", "s", ("repository:x:pull",))
BARE = Challenge("bearer", "http://a")
BASIC = Challenge("basic")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/token",service="s",scope="repository:x:pull"', [USUAL]),
        (
            'bearer   realm = "https://a/token" , service=s,  scope="repository:x:pull"',
            [USUAL],
        ),
        (
            'Bearer scope="repository:x:pull", error="invalid_token", service="s",'
            'realm="https://a/token"',
            [USUAL],
        ),
        (
            'Bearer realm="http://a",scope="repository:x:pull  repository:y:pull,push"',
            [Challenge("bearer", "http://a", "", ("repository:x:pull", "repository:y:pull,push"))],
        ),
        ("Bearer realm=http://a", [BARE]),
        ('Bearer realm="http://a?b=c"', [Challenge("bearer", "http://a?b=c")]),
        ('Negotiate, Bearer realm="http://a"', [BARE]),
        ('Basic realm="r", Bearer realm="http://a"', [BASIC, BARE]),
        ('Bearer realm="http://a", Basic realm="r"', [BARE, BASIC]),
        ('BASIC realm="r"', [BASIC]),
        ("Basic", [BASIC]),
        (r'Bearer realm="http://a/\"b"', [Challenge("bearer", 'http://a/"b')]),
        ('Bearer service="x"', []),
        ('Bearer realm="file:///etc/passwd"', []),
        ('Bearer realm="http://user:password@a"', []),
        ('Bearer realm="http://"', []),
        ('Bearer realm="http://[::1"', []),
        ('Bearer realm="//a"', []),
        ("Negotiate", []),
        ("", []),
        ('="', []),
    ],
)
def test_a_challenge_is_read(header: str, expected: list[Challenge]) -> None:
    assert read(header) == expected


@given(st.text(max_size=60) | st.text(alphabet='Bearer basic=",\\ realm:/', max_size=40))
def test_any_text_is_challenges_or_none(header: str) -> None:
    assert all(each.scheme in ("bearer", "basic") for each in read(header))
