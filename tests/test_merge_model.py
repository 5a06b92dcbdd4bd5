"""The merged tree of any image is the one that a slow and plain model finds."""

import pytest
from hypothesis import example, given, settings

from shifter_lite.errors import BadImage
from tests.corpus.chance import images_by_chance
from tests.corpus.model import Refused, model
from tests.helpers import images, planned
from tests.helpers.images import Entry, file, hardlink, symlink, whiteout


@settings(max_examples=400, deadline=None)
@given(images_by_chance())
@example([[file("a")], [hardlink("b", "a"), whiteout("a")]])
@example([[symlink("a", "d/../b")], [whiteout("a/x"), file("a/y")]])
def test_the_merge_is_the_naive_model(layers: list[list[Entry]]) -> None:
    packed = [images.layer(layer, "none") for layer in layers]
    try:
        expected = model(layers)
    except Refused:
        with pytest.raises(BadImage):
            planned.tree(packed)
        return
    assert planned.tree(packed) == expected
