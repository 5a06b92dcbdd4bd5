"""Which of several images in one archive or layout is wanted.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from shifter_lite.errors import BadReference, NotFound
from shifter_lite.reference import Reference

_MOST_SHOWN = 10
_LONGEST_SHOWN = 100
# More than any name has that docker can read.
_LONGEST_NAME = 512


@dataclass(frozen=True, slots=True)
class Offer:
    """One image: an ENTRY of a list, that calls it NAMES, and DIGEST if it has one there."""

    names: tuple[str, ...]
    digest: str
    entry: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The image that is called REF where it lies; without REF the only one, or that called NAME."""

    ref: str
    name: Reference

    def among(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return those of OFFERS that have the name wanted: several, if for several platforms.

        Raises NotFound, saying what there is.
        """
        meant = [offer for offer in offers if self._means(offer)]
        if meant:
            return meant
        if not self.ref and _alike(offers):
            return list(offers)
        names = {name for offer in offers for name in offer.names or (offer.digest,)}
        if self.ref:
            raise NotFound(f"there is no image {self.ref!r} in it", hint=_choice(names))
        raise NotFound(
            f"there are {len(offers)} images in it, and none is {str(self.name)!r}",
            hint=_choice(names),
        )

    def one(self, offers: Sequence[Offer]) -> Offer:
        """Return that of OFFERS which is wanted; raises NotFound, saying what there is."""
        meant = self.among(offers)
        digests = {offer.digest for offer in meant}
        if len(meant) > 1 and (len(digests) > 1 or "" in digests):
            raise NotFound(f"there are {len(meant)} images alike in it", hint=_choice(digests))
        return meant[0]

    def _means(self, offer: Offer) -> bool:
        wanted = self.ref or str(self.name)
        if wanted in (*offer.names, offer.digest):
            return True
        return _normal(wanted) in map(_normal, offer.names)


def _alike(offers: Sequence[Offer]) -> bool:
    """Return whether OFFERS are one image: called the same, or the same by their digest."""
    digests = {offer.digest for offer in offers}
    return len({offer.names for offer in offers}) == 1 or (len(digests) == 1 and "" not in digests)


def _choice(names: Iterable[str]) -> str:
    known = sorted(filter(None, names))
    if not known:
        return "there is none that could be named"
    shown = ", ".join(repr(name[:_LONGEST_SHOWN]) for name in known[:_MOST_SHOWN])
    more = " and more" if len(known) > _MOST_SHOWN else ""
    return f"choose with --ref one of: {shown}{more}"


def _normal(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        return name
    try:
        return str(Reference.parse(name))
    except BadReference:
        return name
