"""The checker itself: it finds what is wrong, and takes what is as described."""

import pytest

GOOD = {
    "Name": "v1",
    "Driver": "local",
    "Mountpoint": "/v1",
    "Labels": None,
    "Scope": "local",
    "Options": {"a": "b"},
    "UsageData": {"Size": 1, "RefCount": 0},
}


def test_what_is_as_described(check):
    check("GET", "/volumes/v1", 200, GOOD)
    check("GET", "/v1.43/volumes/v1?x=y", 200, GOOD)
    check("GET", "/volumes", 200, {"Volumes": [GOOD, GOOD], "Warnings": None})
    check("GET", "/volumes/v1", 404, {"message": "no such volume"})
    check("DELETE", "/volumes/v1", 204)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Name": 1}, "Name: 1 is not of type 'string'"),
        ({"Name": None}, "Name: None is not of type 'string'"),
        ({"Scope": "elsewhere"}, "Scope: 'elsewhere' is not one of"),
        ({"Options": {"a": 1}}, "Options/a: 1 is not of type 'string'"),
        ({"UsageData": {"Size": "1", "RefCount": 0}}, "UsageData/Size: '1' is not of type 'integer'"),
        ({"UsageData": {"Size": 1}}, "'RefCount' is a required property"),
    ],
)
def test_what_is_not(check, change, problem):
    with pytest.raises(AssertionError, match=r"GET /volumes/\{name\} 200") as caught:
        check("GET", "/volumes/v1", 200, GOOD | change)
    assert problem in str(caught.value)
    with pytest.raises(AssertionError, match="Volumes/1"):
        check("GET", "/volumes", 200, {"Volumes": [GOOD, GOOD | change], "Warnings": None})


def test_statuses_and_calls_that_are_not_described(check):
    with pytest.raises(AssertionError, match="has the statuses"):
        check("GET", "/volumes/v1", 418, {"message": "x"})
    with pytest.raises(AssertionError, match="is not in the description"):
        check("PATCH", "/volumes/v1", 200, GOOD)
    with pytest.raises(AssertionError, match="is not in the description"):
        check("GET", "/nosuch", 200)


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/images/json", "/images/json"),
        ("GET", "/images/a/b:c/json", "/images/{name}/json"),
        ("GET", "/images/a/history", "/images/{name}/history"),
        ("GET", "/images/get", "/images/get"),
        ("DELETE", "/images/a/b", "/images/{name}"),
        ("GET", "/containers/abc/json", "/containers/{id}/json"),
        ("POST", "/containers/create", "/containers/create"),
        ("GET", "/volumes/a", "/volumes/{name}"),
    ],
)
def test_the_template_of_a_path(description, method, path, template):
    assert template == description.template(method, path)
