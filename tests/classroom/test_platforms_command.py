"""`onggi platforms`, as a person calls it."""

import json

import pytest

from classroom.cli import main
from simulator.datacenter.platforms import PlatformProfile, shipped_profiles


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_all_are_listed_whole_on_any_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["platforms"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= int(columns) for line in shown.splitlines())
    for name, profile in shipped_profiles().items():
        assert name in shown
        assert profile.startup.total_seconds.kind in shown
    assert "…" in shown  # intervals
    assert "Firecracker-data" in shown
    assert "reference" in shown
    if columns == "200":
        for what in ("from a snapshot", "guest", "none: the host's kernel", "VMM 2.5 MiB"):
            assert what in shown


def test_one_is_shown_with_all_its_phases_and_sources(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["platforms", "microvm-firecracker"]) == 0
    shown = capsys.readouterr().out
    profile = PlatformProfile.from_toml("microvm-firecracker")
    for phase in (*profile.startup.phases, *profile.snapshot.phases):
        assert phase.name in shown
        assert phase.source in shown
    assert profile.memory.private_bytes.source in shown
    assert profile.overhead.io_operation_seconds.source in shown
    assert "161 ms [110 ms … 161 ms] published" in shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("container", ["Kernel: of the machine"]),
        ("container-gvisor", ["Kernel: its own"]),
        ("vm-cloud", ["131 MiB for the VMM", "Kernel: its own", "LightVM §3.2"]),
    ],
)
def test_whose_kernel_and_what_guest_is_told(capsys, monkeypatch, name, words):
    monkeypatch.setenv("COLUMNS", "1000")
    assert main(["platforms", name]) == 0
    shown = capsys.readouterr().out
    for text in words:
        assert text in shown
    assert ("for the VMM" in shown) == (PlatformProfile.from_toml(name).guest is not None)


def test_json_is_what_the_files_say(capsys, tmp_path):
    assert main(["platforms", "--json", "-"]) == 0
    printed = capsys.readouterr().out
    platforms = json.loads(printed)["platforms"]
    assert {
        name: PlatformProfile.model_validate(tree | {"startup": tree["startup"]}) for name, tree in platforms.items()
    } == shipped_profiles()
    assert main(["platforms", "--json", str(tmp_path / "out.json")]) == 0
    assert printed == (tmp_path / "out.json").read_text(encoding="utf-8")


def test_a_platform_of_ones_own_is_shown_by_its_path(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    text = PlatformProfile.from_toml("unikernel").to_toml().replace('name = "unikernel"', 'name = "mine"')
    path.write_text(text, encoding="utf-8")
    assert main(["platforms", str(path), "--json", "-"]) == 0
    assert ["mine"] == list(json.loads(capsys.readouterr().out)["platforms"])


def test_an_unknown_one_is_one_line_and_status_2(capsys):
    assert main(["platforms", "vmware"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "vmware: no such file, and none of the profiles that ship: container, container-dockerd" in printed.err
    assert printed.err.count("\n") == 1
