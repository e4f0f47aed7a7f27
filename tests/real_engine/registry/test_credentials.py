import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_engine.errors import EngineError, InvalidParameter
from real_engine.registry.credentials import (
    ANONYMOUS,
    DOCKER_HUB_KEY,
    Credentials,
    find,
    from_config_header,
    from_header,
    normalized_host,
    to_header,
)

TEXT = st.text(max_size=20)


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT, TEXT)
def test_header_round_trip(username: str, password: str, token: str) -> None:
    credentials = Credentials(username, password, token)
    assert credentials == from_header(to_header(credentials))


@pytest.mark.parametrize("text", ["", "!!", "e30", "bnVsbA==", base64.b64encode(b'{"username": 3}').decode(), "W10="])
def test_header_that_says_nobody(text: str) -> None:
    assert ANONYMOUS == from_header(text)


def test_header_with_the_other_alphabet() -> None:
    fields = {"username": "ü?~>", "password": "ÿ>?"}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for text in (encode(json.dumps(fields, ensure_ascii=False).encode()).decode(),):
            assert Credentials("ü?~>", "ÿ>?") == from_header(text)
            assert Credentials("ü?~>", "ÿ>?") == from_header(text.rstrip("="))


def test_config_header_of_a_build() -> None:
    config = {
        DOCKER_HUB_KEY: {"username": "a", "password": "b"},
        "localhost:5000": {"auth": base64.b64encode(b"c:d:e").decode()},
        "broken": {"auth": "%%%"},
    }
    known = from_config_header(base64.urlsafe_b64encode(json.dumps(config).encode()).decode())
    assert {"docker.io": Credentials("a", "b"), "localhost:5000": Credentials("c", "d:e")} == known
    assert {} == from_config_header("no base64 of JSON")


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("http://localhost:5000", "localhost:5000"),
        ("https://registry.example/v2/", "registry.example"),
    ],
)
def test_host_of_a_key(name: str, host: str) -> None:
    assert host == normalized_host(name)


def test_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("anna", "secret"))


def test_auth_that_cannot_be_read() -> None:
    with pytest.raises(InvalidParameter, match="no base64"):
        Credentials.from_json({"auth": "%"})


def _config(directory: Path, **fields: object) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(fields))
    return path


def test_file_of_docker_login(tmp_path: Path) -> None:
    entry = {"auth": base64.b64encode(b"anna:pass").decode()}
    path = _config(
        tmp_path, auths={"https://localhost:5000": entry, DOCKER_HUB_KEY: {"identitytoken": "t"}, "empty": {}}
    )
    assert Credentials("anna", "pass") == find("localhost:5000", path)
    assert Credentials(identity_token="t") == find("docker.io", path)
    assert ANONYMOUS == find("elsewhere", path)
    assert ANONYMOUS == find("empty", path)
    assert ANONYMOUS == find("docker.io", tmp_path / "none.json")
    path.write_text("{")
    with pytest.raises(EngineError, match="cannot read"):
        find("docker.io", path)


def test_credential_helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-test"
    program.write_text(
        '#!/bin/sh\nread server\ncase "$1 $server" in\n'
        '"get localhost:5000") echo \'{"Username":"anna","Secret":"pass"}\';;\n'
        '"get https://index.docker.io/v1/") echo \'{"Username":"<token>","Secret":"t"}\';;\n'
        '"get broken") echo "no keyring"; exit 1;;\n'
        '*) echo "credentials not found in native keychain"; exit 1;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    path = _config(tmp_path, credsStore="test", credHelpers={"third": "../../bin/sh"})
    assert Credentials("anna", "pass") == find("localhost:5000", path)
    assert Credentials(identity_token="t") == find("docker.io", path)
    assert ANONYMOUS == find("elsewhere", path)
    with pytest.raises(EngineError, match="docker-credential-test failed: no keyring"):
        find("broken", path)
    with pytest.raises(EngineError, match="no name of a credential helper"):
        find("third", path)
