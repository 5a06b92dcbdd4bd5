"""Challenges are read in every form that the RFC allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build.challenge import normal_form

USUAL = 'Bearer realm="https://a/token",service="s",scope="repository:x:pull"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (USUAL, USUAL),
        ('bearer   realm = "https://a/token" , service=s,  scope="repository:x:pull"', USUAL),
        ("Bearer realm=https://a/token", 'Bearer realm="https://a/token"'),
        ('Negotiate, Bearer realm="http://a"', 'Bearer realm="http://a"'),
        ('Basic realm="r", Bearer realm="http://a"', 'Bearer realm="http://a"'),
        ('Basic realm="r"', ""),
        ("Basic", ""),
        (r'Bearer realm="http://a/\"b"', 'Bearer realm="http://a/b"'),
        ('Bearer service="x"', ""),
        ('Bearer realm="file:///etc/passwd"', ""),
        ("Negotiate", ""),
        ("", ""),
        ('="', ""),
    ],
)
def test_a_challenge_is_read(header: str, expected: str) -> None:
    assert normal_form(header) == expected


@given(st.text(max_size=60) | st.text(alphabet='Bearer basic=",\\ realm:/', max_size=40))
def test_any_text_is_a_challenge_or_none(header: str) -> None:
    assert normal_form(header).partition(" ")[0] in ("Bearer", "")
