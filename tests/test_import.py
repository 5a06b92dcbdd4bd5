"""Importing, as its user sees it: what other tools wrote becomes an image, nothing else does."""

import gzip
import hashlib
import json
import operator
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shifter_lite.build import squash
from shifter_lite.reference import Reference
from shifter_lite.request import Request
from tests.conftest import Runner, installed
from tests.helpers import faulty, images, stored
from tests.helpers.killing import Killer
from tests.test_pull import left_over, tree, unpacked
from tests.test_worker import running, spool, until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
MOMENTS = 12
COMPRESSORS = ["gzip", "lzo", "xz", "lz4", "zstd"]


def demo(text: bytes = b"hello\n") -> images.Image:
    """Return an image of three layers, the last of which is the first again, uncompressed."""
    first = images.layer([images.directory("etc"), images.file("etc/motd", text)], "none")
    second = images.layer([images.whiteout("etc/motd"), images.file("b", b"b" * 5000)], "none")
    return images.image([first, second, first], settings={"Env": ["A=1"]})


def copy(image: str, target: str, *options: str) -> None:
    """Let skopeo copy IMAGE, in a registry of the loopback, to TARGET."""
    command = ["skopeo", "copy", "-q", "--src-tls-verify=false", *options]
    subprocess.run([*command, f"docker://{image}", target], check=True, capture_output=True)


def readable(path: Path) -> Path:
    """Let everybody read PATH, which was made by us, and may be made of files."""
    subprocess.run(["chmod", "-R", "a+rX", path], check=True)
    return path


def imported(run: Runner, path: Path | str, name: str = "demo:1", *options: str) -> str:
    """Import PATH as NAME, which must succeed; return the image's id."""
    done = run("shifterimg", "import", *options, path, name)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(r"\S+ Pulling Image: docker:\S+, status: READY\n", done.stdout)
    looked_up_by = options if "--platform" in options else ()
    return run("shifterimg", "lookup", *looked_up_by, name).stdout.strip()


def refused(run: Runner, path: Path | str, reason: str, code: int = 65) -> str:
    """Import PATH, which must fail with CODE for REASON; return all that was said."""
    done = run("shifterimg", "import", path, "demo:1")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert re.search(reason, done.stderr), done.stderr
    assert re.fullmatch(r"shifterimg: .*\n  hint: .*\n", done.stderr), done.stderr
    assert left_over(run.store) == []
    assert not list((run.store / "images").rglob("*.squashfs"))
    return done.stderr


def described(run: Runner, name: str, *options: str) -> tuple[Path, dict[str, object]]:
    """Return the file of the image NAME, found with OPTIONS, and how it describes itself."""
    path = Path(run("shifterimg", "path", *options, name).stdout.strip())
    content: dict[str, object] = json.loads(squash.describe(path).to_bytes())
    return path, content


# ---------------------------------------------------------------------------------- what it takes


@pytest.mark.parametrize(
    "kind", ["oci", "oci-archive", "oci-archive.gz", "docker-archive", "docker-archive.gz"]
)
def test_a_real_image_that_skopeo_wrote_has_the_tree_of_the_pulled_one(
    run: Runner, debian_image: str, workdir: Path, tmp_path: Path, kind: str
) -> None:
    path = workdir / "image"
    transport, _, packed = kind.partition(".")
    copy(debian_image, f"{transport}:{path}:debian:12")
    if packed:
        subprocess.run(["gzip", "-1", path], check=True)
        path = path.with_name("image.gz")
    image_id = imported(run, readable(path), "debian:12")
    elsewhere = replace(run, store=run.store.with_name("pulled"))
    assert elsewhere("shifterimg", "pull", debian_image).returncode == 0
    pulled, expected = described(elsewhere, debian_image)
    ours, content = described(run, "debian:12")
    assert content["config"] == expected["config"]
    assert content["recipe"] == expected["recipe"]
    if transport == "docker-archive":
        assert tree(unpacked(ours, tmp_path / "a")) == tree(unpacked(pulled, tmp_path / "b"))
    else:
        # The registry's own manifest: the very same image.
        assert image_id == pulled.stem
    assert run("shifter-admin", "verify").returncode == 0
    assert left_over(run.store) == []


def test_what_was_pulled_is_not_built_again_when_it_is_imported_and_vice_versa(
    run: Runner, faulty_registry: faulty.Registry, workdir: Path
) -> None:
    image = demo()
    name = faulty_registry.add("demo", "1", image)
    path = stored.written(workdir / "layout", stored.files({"": image}))
    for first, second in (("pull", "import"), ("import", "pull")):
        arguments: dict[str, list[str | Path]] = {"pull": [name], "import": [path, "demo:1"]}
        there = replace(run, store=run.store.with_name(f"{first}-first"))
        done = there("shifterimg", first, *arguments[first])
        assert done.returncode == 0, done.stderr
        before = {path: path.stat().st_mtime_ns for path in there.store.rglob("images/*/*")}
        assert before
        shutil.rmtree(there.store / "cache/blobs")
        (there.store / "cache/blobs").mkdir()
        os.chown(there.store / "cache/blobs", run.user.uid, run.user.gid)
        done = there("shifterimg", second, *arguments[second])
        assert done.returncode == 0, done.stderr
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert len(list(there.store.rglob("images/*/*"))) == len(before)
        assert os.listdir(there.store / "cache/blobs") == []
        ids = {there("shifterimg", "lookup", each).stdout for each in (name, "demo:1")}
        assert len(ids) == 1


def test_a_docker_archive_has_the_digest_that_skopeo_gives_it_however_it_is_stored(
    run: Runner, workdir: Path
) -> None:
    image = demo()
    plain = stored.saved(workdir / "plain.tar", stored.entries(image, ["demo:1"]))
    shown = subprocess.run(
        ["skopeo", "inspect", "--raw", f"docker-archive:{plain}"], capture_output=True, check=True
    )
    members, entry = stored.entries(image, ["demo:1"])
    # What saves space: layers compressed in the archive, one of them as zstd, and hard links.
    squeezed = [
        replace(each, data=images.packed(each.data, "gzip" if n % 2 else "zstd").blob)
        if str(each.name).endswith("layer.tar") and each.data
        else each
        for n, each in enumerate(members)
    ]
    links = [
        images.hardlink(each.name, str(members[2].name)[:64] + "/layer.tar")
        if each.type == b"2"
        else each
        for each in members
    ]
    whole = workdir / "whole.tar.gz"
    whole.write_bytes(gzip.compress(plain.read_bytes()))
    found = set()
    for number, path in enumerate(
        [
            plain,
            whole,
            stored.saved(workdir / "squeezed.tar", (squeezed, entry)),
            stored.saved(workdir / "links.tar", (links, entry)),
        ]
    ):
        found.add(imported(run, path, f"demo:{number}"))
    assert len(found) == 1
    digest = json.loads(run("shifterimg", "lookup", "--json", "demo:0").stdout)["digest"]
    assert digest == f"sha256:{hashlib.sha256(shown.stdout).hexdigest()}"
    listed = subprocess.run(
        ["unsquashfs", "-l", run("shifterimg", "path", "demo:0").stdout.strip()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"squashfs-root/b", "squashfs-root/etc/motd"} < set(listed.stdout.splitlines())


def test_an_archive_that_is_both_is_what_its_manifest_says(run: Runner, workdir: Path) -> None:
    """As docker writes them from version 25 on."""
    image = demo()
    document = image.content
    entry = {
        "Config": stored.blob(document["config"]["digest"]),
        "RepoTags": ["demo:1"],
        "Layers": [stored.blob(layer["digest"]) for layer in document["layers"]],
    }
    files = stored.files({"1": image})
    both = stored.packed(
        workdir / "both.tar", {**files, "manifest.json": json.dumps([entry]).encode()}
    )
    imported(run, both)
    found = json.loads(run("shifterimg", "lookup", "--json", "demo:1").stdout)
    assert found["digest"] == image.digest


def test_one_of_several_images_is_chosen_by_its_name(run: Runner, workdir: Path) -> None:
    one, two = demo(b"one"), demo(b"two")
    layout = stored.written(workdir / "layout", stored.files({"a:1": one, "b:1": two}))
    saved = stored.saved(
        workdir / "saved.tar", stored.entries(one, ["a:1", "a:one"]), stored.entries(two, ["b:1"])
    )
    for path in (layout, saved):
        first = imported(run, path, "a:1")
        assert imported(run, path, "docker.io/library/a:1") == first
        assert imported(run, path, "x", "--ref", "a:1") == first
        assert imported(run, path, "x", "--ref", "b:1") != first
        done = run("shifterimg", "import", path, "x")
        assert done.returncode == 66
        assert "there are 2 images in it, and none is 'docker.io/library/x:latest'" in done.stderr
        assert "hint: choose with --ref one of: 'a:1'" in done.stderr
        done = run("shifterimg", "import", "--ref", "c:1", path, "x")
        assert done.returncode == 66
        assert "there is no image 'c:1' in it" in done.stderr
    assert imported(run, layout, "y", "--ref", one.digest) == imported(run, layout, "a:1")
    nameless = stored.saved(workdir / "nameless.tar", stored.entries(one), stored.entries(two))
    refused(replace(run, store=workdir / "other"), nameless, "2 images alike in it", 66)
    imported(run, nameless, "z", "--ref", one.content["config"]["digest"])


@pytest.mark.parametrize("shape", ["nested", "twice nested", "flat", "skopeo"])
def test_the_image_for_the_platform_is_chosen(
    run: Runner, registry: str, workdir: Path, tmp_path: Path, shape: str
) -> None:
    made = {
        platform: images.image([images.layer([images.file("platform", platform.encode())])])
        for platform in ("linux/arm64/v8", "linux/amd64", "linux/s390x")
    }
    index = images.index(made)
    path = workdir / "layout"
    if shape == "skopeo":
        images.push(registry, "import-multi", "1", index)
        copy(f"{registry}/import-multi:1", f"oci:{path}:multi", "--all")
    elif shape == "flat":
        names = ("os", "architecture", "variant")
        listed = [
            stored.described(image, "m", platform=dict(zip(names, p.split("/"), strict=False)))
            for p, image in made.items()
        ]
        stored.written(
            path,
            {
                **stored.files({"": index}),
                "index.json": images.encode({"schemaVersion": 2, "manifests": listed}),
            },
        )
    else:
        document = {
            "schemaVersion": 2,
            "mediaType": images.OCI_INDEX,
            "manifests": [images.descriptor(index.document, index.media_type)],
        }
        outer = replace(images.seal(document), children=(index,))
        stored.written(path, stored.files({"m": outer if shape == "twice nested" else index}))
    readable(path)
    for option, expected in (
        ((), "linux/amd64"),
        (("--platform", "linux/arm64"), "linux/arm64/v8"),
    ):
        imported(run, path, "multi:1", *option)
        squashfs, content = described(run, "multi:1", *option)
        assert content["digest"] == made[expected].digest
        root = unpacked(squashfs, tmp_path / expected.replace("/", "-"))
        assert (root / "platform").read_text() == expected
    done = run("shifterimg", "import", "--platform", "linux/riscv64", path, "multi:1")
    assert done.returncode == 65
    assert "is not made for 'linux/riscv64'" in done.stderr
    if shape in ("nested", "skopeo"):
        assert run("shifterimg", "lookup", f"multi@{index.digest}").returncode == 0
        imported(run, path, f"other@{index.digest}")


def test_a_digest_in_the_name_is_checked(run: Runner, workdir: Path) -> None:
    image = demo()
    path = stored.written(workdir / "layout", stored.files({"": image}))
    imported(run, path, f"demo@{image.digest}")
    wrong = f"sha256:{'0' * 64}"
    done = run("shifterimg", "import", path, f"demo@{wrong}")
    assert done.returncode == 65
    assert f"has the digest {image.digest}, not {wrong}" in done.stderr


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe", "ü".encode(), b" ", b"-x", b"a'b\"c"])
def test_a_path_may_have_any_name(run: Runner, workdir: Path, name: bytes) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(workdir), name))
    stored.packed(Path(path), stored.files({"": demo()}))
    imported(run, path)
    done = run("shifterimg", "import", f"{path}-missing", "demo:1")
    assert done.returncode == 66
    assert len(done.stderr.splitlines()) == 2


def test_a_path_may_be_relative_or_lead_over_links(run: Runner, workdir: Path) -> None:
    stored.packed(run.home / "demo.tar", stored.files({"": demo()}))
    (workdir / "link").symlink_to("home/demo.tar")
    (workdir / "again").symlink_to("home")
    ids = {
        imported(run, path)
        for path in ("demo.tar", "./demo.tar", "../link", workdir / "again/../home/demo.tar")
    }
    assert len(ids) == 1


# ---------------------------------------------------------------------------------- squashfs


@pytest.fixture
def busybox(workdir: Path) -> Path:
    """A tree that can be run."""
    root = workdir / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("service:x:777:777::/:/bin/false\n")
    return root


def mksquashfs(root: Path, path: Path, *options: str) -> Path:
    quiet = ("-noappend", "-quiet", "-no-progress")
    subprocess.run(["mksquashfs", root, path, *quiet, *options], check=True, capture_output=True)
    return path


@pytest.mark.parametrize("tool", [*COMPRESSORS, "tar2sqfs"])
def test_a_squashfs_file_is_taken_as_it_is_marked_and_run(
    run: Runner, workdir: Path, busybox: Path, tool: str
) -> None:
    path = workdir / "image.squashfs"
    if tool == "tar2sqfs":
        archive = subprocess.run(["tar", "-C", busybox, "-c", "."], capture_output=True, check=True)
        subprocess.run(["tar2sqfs", "-q", path], input=archive.stdout, check=True)
    else:
        mksquashfs(busybox, path, "-comp", tool)
    image_id = imported(run, readable(path))
    ours, content = described(run, "demo:1")
    given, stays = path.read_bytes(), ours.read_bytes()
    (used,) = struct.unpack("<Q", given[40:48])
    assert stays[:used] == given[:used]
    assert hashlib.sha256(stays).hexdigest() == image_id
    assert content == {
        "v": 1,
        "recipe": "imported",
        "digest": f"sha256:{hashlib.sha256(given[:used]).hexdigest()}",
        "platform": "",
        "layers": [],
        "config": {"cmd": [], "entrypoint": [], "env": [], "labels": {}, "user": "", "workdir": ""},
    }
    # What a program that has no JSON reader looks at.
    assert b"\0imported=yes\0" in stays[used:]
    assert run("shifter-admin", "verify").returncode == 0
    done = run("shifter", "--image=demo:1", "/bin/busybox", "cat", "/etc/passwd")
    assert (done.returncode, done.stderr) == (0, "")
    assert "service:x:777:" in done.stdout
    assert f"{run.user.name}:x:{run.user.uid}:" in done.stdout


def test_a_squashfs_file_gives_the_same_image_in_every_store_and_once(
    run: Runner, workdir: Path, busybox: Path
) -> None:
    path = readable(mksquashfs(busybox, workdir / "image.squashfs"))
    image_id = imported(run, path)
    before = {path: path.stat().st_mtime_ns for path in (run.store / "images").rglob("*")}
    assert imported(run, path, "other:1") == image_id
    assert {path: path.stat().st_mtime_ns for path in (run.store / "images").rglob("*")} == before
    elsewhere = replace(run, store=run.store.with_name("elsewhere"))
    assert imported(elsewhere, path, "third:1", "--platform", "linux/arm64") == image_id


def test_nobody_takes_a_description_at_its_word(
    run: Runner, workdir: Path, busybox: Path, registry: str
) -> None:
    """What follows a squashfs is not read: whoever wrote it may have written anything."""
    images.push(registry, "import-own", "1", demo())
    assert run("shifterimg", "pull", f"{registry}/import-own:1").returncode == 0
    own, said = described(run, f"{registry}/import-own:1")
    elsewhere = replace(run, store=run.store.with_name("elsewhere"))
    image_id = imported(elsewhere, own)
    assert image_id != own.stem
    _, content = described(elsewhere, "demo:1")
    assert content["recipe"] == "imported"
    assert content["digest"] != said["digest"]
    assert run("shifterimg", "lookup", f"{registry}/import-own:1").stdout.strip() == own.stem
    # With other words behind it, it is the same squashfs.
    path = mksquashfs(busybox, workdir / "image.squashfs", "-nopad")
    once = imported(run, readable(path), "a")
    path.write_bytes(path.read_bytes() + bytes(9000) + b"shifter-lite image 1 2 0\n{}")
    assert imported(run, path, "b") == once


def test_a_squashfs_file_that_is_cut_or_odd_is_refused(
    run: Runner, workdir: Path, busybox: Path
) -> None:
    path = readable(mksquashfs(busybox, workdir / "image.squashfs"))
    whole = path.read_bytes()
    for data, reason in {
        whole[: len(whole) // 2]: r"says that it uses \d+",
        whole[:90]: "it has 90 bytes",
        b"sqsh" + whole[4:]: "big-endian",
        whole[:20] + b"\2" + whole[21:]: "compressor has the number 2",
        whole[:28] + b"\3" + whole[29:]: "version 3.0",
        whole[:64] + bytes(8) + whole[72:]: "tables lie outside",
    }.items():
        path.write_bytes(data)
        refused(run, path, reason)


# ---------------------------------------------------------------------------------- what it refuses


def layer_of(image: images.Image, number: int = 0) -> str:
    digest: str = image.content["layers"][number]["digest"]
    return stored.blob(digest)


HUGE = b'{"a":"' + b"x" * (5 << 20) + b'"}'
ODD_INDEXES = {
    b"": "index.json is not JSON",
    b"[]": "index.json is not a JSON object",
    b"{" * 100_000: "index.json is not JSON",
    HUGE: "index.json has 5242888 bytes",
    b"{}": "the index has no list of manifests",
    b'{"manifests": {}}': "the index has no list of manifests",
    b'{"manifests": [1]}': "no proper media type, sha256 digest and size",
    b'{"manifests": [null]}': "no proper media type, sha256 digest and size",
    b'{"manifests": [{"mediaType": 1, "digest": [], "size": "x"}]}': "no proper media type",
    b'{"manifests": []}': "there are 0 images in it",
}


@pytest.mark.parametrize("index", ODD_INDEXES)
def test_an_index_of_odd_types_is_refused(run: Runner, workdir: Path, index: bytes) -> None:
    files = {**stored.files({"": demo()}), "index.json": index}
    code = 66 if index == b'{"manifests": []}' else 65
    refused(run, stored.packed(workdir / "odd.tar", files), ODD_INDEXES[index], code)
    refused(run, stored.written(workdir / "odd", files), ODD_INDEXES[index], code)


def test_odd_annotations_and_platforms_name_nothing_and_break_nothing(
    run: Runner, workdir: Path
) -> None:
    image = demo()
    odd: tuple[object, ...] = (1, [], None, {stored.REF: 1}, {stored.REF: None})
    for number, said in enumerate(odd):
        files = stored.files({"": image}, annotations=said, platform=None)
        imported(run, stored.packed(workdir / f"{number}.tar", files), f"demo:{number}")
    files = stored.files({"": image}, platform="linux/amd64")
    elsewhere = replace(run, store=workdir / "other")
    refused(elsewhere, stored.packed(workdir / "odd.tar", files), "a platform that is none")


def test_an_error_does_not_quote_megabytes(run: Runner, workdir: Path) -> None:
    image = demo()
    for more in (
        {"platform": {"os": "o" * 70_000, "architecture": "a"}},
        {"platform": {"os": "\u0001" * 70_000, "architecture": "\U0001f600" * 70_000}},
    ):
        path = stored.packed(workdir / "odd.tar", stored.files({"": image}, **more))
        said = refused(run, path, "is not made for 'linux/")
        assert len(said) < 10_000


@pytest.mark.parametrize("directory", [True, False])
def test_a_layout_that_is_not_what_it_says_is_refused(
    run: Runner, workdir: Path, directory: bool
) -> None:
    image = demo()
    document = stored.blob(image.digest)
    config = stored.blob(image.content["config"]["digest"])
    layer = layer_of(image, 1)
    path = workdir / "layout"

    def check(reason: str, **files: bytes | None) -> None:
        named = {**stored.files({"": image}), **files}
        there = {name: data for name, data in named.items() if data is not None}
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True) if path.is_file() else None
        stored.written(path, there) if directory else stored.packed(path, there)
        refused(run, path, reason)
        shutil.rmtree(path) if directory else path.unlink()

    check("has? n.* 'oci-layout'", **{"oci-layout": None})
    check("of version '2.0.0'", **{"oci-layout": b'{"imageLayoutVersion": "2.0.0"}'})
    check("of version None", **{"oci-layout": b"{}"})
    check("oci-layout is not JSON", **{"oci-layout": b"1.0.0"})
    check("has no file 'blobs/sha256/.*', which the image needs", **{document: None})
    check("has no file 'blobs/sha256/.*', which the image needs", **{config: None})
    check("layer 2 .* has no file 'blobs/sha256/.*', which the image needs", **{layer: None})
    check("the manifest has the digest", **{document: b"{}"})
    check("the image config has the digest", **{config: b"{}"})
    check(r"layer 2 .*: it has 3 bytes, not \d+", **{layer: b"cut"})
    spoilt = bytearray(image.blobs[image.content["layers"][1]["digest"]])
    spoilt[600] ^= 1
    check("layer 2 .*: it has the wrong digest", **{layer: bytes(spoilt)})


def test_what_is_no_image_is_refused_in_a_layout_as_in_a_registry(
    run: Runner, workdir: Path
) -> None:
    image = demo()
    for change, reason in {
        "schema 1": "docker schema 1",
        "chart": "not a container image: its config is a 'application/vnd.cncf.helm.config",
        "foreign": "layer 1 is foreign",
        "kind": "not a container image: its manifest is a 'application/x-odd'",
    }.items():
        document = image.content
        if change == "schema 1":
            document |= {"schemaVersion": 1, "mediaType": faulty.SCHEMA_1}
        elif change == "chart":
            document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        elif change == "foreign":
            document["layers"][0]["mediaType"] += ".nondistributable"
        else:
            document["mediaType"] = "application/x-odd"
        made = images.seal(document, image.blobs)
        # What the index says of it does not matter.
        files = stored.files({"": made}, mediaType="application/x-odd")
        refused(run, stored.packed(workdir / "odd.tar", files), reason)


def test_a_link_in_a_layout_is_not_followed(run: Runner, workdir: Path) -> None:
    image = demo()
    outside = stored.written(workdir / "outside", stored.files({"": image}))
    for name in ("index.json", "oci-layout", "blobs", "blobs/sha256", layer_of(image)):
        path = stored.written(workdir / "layout", stored.files({"": image}))
        thing = path / name
        shutil.rmtree(thing) if thing.is_dir() else thing.unlink()
        thing.symlink_to(outside / name)
        refused(run, path, "symbolic link")
        shutil.rmtree(path)


def test_a_blob_that_is_no_file_is_refused_and_waited_for_by_nobody(
    run: Runner, workdir: Path
) -> None:
    image = demo()
    for make in (os.mkdir, os.mkfifo):
        path = stored.written(workdir / "layout", stored.files({"": image}))
        (path / layer_of(image)).unlink()
        make(path / layer_of(image))
        refused(run, readable(path), "is not a plain file")
        shutil.rmtree(path)


DOCKER_LISTS = {
    b"": "manifest.json is not JSON",
    b"{}": "manifest.json is no list of images",
    b"[]": "manifest.json is no list of images",
    b"[1]": "without a Config or a list of Layers",
    b'[{"Config": 1, "Layers": []}]': "without a Config or a list of Layers",
    b'[{"Config": "c", "Layers": "x"}]': "without a Config or a list of Layers",
    b'[{"Config": "c", "Layers": [1]}]': "without a Config or a list of Layers",
    b'[{"Config": "c", "RepoTags": 1, "Layers": []}]': "has no file 'c'",
    b'[{"Config": "../c", "Layers": []}]': "a name leads out of it",
    b'[{"Config": "manifest.json", "Layers": []}]': "image config is not a JSON object",
    HUGE: "manifest.json has 5242888 bytes",
}


@pytest.mark.parametrize("listed", DOCKER_LISTS)
def test_a_docker_archive_of_odd_types_is_refused(
    run: Runner, workdir: Path, listed: bytes
) -> None:
    members, _ = stored.entries(demo())
    path = stored.packed(workdir / "odd.tar", {"manifest.json": listed}, *members)
    refused(run, path, DOCKER_LISTS[listed])


# What to change of a docker archive: its members, or the layers that its list names.
Change = Callable[[list[images.Entry], list[Any]], object]


def of_member(number: int, data: bytes) -> Change:
    """Return what gives the member NUMBER other DATA."""

    def change(members: list[images.Entry], _: list[Any]) -> None:
        members[number] = replace(members[number], data=data)

    return change


GZIPPED = images.packed(b"x" * 3000).blob
DOCKER_LIES: dict[str, Change] = {
    "has another digest": of_member(0, b"{}"),
    "the image has 2 layers but 3 diff_ids": lambda _, layers: layers.pop(),
    "the image has 4 layers but 3 diff_ids": lambda _, layers: layers.append("x"),
    "layer 2: .* has no file": lambda members, _: members.pop(6),
    "layer 1: .* but not as a plain file": lambda members, layers: operator.setitem(
        layers, 0, members[1].name
    ),
    "layer 3: a name leads out of it": lambda _, layers: operator.setitem(layers, 2, "../x"),
    "layer 2 .*: it has the wrong digest": of_member(6, images.tar([])),
    "layer 2 .*: it has the wrong digest.*": of_member(6, GZIPPED),
    "layer 1: its gzip data is cut off": of_member(3, GZIPPED[:-1]),
    "layer 1: it is compressed with xz": of_member(3, b"\xfd7zXZ\0" + bytes(600)),
    "a name leads out of it": lambda members, _: members.append(images.file("../../etc/x", b"x")),
}


@pytest.mark.parametrize("reason", DOCKER_LIES)
def test_a_docker_archive_that_is_not_what_it_says_is_refused(
    run: Runner, workdir: Path, reason: str
) -> None:
    members, entry = stored.entries(demo())
    DOCKER_LIES[reason](members, entry["Layers"])
    refused(run, stored.saved(workdir / "odd.tar", (members, entry)), reason)


def test_what_is_no_archive_of_an_image_is_refused(run: Runner, workdir: Path) -> None:
    path = workdir / "thing"
    for data, reason in {
        b"": "is no image",
        b"#!/bin/sh\n" * 100: "is no archive of an image: from byte 0 on",
        images.tar([]): "is no image: it has neither 'oci-layout' nor 'manifest.json'",
        images.tar([images.file("etc/passwd", b"x")]): "is no image",
        images.tar([images.file("repositories", b"{}")]): "docker's legacy format",
        images.tar([images.file("../x", b"x")]): "leads out of it",
        b"BZh9" + bytes(100): "is compressed",
        b"\xfd7zXZ\0" + bytes(100): "is compressed",
        b"\x28\xb5\x2f\xfd" + bytes(100): "is compressed",
        b"\x1f\x8b" + bytes(100): "gzip data is damaged",
        gzip.compress(b"x" * 600): "is no archive of an image",
    }.items():
        path.write_bytes(data)
        refused(run, path, reason)


def test_what_is_no_archive_is_not_called_broken(run: Runner, workdir: Path) -> None:
    path = workdir / "thing"
    sif = b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\x0001\0" + bytes(4096)
    for data, hint in {
        sif: "import the squashfs in it: apptainer sif list FILE",
        b"#!/bin/sh\n" * 100: "imported are OCI layouts",
        gzip.compress(b"x" * 600): "imported are OCI layouts",
    }.items():
        path.write_bytes(data)
        assert f"hint: {hint}" in refused(run, path, "")


# ---------------------------------------------------------------------------------- its platform


def test_an_import_is_held_against_the_platform_as_its_pull_is(run: Runner, workdir: Path) -> None:
    layers = [images.layer([images.file("x", b"x")])]
    alien = images.image(layers, platform="linux/s390x")
    ours = images.image([images.layer([images.file("y", b"y")])])
    unsaid = {
        "schemaVersion": 2,
        "mediaType": images.OCI_INDEX,
        "manifests": [images.descriptor(e.document, e.media_type) for e in (alien, ours)],
    }
    files = stored.files({"": replace(images.seal(unsaid), children=(alien, ours))})
    for path in (
        stored.packed(workdir / "oci.tar", stored.files({"": alien})),
        stored.saved(workdir / "docker.tar", stored.entries(alien)),
        stored.packed(workdir / "unsaid.tar", files),
    ):
        said = refused(run, path, "the image is made for 'linux/s390x', not for 'linux/")
        assert "--platform" in said
        elsewhere = replace(run, store=workdir / path.stem)
        imported(elsewhere, path, "demo:1", "--platform", "linux/s390x")
        # Nor when it is here already.
        assert elsewhere("shifterimg", "import", path, "demo:1").returncode == 65


def test_an_archive_without_the_platforms_content_says_which_it_has(
    run: Runner, workdir: Path
) -> None:
    ours, other = demo(), images.image([images.layer([])], platform="linux/s390x")
    index = images.index({"linux/amd64": ours, "linux/s390x": other})
    files = stored.files({"": index})
    for digest in (ours.digest, *ours.blobs):
        files.pop(stored.blob(digest), None)
    path = stored.packed(workdir / "docker29.tar", files)
    said = refused(run, path, "and does not contain it")
    assert "hint: take what it contains: --platform linux/s390x" in said
    imported(run, path, "demo:1", "--platform", "linux/s390x")


@pytest.mark.parametrize("form", ["oci", "docker"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_cut_anywhere_is_refused(
    run: Runner, workdir: Path, form: str, packed: bool
) -> None:
    path = workdir / "whole.tar"
    if form == "oci":
        stored.packed(path, stored.files({"": demo()}))
    else:
        stored.saved(path, stored.entries(demo()))
    whole = path.read_bytes()
    # What follows the last member says only that nothing is missing.
    whole = whole[: len(whole) - 1024]
    data = gzip.compress(whole) if packed else whole
    for tenth in range(1, 10):
        path.write_bytes(data[: len(data) * tenth // 10 | 1])
        refused(run, path, "cut off")


def test_a_path_that_is_not_there_or_not_a_file_is_said_to_be_so(
    run: Runner, workdir: Path
) -> None:
    os.mkfifo(workdir / "fifo")
    (workdir / "empty").mkdir()
    (workdir / "loop").symlink_to("loop")
    (workdir / "dangling").symlink_to("nothing")
    (workdir / "file").write_bytes(b"")
    for name in ("missing", "loop", "dangling", "file/below", "n" * 300, "missing/below"):
        done = run("shifterimg", "import", workdir / name, "demo:1")
        assert (done.returncode, done.stdout) == (66, ""), name
        assert done.stderr.startswith("shifterimg: there is no file '")
    assert not run.store.exists()
    refused(run, workdir / "empty", "is no OCI layout: it has no 'oci-layout'")
    refused(run, workdir / "fifo", "is not a plain file")
    refused(run, "/dev/zero", "is not a plain file")
    refused(run, "/", "is no OCI layout")
    done = run("shifterimg", "import", workdir / "empty", "Not A Name")
    assert done.returncode == 64
    done = run("shifterimg", "import", "--ref", "x" * 256, workdir / "empty", "demo:1")
    assert done.returncode == 64


# ---------------------------------------------------------------------------------- whose it is


@pytest.fixture
def theirs(asker: Runner, workdir: Path) -> Path:
    """A directory of the asker's own, which everybody may enter."""
    path = workdir / "theirs"
    path.mkdir()
    os.chown(path, asker.user.uid, asker.user.gid)
    return path


@needs_root
def test_a_sites_worker_imports_what_its_user_may_read(
    site: Runner, asker: Runner, theirs: Path
) -> None:
    layout = stored.written(theirs / "layout", stored.files({"": demo()}))
    archive = stored.saved(theirs / "saved.tar", stored.entries(demo()))
    name = f"localhost/{asker.user.name}/demo"
    with running(site, "shifter-worker", "run"):
        for number, path in enumerate((layout, archive)):
            imported(asker, path, f"{name}:{number}")
        for path in (theirs, archive):
            os.chown(path, asker.user.uid, asker.user.gid)
        # His own, which the worker's account may not read.
        archive.chmod(0o600)
        done = asker("shifterimg", "import", archive, f"{name}:2")
        assert done.returncode == 77
        assert f"the worker may not read '{archive}'" in done.stderr
        assert f"hint: let it: chmod a+r '{archive}'" in done.stderr
        archive.chmod(0o644)
        theirs.chmod(0o700)
        done = asker("shifterimg", "import", archive, f"{name}:2")
        assert done.returncode == 77
        assert f"hint: let it: chmod a+x '{theirs}'" in done.stderr
        theirs.chmod(0o711)
        imported(asker, archive, f"{name}:2")
    # The worker was killed.
    left = left_over(site.store)
    assert [path for path in left if not path.startswith(("locks/", "workers/"))] == []


@needs_root
def test_a_worker_reads_for_nobody_what_he_may_not_read_himself(
    site: Runner, asker: Runner, theirs: Path
) -> None:
    image = demo()
    # What only the worker may read: the service account's own, and a third user's by its group.
    secret = stored.packed(site.home / "secret.tar", stored.files({"": image}))
    os.chown(secret, site.user.uid, site.user.gid)
    shared = stored.packed(theirs / "shared.tar", stored.files({"": image}))
    os.chown(shared, 1, site.user.gid)
    (theirs / "link.tar").symlink_to(secret)
    private = site.home / "private"
    private.mkdir(mode=0o700)
    os.chown(private, site.user.uid, site.user.gid)
    inside = stored.packed(private / "open.tar", stored.files({"": image}))
    layout = stored.written(theirs / "layout", stored.files({"": image}))
    (layout / layer_of(image)).unlink()
    (layout / layer_of(image)).symlink_to(site.home / "blob")
    for path in (secret, shared):
        path.chmod(0o640)
    with running(site, "shifter-worker", "run"):
        for path, reason in {
            secret: "not everybody may read it",
            shared: "not everybody may read it",
            theirs / "link.tar": "is a symbolic link",
            inside: "not everybody may enter it",
            private / "missing": "not everybody may enter it",
            layout: "is a symbolic link",
            site.store / "spool/work/x": "not everybody may enter it",
            Path("/proc/self/environ"): "is not a directory, or a symbolic link",
            Path("/etc/shadow"): "not everybody may read it",
        }.items():
            done = forged(asker, site, path)
            assert done.returncode in (65, 77), path
            assert reason in done.stderr, path
    assert spool(site.store, "done") == []
    assert not list(site.store.rglob("*.squashfs"))


def forged(
    asker: Runner, site: Runner, path: Path, name: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Ask for PATH just as it is, as no client of ours would."""
    name = name or f"localhost/{asker.user.name}/x:1"
    script = (
        "import sys; from shifter_lite.cli import boundary, importing, shifterimg\n"
        "importing._resolved = lambda path: path\n"
        f"sys.argv[1:] = ['import', {str(path)!r}, {name!r}]\n"
        "shifterimg.main()\n"
    )
    return subprocess.run(
        [*asker.user.prefix, installed("python"), "-c", script],
        env=asker.environment,
        cwd=asker.home,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_root
def test_an_ordinary_user_cannot_take_a_name_that_others_trust(
    site: Runner, asker: Runner, theirs: Path
) -> None:
    path = stored.packed(theirs / "demo.tar", stored.files({"": demo()}))
    mine = f"localhost/{asker.user.name}/demo:1"
    with running(site, "shifter-worker", "run"):
        for name in ("debian:12", "localhost/root/demo", f"localhost:5000/{asker.user.name}/x"):
            done = asker("shifterimg", "import", path, name)
            assert done.returncode == 77
            assert "may not take the name" in done.stderr
            assert f"localhost/{asker.user.name}/NAME:TAG" in done.stderr
        imported(asker, path, mine)
        # The account that the workers run as decides what all users run, anyway.
        readable(theirs)
        imported(site, path, "debian:12")
    assert asker("shifterimg", "lookup", "debian:12").returncode == 0


@needs_root
def test_a_long_reason_reaches_who_asks(site: Runner, asker: Runner, theirs: Path) -> None:
    platform = {"os": "\U0001f600" * 100_000, "architecture": "\u0001" * 100_000}
    files = stored.files({"": demo()}, platform=platform)
    path = stored.packed(theirs / "odd.tar", files)
    with running(site, "shifter-worker", "run"):
        done = asker("shifterimg", "import", path, f"localhost/{asker.user.name}/x")
    assert done.returncode == 65
    assert "is not made for" in done.stderr


@needs_root
def test_who_imports_is_the_requests_owner_in_every_record(
    site: Runner, asker: Runner, theirs: Path
) -> None:
    path = stored.packed(theirs / "demo.tar", stored.files({"": demo()}))
    with running(site, "shifter-worker", "run"):
        imported(asker, path, f"localhost/{asker.user.name}/demo:1")
    (name,) = spool(site.store, "done")
    (request,) = (site.store / "spool/done").rglob(name)
    assert request.stat().st_uid == asker.user.uid
    fields = json.loads(request.read_bytes())
    assert (fields["v"], fields["path"], fields["ref"]) == (2, str(path), "")


def test_a_pull_is_written_as_ever_and_an_import_as_something_else() -> None:
    """A worker that knows version 1 only refuses the second, and must not pull instead."""
    image = Reference.parse("demo:1")
    store = "ab" * 16
    pull = Request.new(store=store, image=image, platform="linux/amd64")
    assert set(json.loads(pull.to_bytes())) == {
        *("v", "store", "name", "uid", "time", "image", "platform"),
    }
    assert json.loads(pull.to_bytes())["v"] == 1
    path = "/a/\udcff\n"
    wanted = Request.new(store=store, image=image, platform="linux/amd64", path=path, ref="r")
    assert json.loads(wanted.to_bytes())["v"] == 2
    assert Request._parse(wanted.to_bytes()) == wanted


# ---------------------------------------------------------------------------------- and if it dies


@pytest.mark.timeout(900)
def test_an_import_killed_before_any_change_is_done_again(
    workdir: Path, run: Runner, killer_program: Path
) -> None:
    root = workdir / "tree"
    stored.written(root, {"a": b"a" * 100_000})
    path = mksquashfs(root, workdir / "image.squashfs")
    killer = Killer(killer_program, run, ["shifterimg", "import", path, "demo:1"])
    calls = killer.calls(changes_only=True)
    image_id = run("shifterimg", "lookup", "demo:1").stdout.strip()
    # The others are those of a pull, which tests/test_kill.py interrupts.
    numbers = [call.number for call in calls if "/images/" in call.about]
    assert len(numbers) >= 10
    for number in range(numbers[0], numbers[-1] + 2):
        shutil.rmtree(run.store)
        assert killer.kill_before(number, changes_only=True)
        check(run, path, image_id)


@pytest.mark.timeout(900)
def test_an_import_killed_at_any_moment_is_done_again(run: Runner, workdir: Path) -> None:
    layers = [images.layer([images.file(f"f{n}", os.urandom(6_000_000))]) for n in range(3)]
    path = stored.packed(workdir / "demo.tar", stored.files({"": images.image(layers)}))
    image_id = imported(run, path)
    whole = min(duration(run, path) for _ in range(3))
    killed = 0
    for number in range(MOMENTS):
        shutil.rmtree(run.store)
        process = subprocess.Popen(
            [*run.user.prefix, installed("shifterimg"), "import", path, "demo:1"],
            env=run.environment,
            cwd=run.home,
            stdout=subprocess.DEVNULL,
        )
        try:
            # The first quarter is Python starting.
            process.wait(whole * (0.25 + 0.75 * number / MOMENTS))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        check(run, path, image_id)
    assert killed > MOMENTS / 3


def test_layers_that_the_cache_has_spoilt_are_read_again(run: Runner, workdir: Path) -> None:
    layers = [images.layer([images.file(f"{n}", os.urandom(300_000))]) for n in range(3)]
    for number in range(2):
        image = images.image(layers, settings={"Env": [f"A={number}"]})
        path = stored.packed(workdir / f"{number}.tar", stored.files({"": image}))
        imported(run, path, f"demo:{number}")
        cached = [each for each in (run.store / "cache/blobs").glob("??/*") if not each.suffix]
        assert len(cached) == 3
        for each in cached:
            assert hashlib.sha256(each.read_bytes()).hexdigest() == each.name
            each.write_bytes(bytes(each.stat().st_size))


def duration(run: Runner, path: Path) -> float:
    """Return how many seconds an import of PATH into a new store takes."""
    shutil.rmtree(run.store)
    started = time.monotonic()
    assert run("shifterimg", "import", path, "demo:1").returncode == 0
    return time.monotonic() - started


def check(run: Runner, path: Path, image_id: str) -> None:
    """Check that the next import of PATH succeeds, and leaves nothing of the dead one."""
    assert imported(run, path) == image_id
    assert run("shifter-admin", "verify").returncode == 0
    # What the dead client itself was writing is swept with time.
    swept = [str(path) for path in (run.store / "status").iterdir()]
    left = [
        path
        for path in left_over(run.store)
        if path not in swept and not path.startswith(("spool/tmp/", "status/", ".store."))
    ]
    assert left == []
    assert len(list((run.store / "images").rglob("*.squashfs"))) == 1


def test_an_import_that_is_interrupted_leaves_nothing(run: Runner, workdir: Path) -> None:
    path = workdir / "large.squashfs"
    root = workdir / "tree"
    root.mkdir()
    with (root / "a").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 20))
    mksquashfs(root, path, "-noI", "-noD")
    with running(run, "shifterimg", "import", str(path), "demo:1") as process:
        until(lambda: any((run.store / "images").glob(".building.*")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    left = [path for path in run.store.rglob("*") if not path.is_dir()]
    assert left == [run.store / "store.json"]
