"""The steps of the pipeline: each joins one stage to what the worker has at hand.

``worker.build`` is their order.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from threading import Lock
from typing import Protocol

from shifter_lite import durable, identity, keys, logs, lost_reply, platforms, store
from shifter_lite.build import blobs, convert, local, squash
from shifter_lite.build.manifest import ImageConfig, Manifest, check_platform
from shifter_lite.build.registry import Registry
from shifter_lite.build.zstd import Compressor
from shifter_lite.config import Site
from shifter_lite.errors import BadImage, Damaged, RegistryBusy, ShifterError
from shifter_lite.index import known, publish, resolve
from shifter_lite.index.upgrade import with_platforms
from shifter_lite.layout import Layout
from shifter_lite.logins import FindLogin
from shifter_lite.queue import locks, marks
from shifter_lite.queue.presence import Census
from shifter_lite.queue.worker import Worker
from shifter_lite.records import Content, Entry, Image
from shifter_lite.request import Request, Status
from shifter_lite.transient import waited_out

Report = Callable[[Status], None]
Source = Registry | local.Stored | local.Squashfs
# A requester wants to see movement, a filesystem few files.
_REPORT_SECONDS = 0.5
# Layers that are read at a time, where no registry limits it.
_AT_ONCE = 4
_PUBLISH_SECONDS = 10.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Builder(Protocol):
    """The worker for whom something is built.

    ``mark`` ends the names of the files that only this build uses: of each build of a worker it
    is another one.
    """

    @property
    def name(self) -> str:
        """The worker's name."""

    @property
    def mark(self) -> str:
        """What ends the names of unfinished files."""

    @property
    def census(self) -> Census:
        """What is known of other workers."""


@dataclass(frozen=True)
class BuildContext:
    """What an image is built with: one store, how the site wants it, and a compressor.

    ``worker`` is for whom; ``logins`` are those of the user who works for himself.
    """

    layout: Layout
    store: str
    site: Site
    compressor: Compressor
    worker: Builder
    logins: FindLogin | None = None


@dataclass(frozen=True)
class Bench(BuildContext):
    """What a worker works with: that, and itself."""

    worker: Worker


def own_logins(bench: BuildContext, request: Request) -> FindLogin | None:
    """Return the user's own logins, if REQUEST is his."""
    return bench.logins if request.uid == os.geteuid() else None


@contextmanager
def opened(bench: BuildContext, request: Request) -> Iterator[Source]:
    """Yield where the image is that REQUEST asks for; raises NotFound, Denied or BadImage."""
    if not request.path:
        shared = store.is_shared(bench.layout)
        own = own_logins(bench, request)
        with Registry(request.image, bench.site.registries, own, shared=shared) as source:
            yield source
        return
    with local.opened(request.path, request.uid, request.ref, request.image) as found:
        yield found


def fresh(bench: Bench, request: Request) -> Entry | None:
    """Return what the index has for REQUEST, if no registry need be asked."""
    if request.path or request.refresh:
        return None
    return known.fresh(bench.layout, bench.site, request.image, request.platform)


def confirm(bench: Bench, request: Request) -> None:
    """Note that what REQUEST has got is what its registry says now."""
    wanted = platform_of(bench, request)
    # Who does not say for which platform means the site's.
    said = {wanted, "" if wanted == bench.site.platform else request.platform}
    for platform in said if not request.path else ():
        known.confirm(bench.layout, request.image, platform)


def ready(bench: Bench, request: Request) -> Entry | None:
    """Return what the index has for REQUEST, however old, if that will do without a registry."""
    if request.path or request.refresh:
        return None
    return known.known(bench.layout, bench.site, request.image, request.platform)


def check_digest(request: Request, manifest: Manifest) -> None:
    """Raise BadImage if REQUEST asks for another digest than MANIFEST has."""
    wanted = request.image.digest
    if wanted and wanted not in (manifest.digest, manifest.index_digest):
        raise BadImage(f"the image has the digest {manifest.digest}, not {wanted}")


def platform_of(bench: BuildContext, request: Request) -> str:
    """Return the platform that REQUEST is for."""
    return request.platform or bench.site.platform


def choose(bench: BuildContext, request: Request, source: Source) -> Manifest:
    """Return the manifest of what REQUEST asks SOURCE for, and which nodes would be given it.

    Raises what ``source.manifest`` does, or BadImage if REQUEST asks for another digest.
    """
    wanted = platform_of(bench, request)
    manifest = source.manifest(wanted)
    check_digest(request, manifest)
    suits = [
        platform
        for platform in bench.site.platforms_for(wanted)
        if platform == wanted
        or (platforms.related(platform, wanted) and source.gives(manifest, platform))
    ]
    return replace(manifest, suits=tuple(suits))


def find(bench: Bench, manifest: Manifest, recipe: str = "") -> Image | None:
    """Return the image that MANIFEST would become by RECIPE, else by ours, if the store has it.

    Raises BadImage if it is made for another platform.
    """
    recipe = recipe or squash.recipe(bench.compressor, bench.site.policy)
    with resolve.newest(bench.layout.index) as index:
        entry = index.find(_built_key(manifest.digest, recipe)) if index else None
    if entry is None or not durable.has_size(bench.layout.image(entry.id), entry.size):
        return None
    image = restored(bench, entry.id)
    check_platform(image.content.platform, manifest.platform)
    return image


@contextmanager
def building(
    bench: Bench, request: Request, manifest: Manifest, names: Collection[str] = ()
) -> Iterator[None]:
    """Be the only one meanwhile who builds the image of MANIFEST for REQUEST; raises Elsewhere.

    NAMES are those of the requests that it is for, if it endangers the worker.
    """
    key, worker = build_key(bench, request, manifest), bench.worker
    with marks.building(bench.layout, key, worker.name, worker.census, names):
        yield


def build_key(bench: Bench, request: Request, manifest: Manifest) -> str:
    """Return what the build of MANIFEST for REQUEST is called in ``builds/``.

    The same from elsewhere is another build: it may come slowly from there, or never.
    """
    place = f"{request.uid}:{request.path}" if request.path else request.image.repository
    recipe = squash.recipe(bench.compressor, bench.site.policy)
    words = "\0".join((manifest.digest, recipe, place))
    return hashlib.sha256(words.encode(errors="surrogateescape")).hexdigest()[:32]


_LONGEST_TEXT = 2000


def failure(error: ShifterError) -> Status:
    """Return how a requester hears of ERROR."""
    fact, hint = short(str(error)), short(error.hint)
    return Status(state="FAILURE", fact=fact, hint=hint, exit_code=error.exit_code)


def unconfirmed(request: Request, entry: Entry, busy: RegistryBusy) -> Status:
    """Return how who made REQUEST hears that ENTRY is ready, and that the registry is BUSY."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.time))
    return Status(
        state="READY",
        image_id=entry.id,
        fact=short(f"{busy}: ready is the image as pulled on {when}"),
        hint=f"to insist on its answer: shifterimg pull --refresh {request.image.short}",
    )


def short(text: str) -> str:
    """Return TEXT, which may quote an image's, as people can read it and a status can hold it."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _built_key(digest: str, recipe: str) -> str:
    return f"\0built:{digest}:{recipe}"


def _content(bench: BuildContext, manifest: Manifest, config: ImageConfig) -> Content:
    """Return what the image will be, by which it describes itself."""
    return Content(
        digest=manifest.digest,
        platform=config.platform,
        recipe=squash.recipe(bench.compressor, bench.site.policy),
        layers=tuple(layer.digest for layer in manifest.layers),
        config=config.config,
    )


def make_image(
    bench: BuildContext,
    source: Registry | local.Stored,
    manifest: Manifest,
    config: ImageConfig,
    report: Report,
) -> Image:
    """Bring the layers of MANIFEST from SOURCE, and make them an image in the store.

    Raises BadImage, and what SOURCE raises; then nothing is left but layers that were right.
    """
    limits = bench.site.limits
    if len(manifest.layers) > limits.layers:
        raise BadImage(
            f"the image has {len(manifest.layers)} layers, more than {limits.layers}",
            hint="the site allows no more: limits.layers in shifter_lite.toml",
        )
    try:
        return _make_anywhere(bench, source, manifest, config, report)
    finally:
        # Layers of an image that failed count like any others.
        _room(bench).make(0)


def _make_anywhere(
    bench: BuildContext,
    source: Registry | local.Stored,
    manifest: Manifest,
    config: ImageConfig,
    report: Report,
) -> Image:
    if not isinstance(source, Registry):
        return _make(bench, source, _AT_ONCE, manifest, config, report)
    try:
        return _make(bench, source, source.connections, manifest, config, report)
    except BadImage:
        # A mirror may have given what the registry would not.
        alone = source.without_mirrors()
        if alone is None:
            raise
    with alone:
        return _make(bench, alone, alone.connections, manifest, config, report)


def _make(
    bench: BuildContext,
    source: Registry | local.Stored,
    at_once: int,
    manifest: Manifest,
    config: ImageConfig,
    report: Report,
) -> Image:
    limit = _cache_limit(bench)
    try:
        return _make_once(bench, source, at_once, manifest, config, report, limit)
    except Damaged as error:
        # So a power loss leaves the cache, which is never synced: that is nobody's failure.
        logs.warning("once more, without what was damaged", reason=error)
    except OSError as error:
        if not _has_made_room(bench, error):
            raise
        limit = 0
    with closing(source.afresh()) as again:
        return _make_once(bench, again, at_once, manifest, config, report, limit)


def _has_made_room(bench: BuildContext, error: OSError) -> bool:
    """Return whether it is worth to try again after ERROR, as the store has more room than before.

    The cache is there to save time, and must not be what stands in the way.
    """
    if error.errno not in _NO_ROOM:
        return False
    logs.warning("once more, without the cache of layers", reason=error)
    blobs.evict(bench.layout.blobs, 0, partial(_lock, bench))
    return True


def _make_once(
    bench: BuildContext,
    source: blobs.Source,
    at_once: int,
    manifest: Manifest,
    config: ImageConfig,
    report: Report,
    limit: int,
) -> Image:
    total = sum({layer.digest: layer.size for layer in manifest.layers}.values())
    progress = _Progress("PULLING", total, report)
    content = _content(bench, manifest, config)
    layers: list[blobs.Blob] = []
    try:
        with squash.unfinished(bench.layout.images, bench.worker.mark) as file:
            with (
                closing(progress),
                blobs.fetching(
                    manifest.layers,
                    source,
                    bench.layout.blobs,
                    bench.worker.mark,
                    partial(_lock, bench),
                    progress,
                    at_once,
                    limit,
                ) as layers,
            ):
                made = convert.convert(
                    layers, config.diff_ids, file, bench.compressor, bench.site, bench.worker.mark
                )
            report(Status(state="CONVERSION"))
            image = squash.finish(file, made, content, bench.compressor)
            squash.place(file, image, bench.layout.image(image.id))
    except OSError:
        # Layers that lead to nothing only stand in the way of those who clear up.
        for layer in layers:
            layer.give_up(partial(_lock, bench))
        raise
    except Damaged:
        for layer in layers:
            layer.distrust(partial(_lock, bench))
        raise
    return image


def _room(bench: BuildContext) -> blobs.Room:
    return blobs.Room(bench.layout.blobs, _cache_limit(bench), partial(_lock, bench))


def _cache_limit(bench: BuildContext) -> int:
    return bench.site.cache_limit(shared=store.is_shared(bench.layout))


def _lock(bench: BuildContext, digest: str) -> AbstractContextManager[object] | None:
    """Take what keeps other workers from the blob with DIGEST; None if one has it.

    Raises Abandoned if it must be one that is dead, and only its node does not know it yet.
    """
    # One file for many blobs: lock files are never deleted.
    stripe = digest.removeprefix("sha256:")[:3]
    taken = locks.lock(bench.layout.locks / f"blob.{stripe}.lock")
    if not locks.try_lock(taken):
        # Who downloads builds.  Of a worker's builds only one is this one.
        others = marks.makers_but(bench.layout, bench.worker.name)
        if all(map(bench.worker.census.dead, others)):
            raise blobs.Abandoned
        return None
    # Entering the lock itself would take it once more, and then leaving it would not let it go.
    held = ExitStack()
    held.callback(taken.release)
    return held


def adopt(bench: BuildContext, source: local.Squashfs, manifest: Manifest, report: Report) -> Image:
    """Take the squashfs SOURCE, which has the digest of MANIFEST, into the store as it is."""
    content = Content(
        digest=manifest.digest,
        platform="",
        recipe=source.recipe,
        layers=(),
        config=source.config,
    )

    def once() -> Image:
        pieces = source.pieces(manifest, _Progress("CONVERSION", source.size, report))
        with squash.unfinished(bench.layout.images, bench.worker.mark) as file:
            image = squash.adopt(file, pieces, content)
            squash.place(file, image, bench.layout.image(image.id))
        return image

    try:
        return once()
    except OSError as error:
        if not _has_made_room(bench, error):
            raise
    return once()


def make(bench: BuildContext, source: Source, manifest: Manifest, report: Report) -> Image:
    """Build the image of MANIFEST from SOURCE, or take it over where it is built already.

    Puts its record beside it.  Raises what SOURCE does, and BadImage.
    """
    if isinstance(source, local.Squashfs):
        image = adopt(bench, source, manifest, report)
    else:
        image = make_image(bench, source, manifest, source.config(manifest), report)
    write_record(bench, image)
    return image


def clear(layout: Layout, mark: str) -> None:
    """Remove the unfinished files that end with MARK, of a build that was killed."""
    for place in (layout.images, layout.blobs):
        for path in (*place.glob(".*"), *place.glob("??/.*")):
            if path.name.replace("+", ".").endswith(f".{mark}"):
                path.unlink(missing_ok=True)


def write_record(bench: BuildContext, image: Image) -> None:
    """Put the record of IMAGE beside it."""
    path = bench.layout.record(image.id)
    with suppress(Damaged, FileNotFoundError):
        # The same content has the same name.
        if read_record(bench.layout, image.id) == image:
            return
        logs.warning("a record of another image is replaced", path=path)
    # One that is damaged is worth nothing to anybody.
    lost_reply.unlink(path)
    with suppress(FileExistsError):
        durable.publish(image.to_bytes(), path, bench.worker.mark, 0o644)


def restored(bench: Bench, image_id: str) -> Image:
    """Return what IMAGE_ID is; a record that is lost or damaged is made again from the image.

    Raises Damaged if the image does not say what it is.
    """
    with suppress(Damaged, FileNotFoundError):
        return read_record(bench.layout, image_id)
    path = bench.layout.image(image_id)
    image = Image(id=image_id, size=waited_out(path.stat).st_size, content=squash.describe(path))
    write_record(bench, image)
    logs.warning("a record was lost or damaged, and is made again", id=image_id)
    return image


def read_record(layout: Layout, image_id: str) -> Image:
    """Return the record of IMAGE_ID; raises Damaged or FileNotFoundError."""
    return Image.from_bytes(waited_out(layout.record(image_id).read_bytes))


def read_image(layout: Layout, image_id: str) -> Image | None:
    """Return what IMAGE_ID is, as its record or else the image itself says; None if neither can."""
    with suppress(Damaged, FileNotFoundError):
        return read_record(layout, image_id)
    path = layout.image(image_id)
    try:
        return Image(id=image_id, size=waited_out(path.stat).st_size, content=squash.describe(path))
    except (Damaged, FileNotFoundError) as error:
        logs.warning("an image cannot be read", id=image_id, reason=error)
        return None


def names_of(bench: Bench, request: Request, manifest: Manifest, image: Image) -> dict[str, Entry]:
    """Return every key by which the image is looked for."""
    reference, wanted, own = request.image, platform_of(bench, request), _made_for(image)
    now, recipe = int(time.time()), image.content.recipe
    exact = reference.by_digest(manifest.digest)
    # What names one image says of it what the image does.
    one = (exact, f"id:{image.id}", _id(manifest.digest), _built_key(manifest.digest, recipe))
    names = {str(reference)} - {exact}
    if manifest.index_digest:
        names.add(reference.by_digest(manifest.index_digest))
    made_for = manifest.said or own or platforms.without_variant(wanted)
    found = [
        key
        for name in sorted(names)
        for key in _keys_of_name(bench.site, name, wanted, made_for, manifest.suits)
    ]
    if manifest.index_digest and not bench.site.further_platforms and str(reference) in found:
        found.append(_id(manifest.index_digest))
    named = {
        **dict.fromkeys(found, Entry.of(image, now, made_for)),
        **dict.fromkeys(one, Entry.of(image, now, own)),
    }
    if reference.digest:
        for key in named:
            named[key] = replace(named[key], asked=key.endswith(str(reference)))
    return named


def _id(digest: str) -> str:
    """Return the key of what Shifter calls by the id that is in DIGEST, of a manifest."""
    return f"id:{digest.removeprefix('sha256:')}"


def _made_for(image: Image) -> str:
    """Return the platform that IMAGE itself says it is made for; empty if it says none."""
    return platforms.in_normal_form(image.content.platform)


def _keys_of_name(
    site: Site, name: str, wanted: str, made_for: str, suits: Iterable[str]
) -> Iterator[str]:
    """Yield the keys by which machines find an image MADE_FOR a platform, pulled for WANTED.

    Of the nodes of the site, those that it SUITS: what a name means to the others, no request
    for another platform may change.
    """
    for platform in suits:
        if made_for in platforms.runnable(platform):
            yield name if platform == site.platform else keys.of_machine(name, platform)
    if wanted not in site.platforms_for(wanted):
        yield keys.of_platform(name, wanted)


def publish_names(bench: Bench, names: Mapping[str, Entry]) -> publish.Published:
    """Make NAMES visible to compute nodes; return the generation of the index that holds them.

    Raises Lost if we were taken for dead: then nothing is published.
    """

    @cache
    def made_for(image_id: str) -> str:
        image = read_image(bench.layout, image_id)
        return _made_for(image) if image else ""

    with _publishing(bench):
        return publish.publish(
            bench.layout.index,
            names,
            store=bench.store,
            mark=bench.worker.name,
            renew=bench.worker.presence.renew,
            upgrade=partial(with_platforms, site=bench.site, platform_of=made_for),
        )


def publish_identity(bench: Bench, entries: dict[bytes, bytes]) -> publish.Published:
    """Make ENTRIES all that compute nodes know of users and groups; as ``publish_names``."""
    with _publishing(bench):
        return publish.replace(
            bench.layout.index,
            identity.is_key,
            entries,
            store=bench.store,
            mark=bench.worker.name,
            renew=bench.worker.presence.renew,
        )


@contextmanager
def _publishing(bench: Bench) -> Iterator[None]:
    # The lock saves work: with or without it, no two can publish the same generation.
    with locks.patiently(bench.layout.locks / "publish.lock", _PUBLISH_SECONDS) as had:
        if not had:
            logs.warning("somebody holds the lock of publishing, and does not publish")
        yield


def fence(bench: Bench) -> None:
    """Make all who are about to publish ask whether they may."""
    publish.fence(bench.layout.index, store=bench.store, mark=bench.worker.name)


class _Progress:
    """Counts bytes, in whichever thread they come, and reports now and then until closed."""

    def __init__(self, state: str, total: int, report: Report) -> None:
        self._state, self._total, self._report = state, total, report
        self._done = 0
        self._next = 0.0
        self._lock = Lock()
        self._closed = False
        self(0)

    def __call__(self, size: int) -> None:
        with self._lock:
            self._done += size
            now = time.monotonic()
            if now >= self._next and not self._closed:
                self._next = now + _REPORT_SECONDS
                done = min(self._done, self._total)
                self._report(Status(state=self._state, done=done, total=self._total))

    def close(self) -> None:
        """Report no more: a thread left behind must not have the last word."""
        with self._lock:
            self._closed = True
