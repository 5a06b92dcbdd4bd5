"""Of an index the right manifest is chosen, and what is no image is refused with its reason."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shifter_lite.build import manifest as documents
from shifter_lite.build.manifest import INDEXES, MANIFESTS, Manifest
from shifter_lite.build.registry import Registry
from shifter_lite.build.wire.patience import Patience
from shifter_lite.errors import BadImage
from shifter_lite.reference import Reference
from tests.helpers import faulty, images

OTHER = "sha256:" + "0" * 64
QUICK = Patience(attempts=1)


def entry(platform: object = None, digest: str = OTHER, **more: Any) -> dict[str, Any]:
    """Return what stands in an index for PLATFORM, a text or whatever it is."""
    found = {"mediaType": images.OCI_MANIFEST, "digest": digest, "size": 7, **more}
    if isinstance(platform, str):
        names = ("os", "architecture", "variant")
        platform = dict(zip(names, platform.split("/"), strict=False))
    return found if platform is None else {**found, "platform": platform}


def numbered(*platforms: object) -> dict[str, Any]:
    digests = (f"sha256:{number:064x}" for number in range(99))
    pairs = zip(platforms, digests, strict=False)
    return {"manifests": [entry(platform, digest) for platform, digest in pairs]}


def chosen(wanted: str, *platforms: object) -> int:
    """Return which of PLATFORMS is chosen for the one that is WANTED."""
    return int(documents.choose(numbered(*platforms), wanted).digest[-8:], 16)


@pytest.mark.parametrize(
    ("wanted", "offered", "number"),
    [
        ("linux/amd64", ["linux/arm64/v8", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64/v1"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/386"], 0),
        ("linux/amd64", ["windows/amd64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/amd64", ["Linux/X86_64"], 0),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/amd64/v4", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 2),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], 1),
        ("linux/arm/v7", ["linux/arm"], 0),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], 1),
        ("linux/amd64", ["unknown/unknown", "linux/amd64", "unknown/unknown"], 1),
        ("linux/amd64", [None, "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", None], 1),
        ("linux/amd64", [None, None], 0),
        ("linux/amd64", [{"architecture": "amd64"}], 0),
        ("linux/amd64", [{"os": "linux", "architecture": "amd64", "variant": None}], 0),
        (
            "linux/amd64",
            [{"os": "linux", "architecture": "amd64", "os.version": 7, "os.features": ["x"]}],
            0,
        ),
    ],
)
def test_the_best_that_the_machine_can_run_is_chosen(
    wanted: str, offered: list[object], number: int
) -> None:
    assert chosen(wanted, *offered) == number


@pytest.mark.parametrize(
    ("wanted", "offered", "hint"),
    [
        ("linux/amd64", [], "for no platform"),
        ("linux/amd64", ["unknown/unknown"], "for no platform"),
        ("linux/amd64", ["linux/s390x", "linux/arm64/v8"], "linux/arm64, linux/s390x"),
        ("linux/amd64", ["linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/arm/v6", ["linux/arm"], "linux/arm/v7"),
        ("linux/amd64", [{"os": "linux"}, {}], "for no platform"),
        ("linux/amd64", [{"os": "\x1b[2J", "architecture": "x"}], "for no platform"),
    ],
)
def test_what_there_is_not_is_said_with_what_there_is(
    wanted: str, offered: list[object], hint: str
) -> None:
    with pytest.raises(BadImage, match=f"not made for '{wanted}'") as caught:
        chosen(wanted, *offered)
    assert hint in caught.value.hint
    assert "\x1b" not in caught.value.hint


@pytest.mark.parametrize("odd", [5, "", "linux/amd64", [], True])
def test_a_platform_of_an_odd_type_is_refused(odd: object) -> None:
    index = {"manifests": [entry("linux/amd64"), {**entry(), "platform": odd}]}
    with pytest.raises(BadImage, match="platform that is none"):
        documents.choose(index, "linux/amd64")


@pytest.mark.parametrize("key", ["os", "architecture", "variant"])
@pytest.mark.parametrize("odd", [5, [], {}, True])
def test_a_word_of_a_platform_of_an_odd_type_is_refused(key: str, odd: object) -> None:
    platform = {"os": "linux", "architecture": "amd64", key: odd}
    with pytest.raises(BadImage, match="platform that is none"):
        chosen("linux/amd64", platform)


@pytest.mark.parametrize("entries", [None, {}, "x", 5])
def test_an_index_that_lists_nothing_is_refused(entries: object) -> None:
    with pytest.raises(BadImage, match="no list of manifests"):
        documents.choose({"manifests": entries}, "linux/amd64")


def test_what_is_about_another_manifest_is_no_choice() -> None:
    about = {"vnd.docker.reference.type": "attestation-manifest"}
    index = {"manifests": [entry(annotations=about), entry(mediaType="application/x", size="?")]}
    with pytest.raises(BadImage, match="not made for"):
        documents.choose(index, "linux/amd64")


# ----------------------------------------------------------------------------------- descriptors


def config(**more: Any) -> dict[str, Any]:
    return {"mediaType": images.OCI_CONFIG, "digest": OTHER, "size": 7, **more}


def layer(**more: Any) -> dict[str, Any]:
    return {"mediaType": images.OCI_LAYER, "digest": OTHER, "size": 7, **more}


def read(**document: Any) -> Manifest:
    made = {"config": config(), "layers": [], **document}
    return documents.read_manifest(made, OTHER, "")


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"digest": "sha512:" + "0" * 128}, "bad digest: 'sha512:"),
        ({"digest": "sha256:" + "0" * 63}, "bad digest"),
        ({"digest": "SHA256:" + "0" * 64}, "bad digest"),
        ({"digest": "../../etc/passwd"}, "bad digest"),
        ({"digest": None}, "no proper"),
        ({"digest": 7}, "no proper"),
        ({"size": -1}, "no proper"),
        ({"size": 7.0}, "no proper"),
        ({"size": "7"}, "no proper"),
        ({"size": True}, "no proper"),
        ({"size": None}, "no proper"),
        ({"size": 1 << 63}, "no proper"),
        ({"mediaType": None}, "no proper"),
        ({"mediaType": 7}, "no proper"),
        ({"data": "e30"}, "is not base64"),
        ({"data": 7}, "is not base64"),
        ({"data": "\u00e9"}, "is not base64"),
        ({"data": "e30="}, "data has not the digest and size"),
    ],
)
def test_a_descriptor_that_is_none_is_refused(odd: dict[str, Any], words: str) -> None:
    for document in ({"config": config(**odd)}, {"layers": [layer(), layer(**odd)]}):
        with pytest.raises(BadImage, match=words):
            read(**document)


def test_another_kind_of_digest_is_refused_with_a_sentence() -> None:
    with pytest.raises(BadImage) as caught:
        read(layers=[layer(digest="sha512:" + "0" * 128)])
    assert caught.value.hint == "digests of the kind sha512 are not known here, only sha256"


@pytest.mark.parametrize(
    "document",
    [
        {"artifactType": "application/x"},
        {"subject": config()},
        {"subject": 7},
        {"annotations": None},
        {"config": config(urls=["http://x"], annotations=7, artifactType="x")},
        {"layers": [layer(urls=["file:///etc/passwd"])]},
        {"layers": [layer(size=0)]},
        {"schemaVersion": "two"},
    ],
)
def test_what_does_no_harm_is_ignored(document: dict[str, Any]) -> None:
    assert read(**document).config.digest == OTHER


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"config": config(mediaType="application/vnd.oci.empty.v1+json")}, "not a container"),
        ({"config": config(mediaType="application/vnd.cncf.helm.config.v1+json")}, "helm"),
        ({"config": config(mediaType="application/octet-stream")}, "not a container"),
        ({"layers": [layer(mediaType=images.OCI_LAYER + "+encrypted")]}, "unknown media type"),
        ({"layers": [layer(mediaType="application/vnd.in-toto+json")]}, "unknown media type"),
        ({"layers": [layer(mediaType=images.OCI_LAYER + "+encrypted")]}, "--decryption-key"),
        ({"layers": [layer(mediaType=images.OCI_LAYER + ".foreign")]}, "layer 1 is foreign"),
    ],
)
def test_what_is_no_image_is_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(BadImage) as caught:
        read(**document)
    assert words in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "text/html", ""])
def test_what_old_dockers_called_a_config_is_one(kind: str) -> None:
    found = read(mediaType=images.DOCKER_MANIFEST, config=config(mediaType=kind))
    assert found.config.media_type == kind


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([*INDEXES, *MANIFESTS, OTHER, images.OCI_CONFIG, images.OCI_LAYER]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["mediaType", "config", "layers", "manifests", "digest", "size", "platform", "os"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["mediaType", "config", "layers", "manifests"]), JSON))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    for use in (
        lambda: documents.media_type(document, "application/json"),
        lambda: documents.choose(document, "linux/amd64"),
        lambda: documents.read_manifest(document, OTHER, ""),
        lambda: documents.read_config(
            document, Manifest(OTHER, "", documents.Descriptor("", "", 0), ())
        ),
    ):
        with suppress(BadImage):
            use()


# -------------------------------------------------------------------------- from a registry


def small(platform: str = "linux/amd64", text: bytes = b"x") -> images.Image:
    return images.image([images.layer([images.file("x", text)])], platform=platform)


def manifest_of(served: faulty.Registry, platform: str = "linux/amd64") -> Manifest:
    reference = Reference.parse(f"{served.address}/x:1")
    registry = Registry(reference, patience=QUICK)
    found = registry.manifest(platform)
    registry.config(found)
    return found


def nested(inner: images.Image, platform: object = None) -> images.Image:
    """Return an index of INNER, said to be for PLATFORM."""
    named = entry(platform, inner.digest, mediaType=inner.media_type, size=len(inner.document))
    document = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [named]}
    made = images.seal(document)
    return images.Image(
        document=made.document, media_type=made.media_type, blobs=made.blobs, children=(inner,)
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_an_index_in_an_index_is_followed(faulty_registry: faulty.Registry, depth: int) -> None:
    image = small()
    index = images.index({"linux/s390x": small("linux/s390x"), "linux/amd64": image})
    for _ in range(depth - 1):
        index = nested(index)
    faulty_registry.add("x", "1", index)
    found = manifest_of(faulty_registry)
    assert (found.digest, found.index_digest) == (image.digest, index.digest)


def test_an_index_in_an_index_has_an_end(faulty_registry: faulty.Registry) -> None:
    index = images.index({"linux/amd64": small()})
    for _ in range(9):
        index = nested(index)
    faulty_registry.add("x", "1", index)
    with pytest.raises(BadImage, match="too many indexes"):
        manifest_of(faulty_registry)


def test_of_several_indexes_the_one_that_has_it_is_found(
    faulty_registry: faulty.Registry,
) -> None:
    image = small()
    inner = [images.index({"linux/s390x": small("linux/s390x", b"%d" % n)}) for n in range(3)]
    inner.append(images.index({"linux/amd64": image}))
    entries = [
        entry(None, each.digest, mediaType=each.media_type, size=len(each.document))
        for each in inner
    ]
    sealed = images.seal({"mediaType": images.OCI_INDEX, "manifests": entries})
    faulty_registry.add("x", "1", sealed)
    for each in inner:
        faulty_registry.add("x", each.digest, each)
    assert manifest_of(faulty_registry).digest == image.digest
    with pytest.raises(BadImage, match="not made for 'linux/ppc64le'"):
        manifest_of(faulty_registry, "linux/ppc64le")


def test_what_an_index_calls_a_manifest_must_be_one(faulty_registry: faulty.Registry) -> None:
    image = small()
    wrong = entry("linux/amd64", image.digest, mediaType=images.OCI_INDEX, size=len(image.document))
    index = images.seal({"mediaType": images.OCI_INDEX, "manifests": [wrong]})
    faulty_registry.add("x", "1", index)
    faulty_registry.add("x", image.digest, image)
    with pytest.raises(BadImage, match="the index calls"):
        manifest_of(faulty_registry)


def test_a_manifest_of_another_size_than_the_index_says_is_refused(
    faulty_registry: faulty.Registry,
) -> None:
    image = small()
    index = images.index({"linux/amd64": image}).content
    index["manifests"][0]["size"] += 1
    faulty_registry.add("x", "1", images.seal(index))
    faulty_registry.add("x", image.digest, image)
    with pytest.raises(BadImage, match=f"should be {len(image.document) + 1} bytes"):
        manifest_of(faulty_registry)


def test_a_manifest_the_registry_lacks_of_those_the_index_lists_is_broken_not_unknown(
    faulty_registry: faulty.Registry,
) -> None:
    index = images.index({"linux/amd64": small()})
    faulty_registry.add("x", "1", images.seal(index.content))
    with pytest.raises(BadImage, match="has no manifest"):
        manifest_of(faulty_registry)


@pytest.mark.parametrize("made_for", ["linux/arm64", "windows/amd64", "linux/a\x1b[2J/b/c/d"])
def test_a_single_image_for_another_machine_is_refused(
    faulty_registry: faulty.Registry, made_for: str
) -> None:
    faulty_registry.add("x", "1", small(made_for))
    with pytest.raises(BadImage, match="the image is made for") as caught:
        manifest_of(faulty_registry)
    assert "--platform" in caught.value.hint
    assert "\x1b" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize("made_for", ["linux/amd64", "Linux/x86_64", "linux/386", "/", "linux/"])
def test_a_single_image_for_this_machine_or_for_none_is_taken(
    faulty_registry: faulty.Registry, made_for: str
) -> None:
    faulty_registry.add("x", "1", small(made_for))
    assert manifest_of(faulty_registry).layers


def test_what_the_index_says_counts_more_than_what_the_config_says(
    faulty_registry: faulty.Registry,
) -> None:
    faulty_registry.add("x", "1", images.index({"linux/amd64": small("linux/arm64")}))
    assert manifest_of(faulty_registry).layers


def test_of_an_index_that_says_nothing_the_config_decides(
    faulty_registry: faulty.Registry,
) -> None:
    faulty_registry.add("x", "1", nested(small()))
    assert manifest_of(faulty_registry).layers
    faulty_registry.add("x", "1", nested(small("linux/arm64")))
    with pytest.raises(BadImage, match="the image is made for 'linux/arm64'"):
        manifest_of(faulty_registry)


def test_what_a_descriptor_holds_need_not_be_asked_for(faulty_registry: faulty.Registry) -> None:
    image = small()
    content = image.content
    for each in (content["config"], *content["layers"]):
        each["data"] = base64.b64encode(image.blobs[each["digest"]]).decode()
    faulty_registry.add("x", "1", images.seal(content))
    registry = Registry(Reference.parse(f"{faulty_registry.address}/x:1"), patience=QUICK)
    found = registry.manifest("linux/amd64")
    assert registry.config(found).platform == "linux/amd64"
    for start in (0, 5, 1 << 20):
        with registry.blob(found.layers[0], start) as piece:
            data = b"".join(iter(lambda: piece(1000), b""))
        assert data == image.blobs[found.layers[0].digest][start:]
    assert len(faulty_registry.requests) == 1


def test_a_config_of_another_size_is_refused(faulty_registry: faulty.Registry) -> None:
    image = small()
    for more in (1, -1, 5 << 20):
        content = json.loads(image.document)
        content["config"]["size"] += more
        faulty_registry.add("x", "1", images.seal(content, image.blobs))
        with pytest.raises(BadImage, match="image config"):
            manifest_of(faulty_registry)


def test_layers_that_are_null_are_none_and_layers_that_lack_are_refused() -> None:
    document = images.image([]).content
    assert documents.read_manifest({**document, "layers": None}, OTHER, "").layers == ()
    del document["layers"]
    with pytest.raises(BadImage, match="no list of layers"):
        documents.read_manifest(document, OTHER, "")
