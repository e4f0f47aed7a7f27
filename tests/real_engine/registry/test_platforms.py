import pytest

from real_engine.errors import InvalidParameter
from real_engine.registry.manifests import Descriptor
from real_engine.registry.names import sha256
from real_engine.registry.platforms import Platform


def _index(*platforms: str) -> list[Descriptor]:
    described = []
    for platform in platforms:
        os, architecture, *variant = platform.split("/")
        fields = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        described.append(Descriptor("", sha256(platform.encode()), 1, platform=fields))
    return described


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/amd64", ("linux/arm64", "linux/amd64"), 1),
        ("linux/x86_64", ("linux/arm64", "linux/amd64"), 1),
        ("linux/arm64", ("linux/arm64/v8",), 0),
        ("linux/arm64/v8", ("linux/arm64",), 0),
        ("linux/arm/v7", ("linux/arm/v5", "linux/arm/v6", "linux/arm/v7"), 2),
        ("linux/arm/v6", ("linux/arm/v5", "linux/arm/v7"), 0),
        ("linux/arm/v6", ("linux/arm/v7",), None),
        ("linux/amd64", ("windows/amd64", "unknown/unknown"), None),
        ("linux/amd64", ("linux/amd64/v3",), None),
        ("linux/amd64/v3", ("linux/amd64", "linux/amd64/v2"), 1),
        ("linux/amd64", ("linux/amd64", "linux/amd64"), 0),
        ("linux/s390x", (), None),
    ],
)
def test_choice(wanted: str, there: tuple[str, ...], chosen: int | None) -> None:
    index = _index(*there)
    assert (None if chosen is None else index[chosen]) == Platform.parse(wanted).choose(index)


def test_what_is_left_out_is_this_machines() -> None:
    here = Platform.of_this_machine()
    assert here == Platform.parse("linux")
    assert Platform("linux", "arm64") == Platform.parse("aarch64")
    assert "linux/arm/v7" == str(Platform.parse("linux/armhf"))


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "linux/amd 64", "nonsense", "linux/../x"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid argument"):
        Platform.parse(text)
