from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_runc.errors import BadResponse, RegistryError
from clip_runc.registry import referrers
from clip_runc.registry.client import Registry
from clip_runc.registry.fake import FakeRegistry
from clip_runc.registry.image import OCI_INDEX, OCI_MANIFEST, digest_of

Connect = Callable[..., Registry]
KIND = "application/vnd.example.note.v1"
SUBJECT = f"sha256:{'5' * 64}"


def note(number: int, kind: str = KIND, subject: str = SUBJECT) -> bytes:
    layer = {"mediaType": "text/plain", "digest": digest_of(b"note"), "size": 4}
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 100}
    return referrers.artifact_manifest(kind, dict(layer), dict(about), {"number": str(number)})


@pytest.fixture(params=[True, False], ids=["api", "tag"])
def either(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    """A registry with the referrers API, and one without."""
    with FakeRegistry(referrers=request.param) as fake:
        yield fake


def test_attach_and_list(either: FakeRegistry, connect: Connect) -> None:
    registry = connect(either)
    notes = [note(number) for number in range(5)]
    for data in [
        *notes,
        notes[0],
        note(9, kind="application/other"),
        note(8, subject=DIGEST_OTHER),
    ]:
        about = json.loads(data)["subject"]["digest"]
        assert registry.attach(data, about) == (digest_of(data), either.referrers)
    found = registry.referrers(SUBJECT, KIND)
    assert {one.digest for one in found} == {digest_of(data) for data in notes}
    assert {one.annotations["number"] for one in found} == set("01234")
    assert registry.referrers(f"sha256:{'0' * 64}", KIND) == []


DIGEST_OTHER = f"sha256:{'6' * 64}"


def test_the_tag_scheme_keeps_the_entries_of_others(connect: Connect) -> None:
    with FakeRegistry() as fake:
        registry = connect(fake)
        entry = {"mediaType": OCI_MANIFEST, "digest": DIGEST_OTHER, "size": 7, "x": [1]}
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry], "y": 2}
        fake.add_manifest("team/app", referrers.tag_of(SUBJECT), body, OCI_INDEX)
        registry.attach(note(1), SUBJECT)
        held = json.loads(fake.manifests["team/app", referrers.tag_of(SUBJECT)][0])
        assert held["manifests"][0] == entry and held["y"] == 2
        assert len(held["manifests"]) == 2


def test_a_registry_that_fails_is_not_one_without_the_api(connect: Connect) -> None:
    with FakeRegistry(referrers=True) as fake:
        fake.fault("status", 503, times=-1, on="/referrers/")
        with pytest.raises(RegistryError, match="503"):
            connect(fake, attempts=2).referrers(SUBJECT, KIND)


def test_a_list_that_goes_on_elsewhere_is_refused(connect: Connect) -> None:
    with FakeRegistry(referrers=True) as fake:
        link = {"Link": '<https://elsewhere.example/v2/x>; rel="next"'}
        fake.fault("headers", on="/referrers/", headers=link)
        with pytest.raises(BadResponse, match="another host"):
            connect(fake).referrers(SUBJECT, KIND)


def test_a_list_without_end_ends(connect: Connect) -> None:
    with FakeRegistry(referrers=True) as fake:
        link = {"Link": f'</v2/team/app/referrers/{SUBJECT}>; rel="next"'}
        fake.fault("headers", on="/referrers/", headers=link, times=-1)
        assert connect(fake).referrers(SUBJECT, KIND) == []
        assert len(fake.requests("GET", "/referrers/")) < 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "digest": st.just(SUBJECT) | json_values,
        "size": st.just(3) | json_values,
        "mediaType": st.just(OCI_MANIFEST) | json_values,
        "artifactType": st.just(KIND) | json_values,
        "annotations": json_values,
    },
)


@given(st.lists(entries | json_values, max_size=4) | json_values)
def test_whatever_is_listed_is_parsed_or_refused(value: object) -> None:
    data = json.dumps({"manifests": value}).encode()
    try:
        found = referrers.parse(data, "it")
    except BadResponse:
        return
    assert all(one.digest == SUBJECT and isinstance(one.artifact_type, str) for one in found)


@given(json_values)
def test_a_damaged_list_is_replaced_and_what_it_held_is_kept(value: object) -> None:
    updated = referrers.with_entry(json.dumps({"manifests": value}).encode(), note(1))
    held = json.loads(updated)["manifests"]
    assert held[-1]["digest"] == digest_of(note(1))
    assert held[:-1] == (value if isinstance(value, list) else [])
    assert referrers.with_entry(updated, note(1)) == updated
