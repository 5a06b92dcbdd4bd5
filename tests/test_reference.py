"""Image names are read as docker reads them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.errors import BadReference
from shifter_lite.reference import Reference, index_key

VECTORS = Path(__file__).parent.parent / "spool/vectors/references/names.tsv"


def vectors() -> list[tuple[str, str]]:
    lines = VECTORS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("\t") for line in lines if not line.startswith("#"))
    return [(written, key) for written, key in pairs]


@pytest.mark.parametrize(("written", "key"), vectors())
def test_every_vector_has_its_key_or_is_refused(written: str, key: str) -> None:
    if key == "!":
        with pytest.raises(BadReference) as caught:
            index_key(written)
        assert repr(written) in str(caught.value)
        assert caught.value.hint
    else:
        assert index_key(written) == key


@pytest.mark.parametrize("key", sorted({key for _, key in vectors() if key != "!"}))
def test_a_normal_form_is_its_own_normal_form(key: str) -> None:
    assert index_key(key) == key


@pytest.mark.parametrize("kind", ["sha512", "sha384"])
def test_a_digest_of_another_kind_is_refused_with_a_sentence(kind: str) -> None:
    with pytest.raises(BadReference) as caught:
        Reference.parse(f"debian@{kind}:{'0' * 128}")
    assert caught.value.hint == f"digests of the kind {kind} are not known here, only sha256"


@given(st.text(max_size=80) | st.text(alphabet="aA1.:/@-_[]sha256:docker", max_size=60))
def test_parse_accepts_or_explains_and_what_it_accepts_round_trips(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except BadReference as error:
        explained = str(error)
    else:
        assert Reference.parse(str(reference)) == reference
        assert bool(reference.tag) != bool(reference.digest)
        return
    assert repr(text) in explained
