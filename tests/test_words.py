"""`shifterimg` is asked, and answers, in Shifter's words."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from shifter_lite.cli import shifterimg
from tests.conftest import Runner
from tests.helpers import faulty, images, layouts
from tests.helpers.processes import running, until
from tests.test_import import busybox as busybox
from tests.test_import import mksquashfs, readable
from tests.test_worker import spool

LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d Pulling Image: %s, status: %s"


def demo(text: bytes = b"demo") -> images.Image:
    settings = {"Env": ["A=b"], "Entrypoint": ["/bin/sh"], "WorkingDir": "/w"}
    return images.image([images.layer([images.file("x", text)])], settings=settings)


def imported(run: Runner, *names: str) -> None:
    """Import an image under each of NAMES."""
    layout = run.home / "layout"
    if not layout.exists():
        layouts.write(layout, demo(), "it")
    for name in names:
        done = run("shifterimg", "import", layout, name)
        assert done.returncode == 0, done.stderr


def said(output: str) -> tuple[dict[str, object], list[str]]:
    """Return the message that OUTPUT begins with, and the lines that follow."""
    assert output.startswith("Message: {\n")
    message, end = json.JSONDecoder().raw_decode(output.removeprefix("Message: "))
    return message, output.removeprefix("Message: ")[end + 1 :].split("\n")


# ------------------------------------------------------------------------------------- verbose


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_every_command_takes_verbose_before_and_after_its_name(option: str) -> None:
    for command in shifterimg.program.commands:
        for words in ([option, command], [command, option]):
            done = CliRunner().invoke(shifterimg.program, [*words, "--help"])
            assert done.exit_code == 0, done.output


def test_a_verbose_pull_prints_a_message_its_states_and_an_empty_line(
    run: Runner, registry: str
) -> None:
    images.push(registry, "words", "1", demo())
    name = f"{registry}/words:1"
    first = run("shifterimg", "-v", "pull", name)
    assert first.returncode == 0, first.stderr
    states = re.findall(LINE % (re.escape(f"docker:{name}"), "([A-Z]+)"), first.stdout)
    assert states[0] in ("PENDING", "PULLING")
    assert states[-1] == "READY"
    assert states.count("READY") == 1
    again = run("shifterimg", "pull", "--verbose", name)
    message, lines = said(again.stdout)
    assert message["status"] == "READY"
    assert message["id"] == run("shifterimg", "lookup", name).stdout.strip()
    assert re.fullmatch(LINE % (re.escape(f"docker:{name}"), "READY"), lines[0])
    assert lines[1:] == ["", ""]
    assert first.stdout.endswith("\n\n")


def test_a_verbose_pull_whose_reader_ends_early_is_pulled_all_the_same(
    run: Runner, registry: str
) -> None:
    images.push(registry, "words", "2", demo(b"2"))
    name = f"{registry}/words:2"
    with running(run, "shifterimg", "-v", "pull", name) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, "")
        process.stdout = None
    assert run("shifterimg", "lookup", name).returncode == 0


def test_a_verbose_lookup_prints_what_shifters_gateway_answers(run: Runner) -> None:
    imported(run, "org/demo:1")
    done = run("shifterimg", "-v", "lookup", "org/demo:1")
    message, lines = said(done.stdout)
    assert lines == [message["id"], ""]
    assert message["status"] == "READY"
    assert message["tag"] == ["org/demo:1"]
    assert (message["ENV"], message["ENTRY"], message["WORKDIR"]) == (["A=b"], ["/bin/sh"], "/w")
    missing = run("shifterimg", "-v", "lookup", "nothing")
    assert missing.returncode == 66
    assert missing.stdout.startswith('Got response: 404\nMessage: {\n    "status": 404,\n')
    assert run("shifterimg", "lookup", "nothing").stdout == ""


def test_verbose_images_are_a_message_and_the_same_lines(run: Runner) -> None:
    imported(run, "demo:1", "org/demo:1")
    plain = run("shifterimg", "images").stdout
    message, lines = said(run("shifterimg", "images", "-v").stdout)
    assert lines == plain.split("\n")
    assert isinstance(message["list"], list)
    assert [each["tag"] for each in message["list"]] == [["demo:1"], ["org/demo:1"]]


# --------------------------------------------------------------------------------------- names


def test_images_and_pull_call_images_as_docker_does(run: Runner) -> None:
    names = ["demo:1", "org/demo:2", "localhost/a/demo:3", "quay.io/org/demo:4"]
    imported(run, *names)
    rows = run("shifterimg", "images").stdout.splitlines()
    assert [row.split()[5] for row in rows] == names
    assert all(row.split()[:3] == rows[0].split()[:3] for row in rows)
    listed = json.loads(run("shifterimg", "images", "--json").stdout)
    full = ["docker.io/library/demo:1", "docker.io/org/demo:2", *names[2:]]
    assert [each["name"] for each in listed] == full
    for name in names:
        done = run("shifterimg", "pull", f"docker:{name}")
        assert re.fullmatch(LINE % (f"docker:{name}", "READY") + "\n", done.stdout)


def test_a_word_lists_the_images_that_it_may_mean(run: Runner) -> None:
    imported(run, "demo:1", "org/demo:1", "other:1")
    (row,) = json.loads(run("shifterimg", "images", "other", "--json").stdout)
    for word, count in {
        "demo": 2,
        "demo:1": 2,
        "docker:org/demo:1": 1,
        "docker.io/library/demo:1": 1,
        "other:2": 0,
        "": 3,
        # They are one image.
        f"id:{row['id'][:4]}": 3,
        row["id"][:10]: 3,
        row["digest"]: 3,
        row["digest"][:19]: 3,
        row["digest"][7:17]: 3,
    }.items():
        done = run("shifterimg", "images", word)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, count), word


def test_images_show_digests_where_they_are_asked_for(run: Runner) -> None:
    imported(run, "demo:1")
    (row,) = json.loads(run("shifterimg", "images", "--json").stdout)
    plain = run("shifterimg", "images").stdout.rstrip("\n")
    assert run("shifterimg", "images", "--digests").stdout == f"{plain} {row['digest']}\n"
    assert plain.split()[5:] == ["demo:1"]


def test_what_is_pulled_by_digest_is_listed_by_it_as_well(run: Runner, registry: str) -> None:
    repository = f"{registry}/words-digest"
    digest = images.push(registry, "words-digest", "1", demo())
    run("shifterimg", "pull", f"{repository}:1")
    assert digest not in run("shifterimg", "images").stdout
    for options in ((), (), ("--refresh",)):
        assert run("shifterimg", "pull", *options, f"{repository}@{digest}").returncode == 0
        rows = run("shifterimg", "images").stdout.splitlines()
        assert [row.split()[5] for row in rows] == [f"{repository}:1", f"{repository}@{digest}"]
    # A tag that comes to it later leaves it there.
    images.push(registry, "words-digest", "2", demo())
    run("shifterimg", "pull", f"{repository}:2")
    assert digest in run("shifterimg", "images").stdout


def test_a_digest_that_was_pulled_is_not_asked_for_again(
    run: Runner, faulty_registry: faulty.Registry
) -> None:
    image = demo()
    faulty_registry.add("x", "1", image)
    name = f"{faulty_registry.address}/x@{image.digest}"
    for _ in range(3):
        assert run("shifterimg", "pull", name).returncode == 0
    assert len(faulty_registry.asked(image.digest)) == 1


def test_the_id_that_shifter_gives_an_image_finds_it(run: Runner, registry: str) -> None:
    both = images.index({"linux/amd64": demo(), "linux/arm64": demo(b"other")})
    images.push(registry, "words-id", "1", both)
    run("shifterimg", "pull", f"{registry}/words-id:1")
    found = json.loads(run("shifterimg", "lookup", "--json", f"{registry}/words-id:1").stdout)
    for digest in (found["digest"], both.digest):
        name = f"id:{digest.removeprefix('sha256:')}"
        assert run("shifterimg", "lookup", name).stdout.strip() == found["id"]
        done = run("shifter", f"--image={name}", "--dry-run")
        assert (done.returncode, found["id"] in done.stdout) == (0, True), done.stderr
    # Nothing that is listed is called so.
    assert len(run("shifterimg", "images").stdout.splitlines()) == 1


def test_an_id_is_pulled_if_it_is_there(run: Runner) -> None:
    imported(run, "demo:1")
    image_id = run("shifterimg", "lookup", "demo:1").stdout.strip()
    for name in (f"id:{image_id}", f"id:{image_id[:8]}"):
        done = run("shifterimg", "pull", name)
        assert re.fullmatch(LINE % (name, "READY") + "\n", done.stdout)
    absent = run("shifterimg", "pull", f"id:{64 * '0'}")
    assert absent.returncode == 66
    assert re.fullmatch(LINE % (f"id:{64 * '0'}", "FAILURE") + "\n", absent.stdout)
    assert run("shifterimg", "pull", "id:xyz").returncode == 64


# ------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize(("status", "code"), [(404, 66), (403, 77), (500, 75)])
def test_the_last_line_of_a_pull_that_fails_says_failure(
    run: Runner, faulty_registry: faulty.Registry, status: int, code: int
) -> None:
    faulty_registry.add("x", "1", demo())
    faulty_registry.fault("1", faulty.Answer(status))
    name = f"{faulty_registry.address}/x:1"
    done = run("shifterimg", "pull", name)
    assert done.returncode == code, done.stderr
    assert re.fullmatch(LINE % (f"docker:{name}", "FAILURE") + "\n", done.stdout)
    assert done.stderr.startswith("shifterimg: ")
    verbose = run("shifterimg", "-v", "pull", name)
    assert re.fullmatch(LINE % (f"docker:{name}", "FAILURE"), verbose.stdout.split("\n")[-3])
    assert verbose.stdout.count('"status": "FAILURE"') == 1


def test_so_does_that_of_a_wait(site: Runner, asker: Runner) -> None:
    name = f"localhost/{asker.user.name}/tool:1"
    (asker.home / "nothing").mkdir(mode=0o755)
    asked = asker("shifterimg", "import", "--no-wait", asker.home / "nothing", name)
    assert site("shifter-worker", "drain").returncode == 0
    done = asker("shifterimg", "wait", asked.stdout.strip())
    assert done.returncode == 65
    assert done.stdout.endswith(f" Pulling Image: docker:{name}, status: FAILURE\n")


def test_a_pull_that_is_cancelled_says_so(site: Runner, asker: Runner, registry: str) -> None:
    name = f"{registry}/words:3"
    with running(asker, "shifterimg", "pull", name) as process:
        until(lambda: bool(spool(site.store, "new")))
        (request,) = spool(site.store, "new")
        assert asker("shifterimg", "cancel", request).returncode == 0
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 79
    assert output.endswith(f" Pulling Image: docker:{name}, status: CANCELLED\n")


# --------------------------------------------------------------------------- sites of many users


def test_a_user_hears_within_seconds_that_no_worker_is_running(
    site: Runner, asker: Runner, registry: str
) -> None:
    # Workers that were killed have left heartbeats.
    left = site.store / "workers" / "gone.1.0123abcd.0000000007"
    left.touch()
    with running(asker, "shifterimg", "pull", f"{registry}/words:4") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == (
            "shifterimg: no worker of the site is running now: the request waits for one\n"
        )
        assert process.poll() is None


def test_a_user_hears_nothing_of_workers_while_one_is_running(
    site: Runner, asker: Runner, registry: str
) -> None:
    images.push(registry, "words", "5", demo(b"5"))
    with running(site, "shifter-worker", "run"):
        until(lambda: any((site.store / "workers").iterdir()))
        done = asker("shifterimg", "pull", f"{registry}/words:5")
    assert (done.returncode, done.stderr) == (0, "")


def test_users_may_see_heartbeats_of_a_store_of_before(site: Runner, asker: Runner) -> None:
    (site.store / "workers").chmod(0o750)
    assert site("shifter-worker", "drain").returncode == 0
    assert (site.store / "workers").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_an_import_that_the_worker_would_refuse_for_its_name_is_refused_at_once(
    site: Runner, asker: Runner
) -> None:
    layouts.write(asker.home / "layout", demo(), "it")
    for name in ("mytool:1", "localhost/other/tool:1", "quay.io/org/tool:1"):
        done = asker("shifterimg", "import", asker.home / "layout", name)
        assert done.returncode == 77
        assert f"localhost/{asker.user.name}/NAME:TAG" in done.stderr
    assert spool(site.store, "new") == []


# -------------------------------------------------------------------------- what Shifter has left


def of_shifter(place: Path, root: Path, meta: str) -> Path:
    """Make PLACE an imagePath of Shifter's gateway, with an image of ROOT; return that."""
    place.mkdir(mode=0o755)
    path = mksquashfs(root, place / f"{64 * 'a'}.squashfs")
    path.with_suffix(".meta").write_text(meta)
    return readable(place) / path.name


META = """\
FORMAT: squashfs
ENTRY: ['/bin/busybox', 'echo', "it's", 'a\\tb']
CMD: ['run']
WORKDIR: /bin
USERACL:
ENV: PATH=/bin
ENV: GREETING=hello world
"""


def test_a_directory_of_shifters_images_is_called_what_it_is(
    run: Runner, workdir: Path, busybox: Path
) -> None:
    place = of_shifter(workdir / "images", busybox, META).parent
    for program, *command in (
        ("shifterimg", "images"),
        ("shifterimg", "lookup", "x"),
        ("shifterimg", "pull", "x"),
        ("shifter-admin", "init"),
        ("shifter-admin", "verify"),
    ):
        done = run(program, "--store", place, *command)
        assert done.returncode == 72, done.stderr
        assert "has images of Shifter" in done.stderr
        assert "shifterimg import ID.squashfs NAME" in done.stderr
    assert len(os.listdir(place)) == 2


def test_an_image_of_shifters_keeps_its_words_when_it_is_imported(
    run: Runner, workdir: Path, busybox: Path
) -> None:
    path = of_shifter(workdir / "images", busybox, META)
    assert run("shifterimg", "import", path, "tool:1").returncode == 0
    message, _ = said(run("shifterimg", "-v", "lookup", "tool:1").stdout)
    assert message["ENTRY"] == ["/bin/busybox", "echo", "it's", "a\tb"]
    assert (message["ENV"], message["WORKDIR"]) == (["PATH=/bin", "GREETING=hello world"], "/bin")
    done = run("shifter", "--image=tool:1", "--entrypoint")
    assert (done.returncode, done.stdout) == (0, "it's a\tb run\n"), done.stderr
    done = run(
        "shifter", "--image=tool:1", "--workdir", "busybox", "sh", "-c", "pwd; echo $GREETING"
    )
    assert done.stdout == "/bin\nhello world\n", done.stderr
    # Other words make another image; none, that of before.
    first = message["id"]
    path.with_suffix(".meta").write_text("FORMAT: squashfs\nENV: A=1\n")
    assert run("shifterimg", "import", path, "tool:1").returncode == 0
    message, _ = said(run("shifterimg", "-v", "lookup", "tool:1").stdout)
    assert message["ENV"] == ["A=1"]
    path.with_suffix(".meta").write_text(META)
    assert run("shifterimg", "import", path, "tool:1").returncode == 0
    assert run("shifterimg", "lookup", "tool:1").stdout.strip() == first
    assert run("shifter-admin", "verify").returncode == 0


@pytest.mark.parametrize(
    ("meta", "code", "word"),
    [
        ("USERACL: 1000\n", 77, "USERACL"),
        ("ENTRY: ['a'\n", 65, "list"),
        ("ENTRY: ['\\x']\n", 65, "text"),
        ("ENV: nothing\n", 65, "Env"),
        ("ENV: A=" + "x" * 140_000, 65, "characters"),
        ("\udcff", 65, "UTF-8"),
    ],
)
def test_words_of_shifters_that_cannot_be_used_are_refused_and_not_dropped(
    run: Runner, workdir: Path, busybox: Path, meta: str, code: int, word: str
) -> None:
    path = of_shifter(workdir / "images", busybox, "")
    path.with_suffix(".meta").write_bytes(meta.encode(errors="surrogateescape"))
    done = run("shifterimg", "import", path, "tool:1")
    assert done.returncode == code, done.stderr
    assert word in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
def test_words_of_shifters_that_the_user_may_not_read_are_not_read_for_him(
    site: Runner, asker: Runner, workdir: Path, busybox: Path
) -> None:
    path = of_shifter(workdir / "images", busybox, META)
    os.chown(path, asker.user.uid, asker.user.gid)
    os.chown(path.with_suffix(".meta"), site.user.uid, site.user.gid)
    path.with_suffix(".meta").chmod(0o600)
    name = f"localhost/{asker.user.name}/tool:1"
    with running(site, "shifter-worker", "run"):
        done = asker("shifterimg", "import", path, name)
        assert done.returncode == 77
        assert ".meta" in done.stderr
        path.with_suffix(".meta").unlink()
        path.with_suffix(".meta").symlink_to("/etc/passwd")
        assert asker("shifterimg", "import", path, name).returncode == 65


def test_what_lies_beside_other_files_is_not_looked_at(
    run: Runner, workdir: Path, busybox: Path
) -> None:
    path = readable(mksquashfs(busybox, workdir / "image.sqsh"))
    path.with_suffix(".meta").write_text("USERACL: 1\n")
    assert run("shifterimg", "import", path, "tool:1").returncode == 0
    elsewhere = replace(run, store=run.store.with_name("elsewhere"))
    assert elsewhere("shifterimg", "images").returncode == 72
