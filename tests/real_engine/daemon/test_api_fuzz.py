"""Whatever the description allows to be asked: no answer is 500 by a fault of ours, and none hangs.

Requests are made from Docker's description with fixed seeds. They are kept harmless: no privileges, nothing of the
host's mounted, no network but none; and nothing waits for something to happen.
"""

import copy
import re
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from engine_api import EngineApi
from served_engine import IMAGE, ServedEngine, served

schemathesis = pytest.importorskip("schemathesis")

pytestmark = [pytest.mark.root]

EXAMPLES = 6
SECONDS = 10.0
# These wait for something (a stream of events, a container's end), or reach for other machines.
ENDLESS = re.compile(
    "/events|/wait|/attach|/session|/images/create|/images/search|/auth|/distribution|/push|/plugins/pull"
)
HARMLESS_HOST = {"NetworkMode": "none", "Memory": 64 << 20}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    with served(tmp_path_factory.mktemp("fuzz")) as engine:
        yield engine


@pytest.fixture(scope="module")
def schema(description: Any) -> Any:
    document = copy.deepcopy(description._document)
    for path in [path for path in document["paths"] if ENDLESS.search(path)]:
        del document["paths"][path]
    for item in document["paths"].values():
        for operation in (one for verb, one in item.items() if verb in ("get", "head", "post", "put", "delete")):
            if "application/json" not in operation.get("consumes", ["application/json"]):
                # An archive: `test_archive.py` has broken ones. Here it is JSON, or nothing, in its place.
                operation["parameters"] = [one for one in operation.get("parameters", []) if one["in"] != "body"]
            operation["consumes"] = ["application/json"]
            operation["parameters"] = [one for one in operation.get("parameters", []) if one["in"] != "header"]
    return schemathesis.openapi.from_dict(document)


def _harmless(path: str, body: Any) -> Any:
    """The body, without what would reach out of the container."""
    if path == "/containers/create" and isinstance(body, dict):
        host = body.get("HostConfig")
        kept = (
            {name: host[name] for name in ("RestartPolicy", "ShmSize", "Init") if name in host}
            if isinstance(host, dict)
            else {}
        )
        return {**body, "Image": IMAGE, "HostConfig": {**kept, **HARMLESS_HOST}}
    if path == "/networks/create" and isinstance(body, dict):
        return {**body, "Driver": "bridge", "IPAM": {}, "Options": {}}
    return body


def test_nothing_that_is_asked_breaks_it(engine: ServedEngine, schema: Any) -> None:
    api = EngineApi(engine.api.path, timeout=SECONDS, image=IMAGE)
    victims = [api.run("sleep", "1000", name="victim")]
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 85
    broken: list[str] = []
    began = time.monotonic()

    wanted = schemathesis.GenerationMode
    described = [(one, one.as_strategy(generation_mode=wanted.POSITIVE)) for one in operations]
    # Bodies that are not as described: other types, missing and additional fields.
    against = [(one, one.as_strategy(generation_mode=wanted.NEGATIVE)) for one in operations if one.body]
    for _, cases in described + against:

        @hypothesis.seed(4)
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=cases, own=hypothesis.strategies.booleans())
        def ask(case: Any, own: bool) -> None:
            values = dict(case.path_parameters or {})
            if own and values and case.path.startswith("/containers"):
                values = dict.fromkeys(values, victims[-1])
            path = re.sub(r"\{(\w+)\}", lambda found: _quoted(values.get(found[1], "x")), case.path)
            query = {
                name: value
                for name, value in (case.query or {}).items()
                if name not in ("follow", "stream") and isinstance(value, str | int | bool | list | dict)
            }
            if path.endswith("/stats"):
                query |= {"stream": 0, "one-shot": 1}
            body = case.body if isinstance(case.body, dict | list | str | int | bytes) else None
            answer = api.request(case.method.upper(), path, _harmless(case.path, body), **query)
            if answer.status == 500 and re.search(rb'"message":"\w*(Error|Exception): ', answer.body):
                broken.append(f"{case.method} {path} {query} {body!r}: {answer.body[:300]!r}")

        ask()
        if api.get(f"/containers/{victims[-1]}/json").status != 200:
            victims.append(api.run("sleep", "1000"))

    answered = {status for _, _, status in api.heard}
    assert {200, 201, 204, 400, 404, 409} <= answered
    assert [] == broken, "\n".join(broken)
    assert "Traceback" not in engine.daemon.log
    assert time.monotonic() - began < 60


def _quoted(value: Any) -> str:
    from urllib.parse import quote

    return quote(str(value), safe="") or "x"
