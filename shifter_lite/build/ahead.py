"""Run a generator in a thread of its own, a few pieces ahead of who uses them.

Inflating, hashing and writing release the interpreter's lock, so stages that
hand each other pieces of data really run side by side.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Full, Queue
from threading import Event, Thread

_PIECES = 4
_PATIENCE = 0.1


def ahead(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Yield PIECES, made in another thread; what they raise is raised here.

    When the generator is exhausted, closed or dropped, the thread goes no further than the
    piece that it works at.  It is not waited for: it may itself be waiting for the network.
    """
    queue: Queue[bytes | BaseException | None] = Queue(_PIECES)
    stop = Event()
    thread = Thread(target=_produce, args=(pieces, queue, stop), daemon=True)
    thread.start()
    try:
        while (piece := queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stop.set()


def _produce(
    pieces: Iterator[bytes], queue: Queue[bytes | BaseException | None], stop: Event
) -> None:
    last: BaseException | None = None
    try:
        for piece in pieces:
            if not _put(queue, piece, stop):
                return
    except BaseException as error:  # noqa: BLE001  # raised again where the pieces are used
        last = error
    _put(queue, last, stop)


def _put(
    queue: Queue[bytes | BaseException | None], item: bytes | BaseException | None, stop: Event
) -> bool:
    while not stop.is_set():
        try:
            queue.put(item, timeout=_PATIENCE)
        except Full:
            continue
        return True
    return False
