"""Whatever bytes lie in the store's documents: a reader takes them, or refuses and explains."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.errors import BadRequest
from shifter_lite.request import Request
from tests.helpers.mutations import mutated
from tests.helpers.readers import READERS, request

# scripts/fuzz takes as many as one likes.
INPUTS = {"request": 30_000, "identity": 5_000, "record": 5_000, "status": 5_000}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


@pytest.mark.parametrize("what", READERS)
def test_damaged_documents_are_refused_or_say_what_they_said(what: str, tmp_path: Path) -> None:
    chance = random.Random(what)
    with READERS[what](tmp_path) as reader:
        assert all(reader.takes(seed) for seed in reader.seeds)
        taken = 0
        for number in range(INPUTS[what]):
            data = mutated(chance, reader.seeds)
            try:
                taken += reader.takes(data)
            except Exception as error:
                error.add_note(f"input {number}: {data[:2000]!r}")
                raise
    # Else it was not the reader that was tried, but the first thing that it looks at.
    assert taken > INPUTS[what] // 100


FIELDS = ["v", "store", "name", "uid", "time", "image", "platform", "path", "ref", "more"]


@given(st.dictionaries(st.sampled_from(FIELDS), values), st.booleans())
def test_a_request_with_any_values_is_refused_or_says_the_same(
    fields: dict[str, object], imported: bool
) -> None:
    good = request(path="/a", ref="r") if imported else request()
    data = json.dumps({**json.loads(good.to_bytes()), **fields}).encode()
    try:
        taken = Request._parse(data)
    except BadRequest:
        return
    assert json.loads(taken.to_bytes()) == json.loads(data)
