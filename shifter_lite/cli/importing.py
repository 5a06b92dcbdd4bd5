"""``shifterimg import``: as ``pull``, of what lies in a file or a directory."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress

import click

from shifter_lite import config, store
from shifter_lite.build import local
from shifter_lite.cli import boundary, pull
from shifter_lite.errors import BadReference, Denied, NotFound
from shifter_lite.layout import Layout
from shifter_lite.reference import Reference
from shifter_lite.request import LONGEST_REF


@click.command("import")
@boundary.store_option
@click.argument("path")
@click.argument("name")
@click.option("--ref", metavar="REF", default="", help="What the image is called in PATH.")
@pull.platform_option
@pull.no_wait_option
@click.pass_context
def command(
    context: click.Context, path: str, name: str, ref: str, platform: str | None, no_wait: bool
) -> None:
    """Make what lies at PATH the image NAME, ready for compute nodes.

    PATH is an OCI layout, an archive as of "docker save" or "skopeo copy" (also with gzip),
    or a squashfs file.  As with pulled images, everybody may then read and run it.  On a
    store of many users, PATH must be yours or readable for all, and NAME must begin with
    localhost/ and your login name.
    """
    if len(ref) > LONGEST_REF:
        raise BadReference(f"not a name in an image: {ref[:64]!r}…", hint="see what there is")
    site = config.read_site(os.environ)
    wish = pull.Wish(
        image=Reference.parse(name),
        platform=pull.platform_of(site, platform),
        path=_resolved(path),
        ref=ref,
    )
    _check_name(boundary.layout_of(context), wish.image)
    pull.ask(context, site, wish, no_wait=no_wait)


def _check_name(layout: Layout, name: Reference) -> None:
    """Raise Denied if the worker of a store of many users would refuse NAME: it may be hours."""
    with suppress(FileNotFoundError, KeyError):
        if store.is_shared(layout) and not store.is_ours(layout):
            local.check_owned(name, pwd.getpwuid(os.geteuid()).pw_name)


def _resolved(path: str) -> str:
    """Return where PATH leads, as requests have it; raises NotFound or Denied.

    Links are followed here, as their reader may; a worker follows none.
    """
    try:
        found = os.path.realpath(os.fsencode(path), strict=True)
    except PermissionError as error:
        raise Denied(f"not permitted: {error.filename!r}", hint="check the path") from error
    except OSError as error:
        raise NotFound(
            f"there is no file {path!r}: {error.strerror}", hint="check the path"
        ) from error
    return found.decode(errors="surrogateescape")
