"""Turn layers into an image's tree and data, while they are still on their way.

Layers are read once, lowest first.  Every file's data is compressed as it comes by, before
anybody can know whether a later layer deletes it: nearly all of it stays.  Of what does not
stay, nothing is left in the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from shifter_lite import lost_reply
from shifter_lite.build import elf, sparse, tar, toc
from shifter_lite.build.ahead import ahead
from shifter_lite.build.blobs import Blob
from shifter_lite.build.content import Contents, Writer
from shifter_lite.build.digest import digest_in
from shifter_lite.build.first import First
from shifter_lite.build.inflate import inflate
from shifter_lite.build.keep import keep
from shifter_lite.build.merge import Tree, is_plain
from shifter_lite.build.press import BLOCK
from shifter_lite.build.squashfs import HEADER_SIZE
from shifter_lite.build.tar import Member, shown
from shifter_lite.build.tree import File, nodes
from shifter_lite.build.zstd import Block, Compressor
from shifter_lite.config import Limits, Site
from shifter_lite.errors import BadImage
from shifter_lite.transient import waited_out

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

# Names of libraries that are held, all distinct sets of them together.
_MOST_NAMES = 1 << 21
# Beside its texts, what an entry takes in the tree, its directory and the tables of the image.
_NODE_BYTES = 512

T = TypeVar("T", bytes, bytes | memoryview)


class Conversion:
    """The layers of one image, one after the other."""

    def __init__(self, tree: Tree, writer: Writer, limits: Limits, mark: str) -> None:
        """Apply to TREE, and give the data of files to WRITER; unfinished files end with MARK."""
        self._tree, self._writer, self._limits, self._mark = tree, writer, limits, mark
        self._first = First(tree.policy.first_files)
        # By the number of the file that needs them.
        self.libraries: dict[int, frozenset[bytes]] = {}
        self._needed: dict[frozenset[bytes], frozenset[bytes]] = {}
        self._names = 0
        self._entries = 0
        self._kept = 0
        self._plain = True
        self._inflated = 0
        self._bytes = 0

    def layer(self, blob: Blob, diff_id: str) -> None:
        """Convert BLOB, whose content must have the digest DIFF_ID.

        Raises BadImage, naming the layer, and Damaged.
        """
        self._plain = True
        # Held open from here on: other workers may evict it at any time.
        with ExitStack() as held:
            try:
                table = self._convert(blob, diff_id, held)
            except BadImage as error:
                # Most damage is damage on the way, or in the cache: then that is the reason.
                blob.judge()
                raise BadImage(
                    f"layer {blob.number} ({blob.layer.digest}): {error}", hint=error.hint
                ) from error
            self._tree.apply(lambda: toc.read(table), plain=self._plain)
        self._check_kept()

    def _convert(self, blob: Blob, diff_id: str, held: ExitStack) -> BinaryIO:
        """Take every member of BLOB; return its table of contents, open until HELD ends.

        Raises BadImage unless its content has DIFF_ID.
        """
        kept = toc.opened(blob.toc)
        known = toc.diff_id(held.enter_context(kept), blob.layer.digest) if kept else None
        inflated = ahead(self._counted(inflate(blob.pieces())))
        if kept and known is not None:
            table, found = kept, known
            with closing(inflated):
                self._take_known(kept, tar.Stream(inflated))
        else:
            hashed = hashlib.sha256()
            # Three threads: one inflates, one hashes, and this one sees what is in it.
            with closing(ahead(_hashing(inflated, hashed))) as pieces:
                table, found = self._take_new(blob, tar.Stream(pieces), hashed, held)
        if found != diff_id:
            lost_reply.unlink(blob.toc)
            # Not which it has: the cache may have it of another user.
            raise BadImage(f"its content has another digest, not the diff_id {diff_id}")
        return table

    def _take_known(self, table: BinaryIO, stream: tar.Stream) -> None:
        for member in toc.read(table):
            self._take(stream, member)
        stream.drain()

    def _take_new(
        self, blob: Blob, stream: tar.Stream, hashed: Hash, held: ExitStack
    ) -> tuple[BinaryIO, str]:
        """Take every member of BLOB; return a table of them, and what HASHED has in the end."""
        waited_out(lambda: blob.path.parent.mkdir(exist_ok=True))
        part = blob.toc.with_name(f".{blob.toc.name}.{self._mark}")
        with toc.writing(part, blob.toc, blob.layer.digest) as table:
            for member in tar.members(stream):
                table.put(member)
                self._take(stream, member)
            stream.drain()
            table.diff_id = digest_in(hashed)
            made = held.enter_context(waited_out(lambda: part.open("rb", buffering=1 << 18)))
        return made, table.diff_id

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._inflated += len(piece)
            if self._inflated > self._limits.bytes:
                raise _too_much("bytes uncompressed", self._limits.bytes, "bytes")
            yield piece

    def _take(self, stream: tar.Stream, member: Member) -> None:
        """Give the data of MEMBER, which is next in STREAM, to the writer."""
        self._entries += 1
        self._plain = self._plain and is_plain(member)
        self._count_kept(member)
        if self._entries > self._limits.entries:
            raise _too_much("entries", self._limits.entries, "entries")
        if member.type != tar.FILE or not member.size:
            return
        self._check_size(member)
        writer = self._writer
        stream.skip(member.offset - stream.position)
        number, rank = len(writer.contents), self._first.rank(member.name)
        if rank is None and member.size < BLOCK and member.stored == member.size:
            # Most files are so, and this is their short way.
            data = _whole(stream.read(member.size), member.size, member)
            writer.small(data)
            if data.startswith(elf.MAGIC) and (names := elf.needed(data)):
                self._need(number, names)
            return
        blocks = elf.watched(_blocks(stream, member), partial(self._need, number))
        writer.add(member.size, blocks, rank)

    def _count_kept(self, member: Member) -> None:
        """Count what may be held in memory of MEMBER until the image is done."""
        self._kept += _NODE_BYTES + len(member.name) + len(member.link)
        if member.xattrs and self._tree.policy.user_xattrs:
            self._kept += sum(len(name) + len(value) for name, value in member.xattrs)
        self._check_kept()

    def _check_kept(self) -> None:
        """Raise BadImage if too much is held; directories that only paths name count as well."""
        kept = self._kept + _NODE_BYTES * self._tree.implied
        if kept > self._limits.tree_bytes:
            what = "bytes of names, links and attributes"
            raise _too_much(what, self._limits.tree_bytes, "tree_bytes")

    def _need(self, number: int, names: frozenset[bytes]) -> None:
        """Note that file NUMBER needs the libraries NAMES; equal sets are held once."""
        if names not in self._needed:
            self._names += len(names)
            self._needed[names] = names
        if self._names > _MOST_NAMES:
            # They may take ten times the room of the files: no real image comes near.
            self.libraries.clear()
            self._needed.clear()
        else:
            self.libraries[number] = self._needed[names]

    def _check_size(self, member: Member) -> None:
        limits = self._limits
        self._bytes += member.size
        if member.size > limits.file_bytes:
            raise _too_much(f"bytes in {shown(member.name)}", limits.file_bytes, "file_bytes")
        if self._bytes > limits.bytes:
            raise _too_much("bytes in files", limits.bytes, "bytes")


def _hashing(pieces: Iterator[bytes], hashed: Hash) -> Iterator[bytes]:
    for piece in pieces:
        hashed.update(piece)
        yield piece


def _whole(data: T, size: int, member: Member) -> T:
    if len(data) < size:
        raise BadImage(f"the archive is cut off in {shown(member.name)}")
    return data


def _blocks(stream: tar.Stream, member: Member) -> Iterator[Block | None]:
    if member.stored != member.size:
        yield from sparse.blocks(stream.copy, member.segments, member.size, BLOCK)
        return
    for at in range(0, member.size, BLOCK):
        size = min(BLOCK, member.size - at)
        yield _whole(stream.view(size), size, member)


def _too_much(what: str, limit: int, key: str) -> BadImage:
    return BadImage(
        f"the image has more than {limit} {what}",
        hint=f"the site allows no more: limits.{key} in shifter_lite.toml",
    )


@dataclass(frozen=True, slots=True)
class Converted:
    """An image's tree; where its data lies, and ends; and what libraries its programs need."""

    tree: Tree
    contents: Contents
    end: int
    libraries: frozenset[bytes]


def convert(
    blobs: Sequence[Blob],
    diff_ids: Sequence[str],
    file: FileIO,
    compressor: Compressor,
    site: Site,
    mark: str,
) -> Converted:
    """Convert BLOBS, whose contents have the digests DIFF_IDS, to a tree and its data in FILE.

    The data begins where a squashfs has it.  MARK ends the names of unfinished files.
    Raises BadImage, Damaged, and what bringing the blobs raises.
    """
    file.seek(HEADER_SIZE)
    tree, writer = Tree(site.policy, site.limits.entries), Writer(file, compressor)
    with closing(writer):
        conversion = Conversion(tree, writer, site.limits, mark)
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            conversion.layer(blob, diff_id)
            blob.leave()
        tree.finish()
        writer.finish()
    live = _live(tree)
    end = keep(file, HEADER_SIZE, writer.position, writer.contents, live, compressor)
    # Many files may need the same: each set counts once.
    needed = {names for number, names in conversion.libraries.items() if live[number]}
    return Converted(tree, writer.contents, end, frozenset[bytes]().union(*needed))


def _live(tree: Tree) -> bytearray:
    """Return for each file with data whether it is still in TREE."""
    live = bytearray(tree.files)
    for node in nodes(tree.root):
        if isinstance(node, File) and node.content >= 0:
            live[node.content] = 1
    return live
