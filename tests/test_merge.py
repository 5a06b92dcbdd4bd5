"""The merged tree is the one that the OCI image-spec says."""

from collections.abc import Iterable

import pytest

from shifter_lite.build import merge, tar
from shifter_lite.build.tar import Member
from shifter_lite.build.tree import Directory, File, Symlink, walk
from shifter_lite.config import Policy
from shifter_lite.errors import BadImage

# ------------------------------------------------------------- a few words to write layers with


def file(name: str, data: int = 1, mode: int = 0o644) -> Member:
    """Return a file whose content is the number DATA, which is its place in the layer."""
    return Member(name.encode(), tar.FILE, mode, 0, 1, data, b"", 1)


def directory(name: str, mode: int = 0o755) -> Member:
    return Member(name.encode(), tar.DIRECTORY, mode, 0, 0, 0, b"", 0)


def symlink(name: str, target: str) -> Member:
    return Member(name.encode(), tar.SYMLINK, 0o777, 0, 0, 0, target.encode(), 0)


def link(name: str, target: str) -> Member:
    return Member(name.encode(), tar.LINK, 0o644, 0, 0, 0, target.encode(), 0)


def whiteout(name: str) -> Member:
    parent, slash, base = name.rpartition("/")
    return file(f"{parent}{slash}.wh.{base}")


def opaque(name: str) -> Member:
    return file(f"{name}/.wh..wh..opq" if name else ".wh..wh..opq")


Tree = dict[str, object]
BAKED = {"dev": "dir", "proc": "dir", "sys": "dir", "tmp": "dir"}


def merged(*layers: Iterable[Member]) -> merge.Tree:
    """Return the tree that LAYERS become."""
    result = merge.Tree(Policy())
    for layer in layers:
        held = list(layer)
        result.apply(lambda: held)  # noqa: B023  # called at once
    result.finish()
    return result


def tree(*layers: Iterable[Member]) -> Tree:
    """Return what the layers become: path to "dir", symlink's target, or (layer, content)."""
    held = [list(layer) for layer in layers]
    contents = [
        (number, member.offset)
        for number, layer in enumerate(held)
        for member in layer
        if member.type == tar.FILE and member.size
    ]
    found: Tree = {}
    for path, node in walk(merged(*held).root):
        match node:
            case Directory():
                found[path.decode()] = "dir"
            case Symlink():
                found[path.decode()] = f"-> {node.target.decode()}"
            case File():
                found[path.decode()] = contents[node.content] if node.content >= 0 else "empty"
            case _:
                found[path.decode()] = "fifo"
    assert found.pop("") == "dir"
    return {path: what for path, what in found.items() if path not in BAKED}


def modes(*layers: Iterable[Member]) -> dict[bytes, int]:
    """Return path to mode."""
    return {path: node.mode for path, node in walk(merged(*layers).root)}


# ------------------------------------------------------------------------------------ claims


def test_a_file_of_a_higher_layer_replaces_the_lower_one() -> None:
    assert tree([file("a", 1)], [file("a", 2)]) == {"a": (1, 2)}


def test_the_last_of_two_entries_of_one_name_wins() -> None:
    assert tree([file("a", 1), file("a", 2)]) == {"a": (0, 2)}


def test_a_whiteout_deletes_a_file_a_directory_and_a_symlink_below() -> None:
    lower = [file("f"), directory("d"), file("d/x"), symlink("s", "f")]
    assert tree(lower, [whiteout("f"), whiteout("d"), whiteout("s")]) == {}


def test_a_whiteout_deletes_a_directory_that_has_no_entry_of_its_own() -> None:
    assert tree([file("d/e/x"), file("d/y")], [whiteout("d/e")]) == {"d": "dir", "d/y": (0, 1)}


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_spares_its_own_layer_wherever_it_stands(first: bool) -> None:
    upper = [whiteout("a"), file("a", 2)] if first else [file("a", 2), whiteout("a")]
    assert tree([file("a", 1)], upper) == {"a": (1, 2)}


@pytest.mark.parametrize("last", [True, False])
def test_an_opaque_directory_hides_what_is_below_and_only_that(last: bool) -> None:
    upper = [directory("d"), file("d/new", 2)]
    upper = [*upper, opaque("d")] if last else [opaque("d"), *upper]
    lower = [directory("d"), file("d/old"), file("d/deep/old"), file("other")]
    assert tree(lower, upper) == {"d": "dir", "d/new": (1, 2), "other": (0, 1)}


def test_an_opaque_root_hides_everything_below() -> None:
    assert tree([file("a"), file("d/b")], [opaque(""), file("c")]) == {"c": (1, 1)}


def test_a_directory_whited_out_and_made_again_is_empty() -> None:
    lower = [directory("d"), file("d/x")]
    assert tree(lower, [whiteout("d"), directory("d")]) == {"d": "dir"}


def test_a_whiteout_of_nothing_is_nothing() -> None:
    assert tree([whiteout("a"), file("b"), opaque("none")]) == {"b": (0, 1)}


def test_a_directory_over_a_directory_keeps_its_content_and_gets_new_attributes() -> None:
    held = [[directory("d", 0o700), file("d/x")], [directory("d", 0o1770)]]
    assert modes(*held)[b"d"] == 0o1775
    assert tree(*held) == {"d": "dir", "d/x": (0, 1)}


def test_a_missing_parent_keeps_the_lower_directory_as_it_is() -> None:
    held = [[directory("t", 0o1777)], [file("t/x")]]
    assert modes(*held)[b"t"] == 0o1777


@pytest.mark.parametrize("kind", [file("a"), symlink("a", "x"), directory("a")])
@pytest.mark.parametrize("other", [file("a", 9), symlink("a", "y"), directory("a")])
def test_any_kind_replaces_any_other(kind: Member, other: Member) -> None:
    lower = [kind, file("a/below")] if kind.type == tar.DIRECTORY else [kind]
    merged = tree(lower, [other])
    if kind.type == other.type == tar.DIRECTORY:
        assert merged == {"a": "dir", "a/below": (0, 1)}
    else:
        assert list(merged) == ["a"]


def test_a_hard_link_is_another_name_of_the_same_content() -> None:
    assert tree([file("a", 7), link("b", "a")]) == {"a": (0, 7), "b": (0, 7)}


def test_a_hard_link_reaches_into_lower_layers() -> None:
    assert tree([file("a", 7)], [link("d/b", "/a")]) == {
        "a": (0, 7),
        "d": "dir",
        "d/b": (0, 7),
    }


def test_a_hard_link_keeps_its_content_when_the_target_is_deleted_or_replaced_above() -> None:
    lower = [file("a", 7), link("b", "a"), link("c", "b")]
    assert tree(lower, [whiteout("a"), file("b", 8)]) == {"b": (1, 8), "c": (0, 7)}


def test_a_hard_link_to_a_file_that_the_same_layer_deletes_keeps_the_content() -> None:
    assert tree([file("a", 7)], [whiteout("a"), link("b", "a")]) == {"b": (0, 7)}
    assert tree([file("a", 7)], [link("b", "a"), whiteout("a")]) == {"b": (0, 7)}


def test_a_hard_link_to_a_symlink_is_that_symlink() -> None:
    assert tree([symlink("s", "nowhere"), link("t", "s")]) == {"s": "-> nowhere", "t": "-> nowhere"}


def test_a_hard_link_to_nothing_or_to_a_directory_is_refused() -> None:
    with pytest.raises(BadImage, match=r"layer 1: 'b' is a link to 'a', which is missing"):
        tree([link("b", "a")])
    with pytest.raises(BadImage, match="hard link to a directory"):
        tree([directory("d"), link("b", "d")])


def test_a_file_under_a_lower_symlink_goes_where_the_symlink_leads() -> None:
    lower = [directory("usr/lib"), symlink("lib", "usr/lib")]
    assert tree(lower, [file("lib/x", 3)])["usr/lib/x"] == (1, 3)
    lower = [directory("usr/lib"), symlink("a", "/usr/../usr"), symlink("b", "a/lib")]
    assert tree(lower, [file("b/x", 3)])["usr/lib/x"] == (1, 3)


def test_a_directory_entry_replaces_a_lower_symlink() -> None:
    lower = [directory("usr/lib"), symlink("lib", "usr/lib")]
    assert tree(lower, [directory("lib"), file("lib/x", 3)]) == {
        "lib": "dir",
        "lib/x": (1, 3),
        "usr": "dir",
        "usr/lib": "dir",
    }


def test_no_symlink_leads_out_of_the_root() -> None:
    for target in ("../../../etc", "/../../etc", "/etc"):
        merged = tree([symlink("out", target)], [file("out/passwd", 3)])
        assert merged["etc/passwd"] == (1, 3)


def test_symlinks_that_lead_in_a_circle_are_refused() -> None:
    with pytest.raises(BadImage, match="too many symbolic links"):
        tree([symlink("a", "b"), symlink("b", "a"), file("a/x")])


def test_a_whiteout_acts_through_a_symlinked_parent() -> None:
    lower = [file("usr/lib/x"), symlink("lib", "usr/lib")]
    assert "usr/lib/x" not in tree(lower, [whiteout("lib/x")])


def test_a_child_of_a_lower_file_makes_a_directory_of_it() -> None:
    assert tree([file("a")], [file("a/b", 2)]) == {"a": "dir", "a/b": (1, 2)}


@pytest.mark.parametrize("name", ["./a", "/a", "//a", "a/", ".//./a/."])
def test_names_are_the_same_however_they_are_written(name: str) -> None:
    assert tree([file(name)]) == {"a": (0, 1)}


@pytest.mark.parametrize("name", ["..", "../a", "a/../b", "a/.."])
def test_a_name_that_climbs_is_refused(name: str) -> None:
    for member in (file(name), directory(name), link("x", name)):
        with pytest.raises(BadImage, match="climbs"):
            tree([file("x"), member])


def test_dots_within_a_name_are_just_dots() -> None:
    assert tree([file("a..b"), file("...")]) == {"a..b": (0, 1), "...": (0, 1)}


def test_names_of_any_bytes_are_kept() -> None:
    for name in (b"new\nline", b"latin-\xe9", b"nfd-e\xcc\x81", b"back\\slash", b" "):
        assert name in modes([Member(name, tar.FILE, 0, 0, 0, 0, b"", 0)])


def test_a_component_has_at_most_255_bytes() -> None:
    assert list(tree([file("x" * 255)])) == ["x" * 255]
    for name in ("x" * 256, f"{'x' * 256}/a"):
        with pytest.raises(BadImage, match="too long"):
            tree([file(name)])


def test_devices_are_left_out_and_take_nothing_with_them_but_their_name() -> None:
    device = Member(b"a", tar.CHARACTER, 0o666, 0, 0, 0, b"", 0)
    assert tree([file("a"), file("b")], [device]) == {"b": (0, 1)}


def test_the_bookkeeping_of_aufs_is_no_part_of_the_image() -> None:
    assert tree([file(".wh..wh.aufs"), directory(".wh..wh.plnk"), file(".wh..wh.plnk/1.2")]) == {}


def test_a_malformed_whiteout_is_refused() -> None:
    for name in (".wh.", "d/.wh.", ".wh..", "d/.wh..."):
        with pytest.raises(BadImage, match="malformed whiteout"):
            tree([file(name)])


def test_a_whiteout_may_be_a_hard_link_as_aufs_has_it() -> None:
    assert tree([file("a"), file("b")], [whiteout("a"), link(".wh.b", ".wh.a")]) == {}


def test_a_whiteout_may_delete_the_longest_name() -> None:
    assert tree([file("x" * 255)], [whiteout("x" * 255)]) == {}


def test_a_hard_link_to_a_device_is_left_out_as_the_device_is() -> None:
    device = Member(b"null", tar.CHARACTER, 0o666, 0, 0, 0, b"", 0)
    assert tree([device, link("a", "null")], [link("b", "null"), file("c")]) == {"c": (1, 1)}


def test_a_name_below_a_file_of_its_own_layer_is_refused() -> None:
    for parents in ([file("a")], [file("b"), symlink("a", "b")]):
        with pytest.raises(BadImage, match="'a/x' is below what is no directory"):
            tree([*parents, file("a/x")])


def test_a_symbolic_link_leads_out_of_what_is_not_there() -> None:
    assert tree([symlink("s", "no/../d"), file("s/x", 3)])["d/x"] == (0, 3)


def test_a_circle_below_is_none_once_the_layer_has_a_directory_there() -> None:
    upper = [directory("a"), file("a/x", 3), link("b", "a/x")]
    assert tree([symlink("a", "a")], upper)["b"] == (1, 3)


def test_a_symbolic_link_has_the_mode_that_linux_gives_it() -> None:
    assert modes([Member(b"s", tar.SYMLINK, 0o600, 0, 0, 0, b"x", 0)])[b"s"] == 0o777


def test_the_policy_lets_all_read_and_nobody_be_somebody_else() -> None:
    members = [file("f", mode=0o6700), file("g", mode=0o000), directory("d", 0o2700)]
    found = modes(members)
    assert (found[b"f"], found[b"g"], found[b"d"]) == (0o755, 0o444, 0o755)


def test_times_before_1970_and_after_2106_are_cut() -> None:
    for given_time, kept in ((-5, 0), (1 << 40, (1 << 32) - 1), (7, 7)):
        member = Member(b"f", tar.FILE, 0, given_time, 0, 0, b"", 0)
        assert merged([member]).root.children[b"f"].mtime == kept


def test_an_image_without_layers_is_what_must_be_there() -> None:
    assert modes() == {
        b"": 0o755,
        b"dev": 0o755,
        b"proc": 0o755,
        b"sys": 0o755,
        b"tmp": 0o1777,
    }
