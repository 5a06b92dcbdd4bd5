"""Pulling, as its user sees it: real registries, real squashfs files, an ordinary user."""

import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Runner, User, installed
from tests.helpers import debian, faulty, images, stored

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and read all")


def left_over(store: Path) -> list[str]:
    """Return what is neither published nor a verified blob nor a request's last state."""
    kept = (
        "spool/done/",
        "spool/failed/",
        "images/",
        "index/images.",
        "cache/blobs/",
        "locks/publish",
        "locks/blob.",
        "confirmed/",
    )
    paths = [path for path in store.rglob("*") if not path.is_dir()]
    names = [str(path.relative_to(store)) for path in paths]
    return [
        name
        for name in names
        if name != "store.json" and (not name.startswith(kept) or "/." in name)
    ] + [str(path) for path in (store / "status").iterdir()]


def small() -> images.Image:
    layer = images.layer([images.directory("etc"), images.file("etc/motd", b"hello\n")])
    return images.image([layer], settings={"Env": ["GREETING=hello world"]})


def unpacked(path: Path, into: Path) -> Path:
    subprocess.run(["unsquashfs", "-q", "-n", "-d", into, path], check=True, capture_output=True)
    return into


def test_a_real_image_is_pulled_and_listed_and_found(run: Runner, debian_image: str) -> None:
    done = run("shifterimg", "pull", debian_image)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d Pulling Image: docker:{debian_image}, status: READY\n",
        done.stdout,
    )
    assert done.stderr == ""
    listed = run("shifterimg", "images")
    assert re.fullmatch(
        rf"\S+ +docker +READY +[0-9a-f]{{10}}   \S+ {debian_image} *\n", listed.stdout
    )
    image_id = run("shifterimg", "lookup", debian_image).stdout.strip()
    path = Path(run("shifterimg", "path", debian_image).stdout.strip())
    assert path.name == f"{image_id}.squashfs"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == image_id
    assert left_over(run.store) == []


def test_json_says_the_same_of_images_lookup_and_path(run: Runner, debian_image: str) -> None:
    run("shifterimg", "pull", debian_image)
    (listed,) = json.loads(run("shifterimg", "images", "--json").stdout)
    found = json.loads(run("shifterimg", "lookup", "--json", debian_image).stdout)
    path = json.loads(run("shifterimg", "path", "--json", debian_image).stdout)
    assert listed == found
    assert path.pop("path") == str(
        run.store / "images" / found["id"][:2] / f"{found['id']}.squashfs"
    )
    assert path == found
    assert found["name"] == debian_image
    assert found["size"] == os.path.getsize(
        json.loads(run("shifterimg", "path", "--json", debian_image).stdout)["path"]
    )


def test_an_image_is_found_by_digest_and_by_id_as_well(run: Runner, debian_image: str) -> None:
    run("shifterimg", "pull", debian_image)
    found = json.loads(run("shifterimg", "lookup", "--json", debian_image).stdout)
    repository = debian_image.rpartition(":")[0]
    for name in (f"{repository}@{found['digest']}", f"id:{found['id']}", f"docker:{debian_image}"):
        assert run("shifterimg", "lookup", name).stdout.strip() == found["id"]


@needs_root
def test_the_squashfs_holds_exactly_the_tree_that_umoci_unpacks(
    run: Runner, registry: str, debian_image: str, tmp_path: Path
) -> None:
    run("shifterimg", "pull", debian_image)
    ours = unpacked(Path(run("shifterimg", "path", debian_image).stdout.strip()), tmp_path / "ours")
    oci = f"oci:{tmp_path}/oci:x"
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{debian_image}", oci],
        check=True,
    )
    subprocess.run(
        ["umoci", "unpack", "--rootless", "--image", f"{tmp_path}/oci:x", tmp_path / "theirs"],
        check=True,
        capture_output=True,
    )
    theirs = tree(tmp_path / "theirs/rootfs")
    # For devices, which we leave out, umoci makes empty files where it is not root.
    assert tree(ours) == {
        name: what
        for name, what in theirs.items()
        if not name.startswith("dev/") or what[0] != "file"
    }


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Return path to kind, what all may do, and content; the policy is taken for granted."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("dir", status.st_mode & 0o1555 | 0o555, int(status.st_mtime))
        elif path.is_file():
            mode = status.st_mode & 0o1777 | (0o555 if status.st_mode & 0o111 else 0o444)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", mode, int(status.st_mtime), status.st_nlink, digest)
    return found


def test_pulling_again_builds_nothing_and_publishes_nothing(run: Runner, debian_image: str) -> None:
    run("shifterimg", "pull", debian_image)
    before = {path: path.stat().st_mtime_ns for path in (run.store / "images").rglob("*")}
    assert run("shifterimg", "pull", "--refresh", debian_image).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (run.store / "images").rglob("*")} == before
    assert os.listdir(run.store / "index") == ["images.0000000001.cdb"]


def test_the_same_image_under_another_name_is_not_built_again(run: Runner, registry: str) -> None:
    for name in ("one", "two"):
        images.push(registry, name, "1", small())
        assert run("shifterimg", "pull", f"{registry}/{name}:1").returncode == 0
    ids = {run("shifterimg", "lookup", f"{registry}/{name}:1").stdout for name in ("one", "two")}
    assert len(ids) == 1
    assert len(list((run.store / "images").rglob("*.squashfs"))) == 1


def test_images_that_differ_in_their_environment_only_are_two(run: Runner, registry: str) -> None:
    layer = images.layer([images.file("x", b"x")])
    for value in ("1", "2"):
        images.push(registry, "env", value, images.image([layer], settings={"Env": [f"A={value}"]}))
        assert run("shifterimg", "pull", f"{registry}/env:{value}").returncode == 0
    ids = {run("shifterimg", "lookup", f"{registry}/env:{value}").stdout for value in ("1", "2")}
    assert len(ids) == 2


def test_a_tag_that_moved_means_the_new_image_and_the_old_stays_by_digest(
    run: Runner, registry: str
) -> None:
    digests = []
    for text in (b"old", b"new"):
        image = images.image([images.layer([images.file("x", text)])])
        digests.append(images.push(registry, "moving", "1", image))
        assert run("shifterimg", "pull", "--refresh", f"{registry}/moving:1").returncode == 0
    now = run("shifterimg", "lookup", f"{registry}/moving:1").stdout
    assert now == run("shifterimg", "lookup", f"{registry}/moving@{digests[1]}").stdout
    assert now != run("shifterimg", "lookup", f"{registry}/moving@{digests[0]}").stdout


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("docker", [True, False])
def test_every_compression_of_both_manifest_kinds_gives_the_same_tree(
    run: Runner, registry: str, compression: images.Compression, docker: bool, tmp_path: Path
) -> None:
    layer = images.layer([images.file("data", b"0123456789" * 100_000)], compression)
    tag = f"{compression}-{docker}".lower()
    images.push(registry, "kinds", tag, images.image([layer], docker=docker))
    done = run("shifterimg", "pull", f"{registry}/kinds:{tag}")
    assert done.returncode == 0, done.stderr
    path = Path(run("shifterimg", "path", f"{registry}/kinds:{tag}").stdout.strip())
    assert (unpacked(path, tmp_path / "t") / "data").read_bytes() == b"0123456789" * 100_000


SPARSE = ["--format=gnu", *(f"--format=posix --sparse-version={n}" for n in ("0.0", "0.1", "1.0"))]


@pytest.mark.parametrize("options", SPARSE)
def test_a_sparse_file_has_its_holes_however_gnu_tar_wrote_them(
    run: Runner, registry: str, options: str, tmp_path: Path
) -> None:
    holes = tmp_path / "holes"
    with holes.open("wb") as file:
        for number in range(60):
            file.seek(number * 300_000)
            file.write(b"%d" % number * 3000)
        file.truncate(20_000_000)
    empty = tmp_path / "empty"
    empty.touch()
    os.truncate(empty, 5_000_000)
    command = ["tar", "-cS", *options.split(), "-C", str(tmp_path), "holes", "empty"]
    made = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(made) < 3_000_000
    tag = re.sub("[^a-z0-9.]", "", options)
    images.push(registry, "sparse", tag, images.image([images.packed(made)]))
    done = run("shifterimg", "pull", f"{registry}/sparse:{tag}")
    assert done.returncode == 0, done.stderr
    path = Path(run("shifterimg", "path", f"{registry}/sparse:{tag}").stdout.strip())
    tree = unpacked(path, tmp_path / "t")
    assert sorted(os.listdir(tree)) == ["dev", "empty", "holes", "proc", "sys", "tmp"]
    assert (tree / "holes").read_bytes() == holes.read_bytes()
    assert (tree / "empty").read_bytes() == bytes(5_000_000)


@pytest.mark.parametrize("docker", [True, False])
def test_the_manifest_for_this_platform_is_chosen_from_an_index(
    run: Runner, registry: str, docker: bool, tmp_path: Path
) -> None:
    made = {
        platform: images.image(
            [images.layer([images.file("platform", platform.encode())])], docker=docker
        )
        for platform in ("linux/arm64/v8", "linux/amd64", "linux/s390x")
    }
    tag = f"multi{docker}".lower()
    digest = images.push(registry, "multi", tag, images.index(made, docker=docker))
    for name in (f"{registry}/multi:{tag}", f"{registry}/multi@{digest}"):
        assert run("shifterimg", "pull", name).returncode == 0
        assert run("shifterimg", "lookup", name).returncode == 0
    path = Path(run("shifterimg", "path", name).stdout.strip())
    assert (unpacked(path, tmp_path / "t") / "platform").read_text() == "linux/amd64"
    done = run("shifterimg", "pull", "--platform", "linux/arm64", f"{registry}/multi:{tag}")
    assert done.returncode == 0
    options = ("--platform", "linux/arm64")
    path = Path(run("shifterimg", "path", *options, f"{registry}/multi:{tag}").stdout.strip())
    assert (unpacked(path, tmp_path / "u") / "platform").read_text() == "linux/arm64/v8"
    path = Path(run("shifterimg", "path", f"{registry}/multi:{tag}").stdout.strip())
    assert (unpacked(path, tmp_path / "v") / "platform").read_text() == "linux/amd64"
    done = run("shifterimg", "pull", "--platform", "linux/riscv64", f"{registry}/multi:{tag}")
    assert done.returncode == 65
    assert "'linux/riscv64'" in done.stderr
    assert "linux/amd64" in done.stderr


def test_a_layer_that_is_used_twice_is_downloaded_once_and_counts_twice(
    run: Runner, registry: str
) -> None:
    first = images.layer([images.file("a", b"1")])
    second = images.layer([images.whiteout("a")])
    images.push(registry, "twice", "1", images.image([first, second, first]))
    assert run("shifterimg", "pull", f"{registry}/twice:1").returncode == 0
    path = run("shifterimg", "path", f"{registry}/twice:1").stdout.strip()
    listed = subprocess.run(["unsquashfs", "-l", path], capture_output=True, text=True, check=True)
    assert "squashfs-root/a" in listed.stdout.splitlines()


def test_two_users_stores_hold_the_same_bytes(run: Runner, debian_image: str) -> None:
    ids = set()
    for number in range(2):
        env = {"SHIFTER_STORE": str(run.store.with_name(f"store{number}"))}
        assert run("shifterimg", "pull", debian_image, env=env).returncode == 0
        ids.add(run("shifterimg", "lookup", debian_image, env=env).stdout)
    assert len(ids) == 1


def test_store_option_and_variable_name_the_same_store(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    name = f"{registry}/small:1"
    elsewhere = str(run.store.with_name("elsewhere"))
    assert run("shifterimg", "--store", elsewhere, "pull", name).returncode == 0
    assert run("shifterimg", "lookup", name).returncode == 72
    assert run("shifterimg", "lookup", "--store", elsewhere, name).returncode == 0
    assert run("shifterimg", "lookup", name, env={"SHIFTER_STORE": elsewhere}).returncode == 0


def test_without_any_configuration_the_store_is_the_users_own(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    name = f"{registry}/small:1"
    assert run("shifterimg", "pull", name, env={"SHIFTER_STORE": ""}).returncode == 0
    assert (run.home / ".local/share/shifter-lite/store.json").exists()
    data = {"SHIFTER_STORE": "", "XDG_DATA_HOME": str(run.home / "data")}
    assert run("shifterimg", "pull", name, env=data).returncode == 0
    assert (run.home / "data/shifter-lite/store.json").exists()


def test_many_pulls_at_once_all_end_and_each_image_is_built_once(
    run: Runner, registry: str, user: User
) -> None:
    names = []
    for number in range(4):
        image = images.image([images.layer([images.file(f"f{number}", b"x")])])
        images.push(registry, "crowd", str(number), image)
        names.append(f"{registry}/crowd:{number}")
    program = str(Path(sys.executable).parent / "shifterimg")
    running = [
        subprocess.Popen(
            [*user.prefix, program, "pull", name],
            env=run.environment,
            cwd=run.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in names * 3
    ]
    for process in running:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    assert len(list((run.store / "images").rglob("*.squashfs"))) == 4
    assert len(list((run.store / "spool/done").glob("*/*"))) == 12
    assert left_over(run.store) == []


def test_verify_finds_every_fault(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    run("shifterimg", "pull", f"{registry}/small:1")
    # Its name, its digest, and the ids that we and Shifter give it.
    assert run("shifter-admin", "verify").stdout == "1 images under 4 names are right\n"
    path = Path(run("shifterimg", "path", f"{registry}/small:1").stdout.strip())
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    done = run("shifter-admin", "verify")
    assert done.returncode == 70
    assert "content has changed" in done.stderr
    path.write_bytes(b"short")
    done = run("shifter-admin", "verify")
    assert done.returncode == 70
    assert "is no squashfs" in done.stderr
    path.unlink()
    done = run("shifter-admin", "verify")
    assert done.returncode == 70
    assert "missing" in done.stderr
    done = run("shifterimg", "path", f"{registry}/small:1")
    assert done.returncode == 70
    assert run("shifterimg", "pull", f"{registry}/small:1").returncode == 0
    assert run("shifter-admin", "verify").returncode == 0


def test_a_catalog_that_is_lost_or_old_is_made_anew_from_the_store(
    run: Runner, registry: str
) -> None:
    images.push(registry, "small", "1", small())
    name = f"{registry}/small:1"
    run("shifterimg", "pull", name)
    (catalog,) = (run.home / ".local/state/shifter-lite").glob("*.sqlite")
    before = {path: path.stat().st_mtime_ns for path in (run.store / "images").rglob("*")}
    for spoil in (catalog.unlink, lambda: catalog.write_bytes(b"")):
        spoil()
        assert run("shifterimg", "pull", "--refresh", name).returncode == 0
        with closing(sqlite3.connect(catalog)) as database:
            assert database.execute("select name from names order by 1 limit 1").fetchone()
    assert {path: path.stat().st_mtime_ns for path in (run.store / "images").rglob("*")} == before


# ------------------------------------------------------------------------------ what goes wrong


def refused(run: Runner, name: str, code: int, *words: str) -> str:
    """Pull NAME; check that it fails with CODE and one line, a hint, WORDS, and leaves nothing."""
    done = run("shifterimg", "pull", name)
    assert done.returncode == code, done.stdout + done.stderr
    # What is no name was never asked for.
    assert re.fullmatch(r"\S+ Pulling Image: docker:\S+, status: FAILURE\n", done.stdout) or (
        (code, done.stdout) == (64, "")
    )
    fact, *hint = done.stderr.splitlines()
    assert fact.startswith("shifterimg: ")
    assert [line[:8] for line in hint] == ["  hint: "]
    for word in words:
        assert word in done.stderr
    if run.store.exists():
        assert left_over(run.store) == []
        assert list((run.store / "images").rglob("*.squashfs")) == []
        assert os.listdir(run.store / "index") == []
    return done.stderr


def test_a_malformed_name_is_refused_before_anything_is_made(run: Runner) -> None:
    for name in ("Bad Name", "", "a//b", "x:y:z", "../x"):
        refused(run, name, 64, repr(name), "hint: ")
        assert not run.store.exists()


def test_an_unknown_image_is_not_found(run: Runner, registry: str) -> None:
    refused(run, f"{registry}/nowhere:1", 66, f"'{registry}/nowhere:1'")
    images.push(registry, "small", "1", small())
    refused(run, f"{registry}/small:2", 66, f"'{registry}/small:2'")
    done = run("shifterimg", "lookup", "debian:1")
    assert done.returncode == 66
    assert "shifterimg pull docker.io/library/debian:1" in done.stderr


def test_a_registry_that_is_down_is_busy_and_not_missing_at_once(run: Runner) -> None:
    started = time.monotonic()
    refused(run, "localhost:1/x:1", 75, "'localhost:1'", "Connection refused")
    refused(run, "no-such-host.invalid/x:1", 75, "no such host")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_answers_busy_is_busy(
    run: Runner, faulty_registry: faulty.Registry, status: int
) -> None:
    faulty_registry.add("x", "1", small())
    faulty_registry.fault("1", faulty.Answer(status))
    refused(run, f"{faulty_registry.address}/x:1", 75, str(status))


def test_a_registry_that_wants_credentials_denies(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    faulty_registry.add("x", "1", small())
    for auth in (faulty.Basic(), faulty.Token(login="a:b")):
        faulty_registry.auth = auth
        refused(run, f"{faulty_registry.address}/x:1", 77, "does not let us")


@pytest.mark.parametrize("challenge", ["Negotiate", 'Bearer service="x"', "Bearer", "=,", "Basic"])
def test_a_challenge_that_nobody_can_answer_denies(
    run: Runner, faulty_registry: faulty.Registry, challenge: str
) -> None:
    faulty_registry.add("x", "1", small())
    faulty_registry.fault("1", faulty.Answer(401, headers={"WWW-Authenticate": challenge}))
    refused(run, f"{faulty_registry.address}/x:1", 77, "does not let us")


def test_a_registry_on_this_host_is_asked_without_a_proxy(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy"), "http://127.0.0.1:9")
    assert run("shifterimg", "pull", f"{registry}/small:1", env=proxy).returncode == 0
    done = run("shifterimg", "pull", "registry.invalid/x:1", env=proxy)
    assert done.returncode == 75
    assert "through a proxy" in done.stderr


def test_an_image_file_that_was_cut_off_is_made_again(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    name = f"{registry}/small:1"
    run("shifterimg", "pull", name)
    path = Path(run("shifterimg", "path", name).stdout.strip())
    os.truncate(path, 4096)
    assert run("shifter-admin", "verify").returncode == 70
    assert run("shifterimg", "pull", name).returncode == 0
    assert run("shifter-admin", "verify").returncode == 0


def test_an_environment_that_no_launch_could_take_is_refused(run: Runner, registry: str) -> None:
    layer = images.layer([images.file("a", b"a")])
    for size, code in ((100_000, 0), (140_000, 65)):
        settings = {"Env": [f"A{n}={'x' * 1000}" for n in range(size // 1000)]}
        images.push(registry, "env", str(size), images.image([layer], settings=settings))
        assert run("shifterimg", "pull", f"{registry}/env:{size}").returncode == code


@pytest.mark.parametrize("place", ["/etc/passwd", "/etc/passwd/x", "/proc/x", "/tmp/" + "x" * 300])
def test_a_place_where_no_store_can_be_is_one_line(run: Runner, place: str) -> None:
    for command in ("pull", "lookup"):
        done = run("shifterimg", "--store", place, command, "x:1")
        assert done.returncode in (71, 72, 77), done.stderr
        assert len(done.stderr.splitlines()) <= 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["images"], ["images", "--json"], ["lookup", "NAME"], ["pull", "NAME"], ["--help"]],
)
def test_a_full_standard_output_is_not_the_stores_fault(
    run: Runner, registry: str, arguments: list[str]
) -> None:
    images.push(registry, "small", "1", small())
    name = f"{registry}/small:1"
    run("shifterimg", "pull", name)
    words = [word.replace("NAME", name) for word in arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*run.user.prefix, installed("shifterimg"), *words],
            env=run.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 74
    assert done.stderr.splitlines()[0].startswith("shifterimg: cannot write to standard output")
    assert len(done.stderr.splitlines()) == 2


def test_streams_that_the_caller_has_closed_do_no_harm(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    name = f"{registry}/small:1"
    script = f"exec shifterimg pull {name} <&- >&- 2>&-"
    done = subprocess.run([*run.user.prefix, "sh", "-c", script], env=run.environment, cwd=run.home)
    assert done.returncode == 0
    assert run("shifter-admin", "verify").returncode == 0


@pytest.mark.parametrize("key", ["token", "access_token"])
def test_an_anonymous_token_is_fetched_and_used(
    run: Runner, faulty_registry: faulty.Registry, key: str
) -> None:
    faulty_registry.add("x", "1", small())
    faulty_registry.auth = faulty.Token(key=key)
    assert run("shifterimg", "pull", f"{faulty_registry.address}/x:1").returncode == 0


def test_a_blob_is_fetched_from_another_host_without_our_token(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    with faulty.serving() as other:
        for each in (faulty_registry, other):
            each.add("x", "1", small())
        faulty_registry.auth = faulty.Token()
        for digest in small().blobs:
            faulty_registry.fault(digest, faulty.Redirect(other.address))
        assert run("shifterimg", "pull", f"{faulty_registry.address}/x:1").returncode == 0
        assert other.requests
        assert {asked.authorization for asked in other.requests} == {""}


def layer_digest(image: images.Image) -> str:
    digest: str = image.content["layers"][0]["digest"]
    return digest


def test_a_layer_with_the_wrong_digest_is_refused(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small()
    faulty_registry.add("x", "1", image)
    digest = layer_digest(image)
    right = image.blobs[digest]
    faulty_registry.fault(digest, faulty.Body(right[:-9] + bytes(9)))
    refused(run, f"{faulty_registry.address}/x:1", 65, "layer 1", digest, "wrong digest")
    faulty_registry.fault(digest, faulty.Body(os.urandom(len(right))))
    refused(run, f"{faulty_registry.address}/x:1", 65, "layer 1", digest, "wrong digest")
    faulty_registry.fault(digest, faulty.Body(right + b"more"))
    refused(run, f"{faulty_registry.address}/x:1", 65, "layer 1", digest, "more than")
    faulty_registry.fault(digest, faulty.Body(right[:50]))
    refused(run, f"{faulty_registry.address}/x:1", 65, "layer 1", digest, "fewer than")


def test_a_layer_that_is_cut_off_on_the_way_is_busy(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small()
    faulty_registry.add("x", "1", image)
    faulty_registry.fault(layer_digest(image), faulty.Cut(0))
    refused(run, f"{faulty_registry.address}/x:1", 75, "in the middle", "the connection was cut")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_layer_that_is_cut_off_goes_on_where_it_was(
    run: Runner, faulty_registry: faulty.Registry, ranges: bool
) -> None:
    image = images.image([images.layer([images.file("big", os.urandom(3_000_000))])])
    digest = layer_digest(image)
    faulty_registry.add("x", "1", image)
    faulty_registry.ranges = ranges
    faulty_registry.fault(digest, faulty.Cut(1_000_000), times=2)
    done = run("shifterimg", "pull", f"{faulty_registry.address}/x:1")
    assert done.returncode == 0, done.stderr
    asked = [each.headers.get("Range", "") for each in faulty_registry.asked(digest)]
    assert asked[0] == ""
    assert all(re.fullmatch("bytes=[1-9][0-9]*-", header) for header in asked[1:])
    assert len(asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_that_is_busy_for_a_moment_is_asked_again(
    run: Runner, faulty_registry: faulty.Registry, status: int
) -> None:
    image = small()
    faulty_registry.add("x", "1", image)
    busy = faulty.Answer(status, headers={"Retry-After": "0"})
    for what in ("1", layer_digest(image)):
        faulty_registry.fault(what, busy, times=2)
    assert run("shifterimg", "pull", f"{faulty_registry.address}/x:1").returncode == 0


def test_a_blob_that_the_registry_has_lost_is_no_unknown_image(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small()
    faulty_registry.add("x", "1", image)
    faulty_registry.fault(layer_digest(image), faulty.Answer(404))
    words = ("layer 1", "has no blob", layer_digest(image))
    refused(run, f"{faulty_registry.address}/x:1", 65, *words)


def test_a_manifest_or_config_with_the_wrong_digest_is_refused(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = small()
    faulty_registry.add("x", "1", image)
    wrong = faulty.Header("Docker-Content-Digest", "sha256:" + "0" * 64)
    faulty_registry.fault("1", wrong)
    refused(run, f"{faulty_registry.address}/x:1", 65, "manifest has the wrong digest")
    faulty_registry.heal()
    config = image.content["config"]["digest"]
    faulty_registry.fault(config, faulty.Body(image.blobs[config].replace(b"hello", b"HELLO")))
    refused(run, f"{faulty_registry.address}/x:1", 65, "image config has the wrong digest")
    faulty_registry.heal()
    other = images.image([])
    faulty_registry.fault(image.digest, faulty.Body(other.document))
    refused(run, f"{faulty_registry.address}/x@{image.digest}", 65, "wrong digest")


def test_content_that_is_not_the_diff_id_is_refused(run: Runner, registry: str) -> None:
    layer = images.layer([images.file("a", b"a")])
    other = images.layer([images.file("a", b"b")])
    lying = images.Layer(blob=layer.blob, compression="gzip", diff_id=other.diff_id)
    images.push(registry, "lying", "1", images.image([lying]))
    refused(run, f"{registry}/lying:1", 65, "layer 1", "diff_id", other.diff_id)


def test_a_layer_that_is_no_archive_is_refused(run: Runner, registry: str) -> None:
    for number, data in enumerate((b"x" * 2000, b"x" * 100, b"BZh91AY&SY" + bytes(99))):
        images.push(registry, "junk", str(number), images.image([images.packed(data, "none")]))
        refused(run, f"{registry}/junk:{number}", 65, "layer 1")


def test_an_entry_that_climbs_out_is_refused_by_name(run: Runner, registry: str) -> None:
    image = images.image([images.layer([images.file("../../etc/cron.d/x", b"x")])])
    images.push(registry, "climb", "1", image)
    refused(run, f"{registry}/climb:1", 65, "layer 1", "'../../etc/cron.d/x'", "climbs")


def test_what_is_no_container_image_is_refused_with_a_sentence(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    address = faulty_registry.address
    faulty_registry.add_schema_1("old", "1")
    refused(run, f"{address}/old:1", 65, "schema 1")
    chart = small().content
    chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    faulty_registry.add("chart", "1", images.seal(chart, small().blobs))
    refused(run, f"{address}/chart:1", 65, "helm")


@pytest.mark.parametrize(
    "settings",
    [
        {"Env": "A=b"},
        {"Env": ["novalue"]},
        {"Env": [1]},
        {"Env": ["A=\0"]},
        {"Entrypoint": "/bin/sh"},
        {"WorkingDir": 7},
        {"Labels": ["x"]},
        {"Cmd": {"a": "b"}},
    ],
)
def test_a_config_with_odd_types_is_refused(
    run: Runner, registry: str, settings: dict[str, object]
) -> None:
    layer = images.layer([images.file("a", b"a")])
    images.push(registry, "odd", "1", images.image([layer], settings=settings))
    refused(run, f"{registry}/odd:1", 65, "image config")


def test_null_and_empty_settings_are_as_good_as_none(run: Runner, registry: str) -> None:
    layer = images.layer([images.file("a", b"a")])
    settings = dict.fromkeys(("Env", "Entrypoint", "Cmd", "WorkingDir", "User", "Labels"))
    images.push(registry, "null", "1", images.image([layer], settings=settings))
    assert run("shifterimg", "pull", f"{registry}/null:1").returncode == 0


def test_no_program_is_needed_to_build_an_image(run: Runner, registry: str) -> None:
    images.push(registry, "small", "1", small())
    done = run("shifterimg", "pull", f"{registry}/small:1", env={"PATH": "/nowhere"})
    assert done.returncode == 0, done.stderr


def test_a_place_that_is_no_store_is_not_made_one(run: Runner, registry: str) -> None:
    run.store.mkdir()
    (run.store / "thesis.tex").write_text("precious")
    done = run("shifterimg", "pull", f"{registry}/small:1")
    assert done.returncode == 72
    assert "not empty, and not a store" in done.stderr
    assert os.listdir(run.store) == ["thesis.tex"]


def test_a_store_that_one_may_not_write_is_denied(run: Runner, registry: str, user: User) -> None:
    run.store.mkdir(mode=0o755)
    run.store.chmod(0o555)
    os.chown(run.store, 0, 0) if os.getuid() == 0 else None
    done = run("shifterimg", "pull", f"{registry}/small:1")
    assert done.returncode == 77
    assert str(run.store) in done.stderr


@needs_root
def test_a_full_disk_is_one_line_and_leaves_the_disk_as_it_was(
    run: Runner, debian_image: str, user: User
) -> None:
    run.store.mkdir()
    for size in ("100k", "30m", "70m"):
        options = f"size={size},uid={user.uid},gid={user.gid},mode=755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", run.store], check=True)
        try:
            refused(run, debian_image, 73, "no space left")
            used = subprocess.run(
                ["du", "-sk", run.store], capture_output=True, text=True, check=True
            )
            assert int(used.stdout.split()[0]) < 300
        finally:
            subprocess.run(["umount", run.store], check=True)


def cached(store: Path) -> list[Path]:
    """Return the blobs in the cache of STORE."""
    return [path for path in (store / "cache/blobs").glob("??/*") if not path.suffix]


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200_000] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def unfinished(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size - 1))
    path.rename(path.with_suffix(".part"))


def as_if_unfinished(path: Path) -> None:
    zeroed(path)
    path.rename(path.with_suffix(".part"))


@pytest.mark.parametrize("spoil", [flipped, emptied, zeroed, unfinished, as_if_unfinished])
def test_layers_that_the_cache_has_spoilt_are_brought_again_and_no_pull_fails(
    run: Runner, faulty_registry: faulty.Registry, spoil: Callable[[Path], None]
) -> None:
    layers = [images.layer([images.file(f"{n}", os.urandom(300_000))]) for n in range(4)]
    image, other = images.image(layers), images.image(layers, settings={"Env": ["A=b"]})
    faulty_registry.add("x", "1", image)
    faulty_registry.add("x", "2", other)
    address = faulty_registry.address
    assert run("shifterimg", "pull", f"{address}/x:1").returncode == 0
    whole, *spoilt = sorted(cached(run.store))
    asked = {path: len(faulty_registry.fetched(f"sha256:{path.name}")) for path in (whole, *spoilt)}
    for path in spoilt:
        spoil(path)
        path.with_suffix(".toc").unlink()
    done = run("shifterimg", "pull", f"{address}/x:2")
    assert done.returncode == 0, done.stderr
    again = {path: len(faulty_registry.fetched(f"sha256:{path.name}")) for path in asked}
    assert again[whole] == asked[whole]
    assert all(again[path] > asked[path] for path in spoilt)
    assert left_over(run.store) == []
    for path in cached(run.store):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_debian_helper_names_what_it_pushed(registry: str, debian_image: str) -> None:
    assert debian_image == f"{registry}/debian:12"
    assert debian.push(registry) == debian_image


FOREIGN = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
]


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_nondistributable_layer_is_had_where_it_is_and_missed_with_a_hint(
    run: Runner, faulty_registry: faulty.Registry, workdir: Path, kind: str
) -> None:
    def foreign(image: images.Image, blobs: Mapping[str, bytes]) -> images.Image:
        document = image.content
        document["layers"][0]["mediaType"] = kind
        return images.seal(document, blobs)

    there, not_there = small(), images.image([images.layer([images.file("y", b"not there")])])
    whole = foreign(there, there.blobs)
    assert run("shifterimg", "pull", faulty_registry.add("x", "1", whole)).returncode == 0
    layout = stored.packed(workdir / "x.tar", stored.files({"": whole}))
    assert run("shifterimg", "import", layout, "localhost/x:1").returncode == 0
    digest = not_there.content["layers"][0]["digest"]
    lacking = foreign(not_there, {d: b for d, b in not_there.blobs.items() if d != digest})
    name = faulty_registry.add("lacking", "1", lacking)
    layout = stored.packed(workdir / "y.tar", stored.files({"": lacking}))
    elsewhere = replace(run, store=workdir / "elsewhere")
    for command in (("pull", name), ("import", str(layout), "localhost/y:1")):
        done = elsewhere("shifterimg", *command)
        assert done.returncode == 65
        assert f"no blob {digest}" in done.stderr
        assert "the layer is nondistributable" in done.stderr
