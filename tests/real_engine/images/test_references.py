"""References are read, normalised and refused as distribution/reference does."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.images.references import Reference, check_digest

DIGEST = "sha256:" + "0123456789abcdef" * 4

ALPHANUMERIC = string.ascii_lowercase + string.digits
components = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
domains = st.sampled_from(
    ["docker.io", "localhost", "localhost:5000", "quay.io", "127.0.0.1:5001", "[::1]:5000", "Reg"]
)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/library/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("onggi/app", "docker.io/onggi/app", "onggi/app"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("quay.io/a/b/c@" + DIGEST, "quay.io/a/b/c@" + DIGEST, "quay.io/a/b/c@" + DIGEST),
        ("a:1@" + DIGEST, "docker.io/library/a:1@" + DIGEST, "a:1@" + DIGEST),
        ("FOO/bar", "FOO/bar", "FOO/bar"),
        ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f", "a__b/c--d/e.f"),
    ],
)
def test_short_names_are_made_long_and_long_ones_short(text, canonical, familiar):
    reference = Reference.parse(text)
    assert canonical == reference.canonical
    assert familiar == reference.familiar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a\n", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:12", "invalid reference format"),
        ("a@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("a@sha256:" + "a" * 63, "invalid checksum digest length"),
        ("a@md5:" + "a" * 32, "unsupported digest algorithm"),
        ("FOO", "invalid reference format: repository name (library/FOO) must be lowercase"),
        ("foo/BAR:x", "invalid reference format: repository name (foo/BAR) must be lowercase"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("q.io/" + "a/" * 130 + "a", "repository name must not be more than 255 characters"),
    ],
)
def test_what_is_no_reference_is_refused_in_dockers_words(text, message):
    with pytest.raises(InvalidParameter) as caught:
        Reference.parse(text)
    assert message == str(caught.value)


def test_the_longest_name_and_tag_are_taken():
    name = "quay.io/" + "a" * (255 - len("quay.io/"))
    assert 255 == len(Reference.parse(f"{name}:{'t' * 128}").name)


@settings(max_examples=60)
@given(domains, st.lists(components, min_size=1, max_size=3), st.none() | tags, st.booleans())
def test_what_is_written_reads_the_same(domain, path, tag, with_digest):
    text = "/".join([domain, *path]) + (f":{tag}" if tag else "") + (f"@{DIGEST}" if with_digest else "")
    reference = Reference.parse(text)
    assert reference == Reference.parse(reference.canonical)
    assert reference == Reference.parse(reference.familiar)
    assert reference.with_default_tag() == Reference.parse(reference.with_default_tag().familiar)
    assert (tag or "") == reference.tag
    assert (DIGEST if with_digest else "") == reference.digest


@settings(max_examples=200)
@given(st.text(alphabet=ALPHANUMERIC + "ABC:/@._-[] é\n", max_size=40))
def test_any_text_is_either_refused_or_reads_back(text):
    try:
        reference = Reference.parse(text)
    except InvalidParameter:
        return
    assert reference == Reference.parse(reference.familiar)


def test_a_tag_or_a_digest_takes_the_others_place():
    reference = Reference.parse("a:1")
    assert "a:latest" == Reference.parse("a").with_default_tag().familiar
    assert "a:2" == reference.with_tag("2").familiar
    assert f"a@{DIGEST}" == reference.with_digest(DIGEST).familiar
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        reference.with_tag("a/b")


@pytest.mark.parametrize("text", ["", "sha256", "sha256:", ":abc", "sha256:" + "g" * 64])
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(InvalidParameter, match="invalid checksum digest"):
        check_digest(text)
