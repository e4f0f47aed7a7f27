"""Wishes for mounts are read, and refused, as Docker does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import InvalidParameter
from real_engine.volumes.specifications import parse_bind, parse_mount, parse_tmpfs, parse_volumes_from

# What dockerd 20.10.24 says.
_BAD_BINDS = {
    "": "invalid volume specification: ''",
    "x": "invalid volume specification: 'x': invalid mount config for type \"volume\": "
    "invalid mount path: 'x' mount path must be absolute",
    "/a:b": "invalid volume specification: '/a:b': invalid mount config for type \"bind\": "
    "invalid mount path: 'b' mount path must be absolute",
    "/a:/": "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
    "invalid specification: destination can't be '/'",
    "/a:/b:/c": "invalid mode: /c",
    "/a:/b:foo": "invalid mode: foo",
    "/a:/b:ro:foo": "invalid volume specification: '/a:/b:ro:foo'",
    "/a:/b:ro,rw": "invalid mode: ro,rw",
    "/a:/b:nocopy": "invalid volume specification: '/a:/b:nocopy': invalid mount config for type \"bind\": "
    "field VolumeOptions must not be specified",
    "vol:/b:rslave": "invalid volume specification: 'vol:/b:rslave': invalid mount config for type \"volume\": "
    "field BindOptions must not be specified",
}


@pytest.mark.parametrize(("text", "message"), _BAD_BINDS.items())
def test_a_bind_that_is_none(text, message):
    with pytest.raises(InvalidParameter) as caught:
        parse_bind(text)
    assert message == str(caught.value)


def test_binds():
    bind = parse_bind("/a/../b/:/c/:ro,z,rslave")
    assert ("bind", "/b", "/c", False, "rslave", "ro,z,rslave", True) == tuple(
        bind[key] for key in ("type", "source", "destination", "writable", "propagation", "mode", "make_source")
    )
    named = parse_bind("vol:/b:nocopy", default_driver="sample")
    assert ("volume", "vol", False, "sample", False) == tuple(
        named[key] for key in ("type", "name", "copy_up", "driver", "make_source")
    )
    assert parse_bind("/b")["anonymous"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"Type": "zzz", "Target": "/b"}, "mount type unknown"),
        ({"Type": "bind", "Source": "rel", "Target": "/b"}, "invalid mount path: 'rel' mount path must be absolute"),
        ({"Type": "bind", "Target": "/b"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "/tmp"}, "field Target must not be empty"),
        (
            {"Type": "bind", "Source": "/tmp", "Target": "/b", "BindOptions": {"Propagation": "zzz"}},
            "invalid propagation mode: zzz",
        ),
        ({"Type": "bind", "Source": "/tmp", "Target": "/b", "VolumeOptions": {}}, "field VolumeOptions must not be"),
        ({"Type": "volume", "Target": "/b", "ReadOnly": True}, "must not set ReadOnly mode when using anonymous"),
        ({"Type": "volume", "Source": "v", "Target": "/b", "BindOptions": {}}, "field BindOptions must not be"),
        ({"Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": {"Subpath": "a/../../b"}}, "subpath must"),
        ({"Type": "tmpfs", "Source": "x", "Target": "/b"}, "field Source must not be specified"),
    ],
)
def test_a_mount_that_is_none(spec, reason):
    with pytest.raises(InvalidParameter) as caught:
        parse_mount(spec)
    assert str(caught.value).startswith(f'invalid mount config for type "{spec["Type"]}": {reason}')


def test_a_mount_of_a_volume():
    spec = {
        "Type": "volume",
        "Source": "v",
        "Target": "/b",
        "VolumeOptions": {
            "NoCopy": True,
            "Labels": {"a": "b"},
            "Subpath": "x/y",
            "DriverConfig": {"Name": "sample", "Options": {"size": "3"}},
        },
    }
    found = parse_mount(spec)
    assert (False, (("a", "b"),), "x/y", "sample", (("size", "3"),)) == tuple(
        found[key] for key in ("copy_up", "labels", "subpath", "driver", "driver_options")
    )


@pytest.mark.parametrize("value", [3, [], {"a": 3}, True])
def test_fields_of_another_type(value):
    with pytest.raises(InvalidParameter):
        parse_mount({"Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": {"Labels": {"a": value}}})


def test_tmpfs_options():
    assert ("nosuid", "nodev", "noexec") == parse_tmpfs("")["options"]
    found = parse_tmpfs("size=64m,exec,mode=1777,ro")
    assert (64 << 20, 0o1777, False) == (found["size_bytes"], found["file_mode"], found["writable"])
    assert {"nosuid", "nodev", "exec", "size=64m", "mode=1777", "ro"} == set(found["options"])
    for text, message in (
        ("foo=bar", 'invalid tmpfs option ["foo" "bar"]'),
        ("foo", 'invalid tmpfs option ["foo"]'),
        ("size=zz", 'invalid tmpfs option ["size" "zz"]'),
    ):
        with pytest.raises(InvalidParameter) as caught:
            parse_tmpfs(text)
        assert message == str(caught.value)


def test_volumes_from():
    assert ("c", "rw") == parse_volumes_from("c")
    assert ("c", "ro") == parse_volumes_from("c:ro")
    for text in ("", "c:zz", "c:nocopy"):
        with pytest.raises(InvalidParameter):
            parse_volumes_from(text)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:/.,rowzZ-\0 n", max_size=24))
def test_no_text_breaks_the_parser_and_a_target_is_never_relative(text):
    try:
        found = parse_bind(text)
    except InvalidParameter:
        return
    assert found["destination"].startswith("/")
    assert ".." not in found["destination"].split("/")
    assert found["destination"] != "/"
