import time
from pathlib import Path

import pytest

from real_engine.errors import EngineError
from real_engine.registry.passwords import Passwords, hash_password


def _basic(name: str, password: str) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_hash_of_others_is_understood(tmp_path: Path) -> None:
    # The second of the test vectors of crypt_blowfish, as `$2y$` and as `$2b$`.
    known = "$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"
    users = tmp_path / "users"
    users.write_text(f"y:$2y{known}\nb:$2b{known}\n")
    passwords = Passwords(users)
    assert ["y", "b", None] == [passwords.check(_basic(name, "U*U*")) for name in ("y", "b", "c")]
    assert passwords.check(_basic("y", "U*U")) is None


def test_the_time_of_an_answer_does_not_tell_which_names_there_are(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(f"anna:{hash_password('right', cost=4)}\n")  # `htpasswd -B` takes 5, and we 10: 64 times as long
    passwords = Passwords(users)

    def seconds(name: str) -> float:
        begin = time.process_time()
        assert passwords.check(_basic(name, "wrong")) is None
        return time.process_time() - begin

    assert min(seconds("nobody") for _ in range(5)) < 8 * min(seconds("anna") for _ in range(5))
    assert passwords.check(_basic("nobody", "right")) is None  # though it is compared with another's


def test_hashes_are_salted() -> None:
    first, second = (hash_password("same", cost=4) for _ in range(2))
    assert first != second
    assert first.startswith("$2y$04$")


def test_password_that_bcrypt_would_cut() -> None:
    with pytest.raises(EngineError, match="72 bytes"):
        hash_password("x" * 73)


@pytest.mark.parametrize("line", ["anna:plain", "anna:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", ":$2y$05$", "anna"])
def test_line_that_is_no_bcrypt(tmp_path: Path, line: str) -> None:
    users = tmp_path / "users"
    users.write_text(f"# first\n{line}\n")
    with pytest.raises(EngineError, match="line 2"):
        Passwords(users)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No such file"):
        Passwords(tmp_path / "users")
