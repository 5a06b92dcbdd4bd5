"""What a worker takes, it gives back where its use ends, and not when the collector comes."""

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from operator import le

import pytest

from shifter_lite import registries
from shifter_lite.build.registry import Registry
from shifter_lite.build.wire.patience import Patience
from shifter_lite.errors import NotFound, ShifterError
from shifter_lite.reference import Reference
from tests.helpers import faulty, images
from tests.helpers.processes import until

QUICK = Patience(
    connect=2.0, header=0.4, silence=0.4, attempts=2, first_pause=0.01, longest_pause=1.0, total=4.0
)
_TIMES = 8
# What is not given back is looked for so long.
_PATIENCE = 10.0
IMAGE = images.image([images.layer([images.file("x", b"x" * 10_000)])])


@pytest.fixture
def served(faulty_registry: faulty.Registry) -> faulty.Registry:
    faulty_registry.add("x", "1", IMAGE)
    return faulty_registry


@pytest.fixture(autouse=True)
def _without_a_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def taken() -> tuple[int, int]:
    """Return how many descriptors and threads this process has, the registry's own included."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def read(registry: Registry) -> None:
    manifest = registry.manifest("linux/amd64")
    registry.config(manifest)
    for layer in manifest.layers:
        with registry.blob(layer) as piece:
            while piece(50_000):
                pass


def client(name: str, tables: dict[str, dict[str, object]] | None = None) -> Registry:
    return Registry(Reference.parse(name), registries.parse(tables or {}), patience=QUICK)


def reads(served: faulty.Registry) -> None:
    with client(f"{served.address}/x:1") as registry:
        read(registry)


def fails(served: faulty.Registry) -> None:
    with client(f"{served.address}/x:none") as registry, pytest.raises(NotFound):
        registry.manifest("linux/amd64")


def is_left_in_the_middle(served: faulty.Registry) -> None:
    with client(f"{served.address}/x:1") as registry:
        (layer,) = registry.manifest("linux/amd64").layers
        with registry.blob(layer) as piece:
            piece(10)


def begins_afresh(served: faulty.Registry) -> None:
    with client(f"{served.address}/x:1") as registry:
        read(registry)
        registry.abort()
        with registry.afresh() as again:
            read(again)


def leaves_a_mirror(served: faulty.Registry) -> None:
    tables: dict[str, dict[str, object]] = {
        served.address: {"mirrors": [f"http://{served.address}/none"]}
    }
    with client(f"{served.address}/x:1", tables) as registry:
        read(registry)
        alone = registry.without_mirrors()
        assert alone is not None
        with alone:
            read(alone)


def hears_nothing(served: faulty.Registry) -> None:
    served.fault("1", faulty.Stall(0, seconds=1.5))
    with client(f"{served.address}/x:1") as registry, pytest.raises(ShifterError):
        registry.manifest("linux/amd64")
    served.heal()


USES = (reads, fails, is_left_in_the_middle, begins_afresh, leaves_a_mirror, hears_nothing)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_registry_that_is_closed_leaves_no_connection_and_no_thread(
    served: faulty.Registry, use: Callable[[faulty.Registry], None]
) -> None:
    use(served)
    before = taken()
    for _ in range(_TIMES if use is not hears_nothing else 1):
        use(served)
    # Fewer, where the registry itself had not closed its ends when they were counted.
    until(lambda: all(map(le, taken(), before)), _PATIENCE)


def test_what_a_registry_took_is_free_without_the_collector(served: faulty.Registry) -> None:
    with client(f"{served.address}/x:1") as registry:
        read(registry)
        session = weakref.ref(registry._endpoints[-1].session)
        context = weakref.ref(registry._endpoints[-1].session.context)
    del registry
    until(lambda: session() is None and context() is None, _PATIENCE)
