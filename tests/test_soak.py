"""A worker that has answered much holds no more than one that has answered little."""

from collections import Counter

from tests.conftest import Runner
from tests.helpers.soak import Sample, growth, soak


def test_a_worker_holds_no_more_after_many_answers_of_all_kinds(
    site: Runner, registry: str
) -> None:
    kinds: Counter[str] = Counter()
    samples = list(soak(site, registry, 200, 50, kinds))
    assert set(kinds) == {"ready", "new", "failed", "rejected", "cancelled"}
    assert len({(each.descriptors, each.threads) for each in samples[1:]}) == 1, samples


def test_what_grows_is_told() -> None:
    still = [Sample(number, 1.0, 10, 5, 40_000) for number in range(20)]
    assert growth(still) == []
    grows = [Sample(number, 1.0, 10 + number, 5, 40_000) for number in range(20)]
    assert growth(grows) == ["descriptors: 16 -> 27"]
