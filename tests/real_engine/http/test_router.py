import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.errors import NotFound
from real_engine.http.router import Router

PATTERNS = (
    "/images/json",
    "/images/{name*}/json",
    "/images/{name*}",
    "/images/{name*}/get",
    "/images/get",
    "/containers/{id}/json",
    "/containers/{id}",
    "/containers/{id}/attach/ws",
)


@pytest.fixture(scope="module")
def router():
    router = Router()
    for pattern in PATTERNS:
        router.add("GET", pattern, lambda request: None)
    return router


@pytest.mark.parametrize(
    ("path", "pattern", "variables"),
    [
        ("/images/json", "/images/json", {}),
        ("/images/get", "/images/get", {}),
        ("/images/a/json", "/images/{name*}/json", {"name": "a"}),
        ("/images/host:5000/a/b:c/json", "/images/{name*}/json", {"name": "host:5000/a/b:c"}),
        ("/images/json/json", "/images/{name*}/json", {"name": "json"}),
        ("/images/a/b", "/images/{name*}", {"name": "a/b"}),
        ("/containers/json/json", "/containers/{id}/json", {"id": "json"}),
        ("/containers/a", "/containers/{id}", {"id": "a"}),
        ("/containers/a/attach/ws", "/containers/{id}/attach/ws", {"id": "a"}),
    ],
)
def test_the_most_literal_pattern_wins(router, path, pattern, variables):
    _, found, matched = router.find("GET", path)
    assert (pattern, variables) == (matched, found)


@pytest.mark.parametrize("path", ["/containers/a/b", "/containers//json", "/images/", "/", "", "x", "/nosuch/a"])
def test_nothing_is_found(router, path):
    assert router.find("GET", path) is None


def test_another_method_is_another_route(router):
    assert router.find("POST", "/images/json") is None


@given(st.text(max_size=40))
def test_any_path_can_be_asked_for(router, path):
    found = router.find("GET", "/images/" + path)
    assert found is None or found[2] in PATTERNS


def test_twice_the_same_is_a_mistake(router):
    for pattern in PATTERNS:
        with pytest.raises(ValueError, match="already"):
            router.add("GET", pattern, lambda request: None)
    assert {("GET", pattern) for pattern in PATTERNS} == set(router.routes())


def test_a_request_for_nothing(router):
    class Request:
        method, path = "GET", "/x"

    with pytest.raises(NotFound, match=r"^page not found$"):
        router(Request())
