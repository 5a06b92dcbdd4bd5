"""``shifter-admin usage``: what a store takes of its disk, and what of it can be given back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from shifter_lite import config, store
from shifter_lite.build import eviction
from shifter_lite.cli import boundary
from shifter_lite.cli.boundary import json_option
from shifter_lite.layout import Layout


@click.command("usage")
@boundary.store_option
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Say how many bytes the store's images and its cache of layers take.

    Layers are only kept so that they need not be downloaded again: they may all be removed, while
    no worker builds, and `cache_bytes` in shifter_lite.toml says how many bytes they may take.
    """
    layout = boundary.layout_of(context)
    store.identity(layout)
    used = _usage(layout)
    if as_json:
        boundary.echo(json.dumps(used, indent=2))
        return
    boundary.echo(f"images         {used['images']:>16} bytes")
    boundary.echo(f"cached layers  {used['cache']:>16} bytes, at most {used['cache_limit']}")


def _usage(layout: Layout) -> dict[str, int]:
    limit = config.read_site(os.environ).cache_limit(shared=store.is_shared(layout))
    return {
        "images": sum(map(_stored, layout.images.rglob("*"))),
        "cache": eviction.used(layout.blobs),
        "cache_limit": limit,
    }


def _stored(path: Path) -> int:
    """Return how many bytes of disk PATH takes: an image may have holes."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    return status.st_blocks * 512 if path.is_file() else 0
