"""Every image of the corpus has its tree, or its refusal: the merge alone, without a registry."""

import pytest

from shifter_lite.errors import BadImage
from tests.corpus.case import Case
from tests.corpus.every import CASES
from tests.helpers import planned

# What a manifest or a config says is not the merge's business.
LAYERS = [case for case in CASES if case.made is None]


@pytest.mark.parametrize("case", LAYERS, ids=[case.claim for case in LAYERS])
def test_it_is_what_it_should_be(case: Case) -> None:
    if case.tree is not None:
        assert planned.tree(case.layers) == case.tree
        return
    with pytest.raises(BadImage) as raised:
        planned.tree(case.layers)
    for word in case.because:
        assert word in str(raised.value)


def test_no_claim_is_made_twice() -> None:
    claims = [case.claim for case in CASES]
    assert sorted(set(claims)) == sorted(claims)
