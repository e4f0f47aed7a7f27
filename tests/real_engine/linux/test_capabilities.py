"""Capability names and bits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_engine.linux import capabilities


@given(st.sets(st.sampled_from(capabilities.NAMES)))
def test_names_and_masks_are_each_others_reverse(names):
    assert {f"CAP_{name}" for name in names} == set(capabilities.names(capabilities.mask(names)))


def test_numbers_are_the_kernels():
    assert (1 << 0, 1 << 21, 1 << 40) == tuple(
        capabilities.mask([name]) for name in ("CAP_CHOWN", "sys_admin", "CHECKPOINT_RESTORE")
    )


def test_unknown_name():
    with pytest.raises(ValueError, match="NO_SUCH"):
        capabilities.mask(["NO_SUCH"])


def test_status_of_a_process(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapInh:\t0000000000000000\nCapBnd:\t00000000a80425fb\n")
    assert 0xA80425FB == capabilities.status_mask("CapBnd", str(status))
    with pytest.raises(ValueError, match="CapEff"):
        capabilities.status_mask("CapEff", str(status))
