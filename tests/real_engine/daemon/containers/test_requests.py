"""What a request to create a container may say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.daemon.containers import requests
from real_engine.errors import InvalidParameter


def _host(**given):
    return requests.host_config(given)


def _config(**given):
    return requests.config(given)


def test_an_empty_host_config_has_dockers_defaults() -> None:
    host = _host()
    assert "default" == host["NetworkMode"]
    assert {"Name": "no", "MaximumRetryCount": 0} == host["RestartPolicy"]
    assert {"Type": "json-file", "Config": {}} == host["LogConfig"]
    assert 64 << 20 == host["ShmSize"]
    requests.check_host_config(host, _config())


def test_names_of_fields_are_read_without_regard_to_case() -> None:
    assert 5 == _host(cpushares=5)["CpuShares"]


def test_the_command_lines_way_to_say_nothing_is_nothing() -> None:
    host = _host(MemorySwappiness=-1, PidsLimit=0)
    assert (None, None) == (host["MemorySwappiness"], host["PidsLimit"])


def test_swap_is_twice_the_memory_unless_said() -> None:
    assert 128 << 20 == _host(Memory=64 << 20)["MemorySwap"]
    assert -1 == _host(Memory=64 << 20, MemorySwap=-1)["MemorySwap"]


def test_defaults_are_not_shared_between_requests() -> None:
    _host()["Devices"].append({})
    assert [] == _host()["Devices"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 64 << 20, "MemorySwap": 32 << 20}, "should be larger than memory limit"),
        ({"MemorySwap": 32 << 20}, "You should always set the Memory limit"),
        ({"NanoCpus": 10**15}, "of CPUs is from 0.01"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota"),
        ({"CpusetCpus": "0-"}, "Invalid value 0- for cpuset cpus"),
        ({"CpusetCpus": "4000"}, "Requested CPUs are not available - requested 4000"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "invalid restart policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 2}}, "cannot be used with restart policy 'always'"),
        ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, "can't create 'AutoRemove' container"),
        ({"CapAdd": ["NOSUCH"]}, 'invalid CapAdd: unknown capability: "NOSUCH"'),
        ({"LogConfig": {"Type": "nosuch"}}, "no log driver named 'nosuch'"),
        ({"PortBindings": {"eighty": []}}, 'invalid port specification: "eighty"'),
        ({"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}, 'invalid port specification: "x"'),
        ({"OomScoreAdj": 2000}, "range for oom score adj is"),
        ({"PidMode": "nonsense"}, "invalid PID mode"),
        ({"IpcMode": "nonsense"}, "invalid IPC mode: nonsense"),
        ({"UsernsMode": "private"}, "invalid user namespace mode"),
        ({"SecurityOpt": ["nonsense"]}, 'invalid --security-opt 1: "nonsense"'),
        ({"Runtime": "nosuch"}, "unknown or invalid runtime name: nosuch"),
    ],
)
def test_what_docker_refuses_is_refused_in_its_words(given, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        requests.check_host_config(_host(**given), _config())
    assert message in str(refused.value)


@pytest.mark.parametrize("field", ["Hostname", "Env", "Tty", "Cmd", "Labels"])
def test_a_field_of_another_type_is_named(field: str) -> None:
    with pytest.raises(InvalidParameter, match=field):
        requests.config({field: 1.5})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"WorkingDir": "here"}, "the working directory 'here' is invalid, it needs to be an absolute path"),
        ({"ExposedPorts": {"99999": {}}}, 'invalid port specification: "99999"'),
        ({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_what_is_wrong_with_a_config_is_told(given, message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        requests.check_config(_config(**given))
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["", "a", "-x", "x y", "x/y", "/"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match="only \\[a-zA-Z0-9\\]"):
        requests.check_name(name)


def test_the_slash_before_a_name_is_dropped() -> None:
    assert "web_1" == requests.check_name("/web_1")


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("HUP", 1)]
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert number == requests.signal_number(text)


@pytest.mark.parametrize("text", ["0", "65", "NOSUCH", "", "-1", "RTMIN+99"])
def test_a_signal_that_there_is_not(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid signal"):
        requests.signal_number(text)


@given(st.sets(st.integers(0, 500), min_size=1, max_size=20))
def test_a_list_of_cpus_means_its_numbers(numbers: set[int]) -> None:
    assert numbers == requests.cpu_list(",".join(map(str, numbers)), "CpusetCpus")


@given(st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(["", "/tcp", "/udp", "/SCTP"]))
def test_a_range_of_ports_is_its_numbers_or_refused(first: int, last: int, protocol: str) -> None:
    text = f"{first}-{last}{protocol}"
    if first > last:
        with pytest.raises(InvalidParameter):
            requests.port_range(text)
    else:
        numbers, kind = requests.port_range(text)
        assert (first, last) == (numbers[0], numbers[-1])
        assert (protocol[1:].lower() or "tcp") == kind
