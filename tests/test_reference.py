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


@pytest.mark.parametrize(
    "key", sorted({key for _, key in vectors() if key[:3] not in ("!", "id:")})
)
def test_a_short_name_means_the_same_image(key: str) -> None:
    reference = Reference.parse(key)
    assert Reference.parse(reference.short) == reference
    assert len(reference.short) <= len(key)


@pytest.mark.parametrize(
    ("written", "short"),
    [
        ("docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("index.docker.io/ubuntu", "ubuntu:latest"),
        ("docker:org/name:tag", "org/name:tag"),
        (f"ubuntu@sha256:{64 * 'a'}", f"ubuntu@sha256:{64 * 'a'}"),
        ("quay.io/org/name", "quay.io/org/name:latest"),
        ("localhost:5000/library/ubuntu", "localhost:5000/library/ubuntu:latest"),
        ("localhost/me/tool:1", "localhost/me/tool:1"),
        # Without docker.io these would mean something else.
        ("docker.io/library/a/b:1", "docker.io/library/a/b:1"),
        ("docker.io/localhost/a:1", "docker.io/localhost/a:1"),
        ("docker.io/library/local:1", "docker.io/library/local:1"),
        ("docker.io/library/custom:1", "docker.io/library/custom:1"),
        ("docker.io/library/id:1", "docker.io/library/id:1"),
    ],
)
def test_a_short_name_is_dockers(written: str, short: str) -> None:
    assert Reference.parse(written).short == short


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
        assert Reference.parse(reference.short) == reference
        assert bool(reference.tag) != bool(reference.digest)
        return
    assert repr(text) in explained
