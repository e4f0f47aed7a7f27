"""A machine's disk: one device whose time is shared by all that read and write.

An operation costs the device a fixed time and each byte some more, so many small reads and a few large ones differ as
they do on a real one. What is shared is the device's time: each of n that use it at once gets an n-th.
"""

from simpy import Environment

from simulator.datacenter.links import Links, Transfer


class Disk:
    """A disk under processor sharing.

    Args:
        env: the SimPy environment whose clock is used, in seconds.
        mib_per_second: of one long sequential read or write.
        operation_seconds: of the device's time for each operation, beside that for its bytes.
        name: for records and messages.
    """

    def __init__(self, env: Environment, mib_per_second: float, operation_seconds: float, name: str = "disk") -> None:
        self._seconds_per_mib = 1 / mib_per_second
        self._operation_seconds = operation_seconds
        self._links = Links(env)
        self._device = self._links.link(name, 1.0)

    @property
    def active(self) -> int:
        """How many reads and writes are in progress."""
        return self._links.active

    @property
    def busy_seconds(self) -> float:
        """Seconds for which the device has worked so far, as of the last change."""
        return self._device.carried

    def seconds(self, mib: float, operations: float = 0.0) -> float:
        """The device's time for `mib` in so many operations, if it does nothing else."""
        return mib * self._seconds_per_mib + operations * self._operation_seconds

    def submit(self, mib: float, operations: float = 0.0) -> Transfer:
        """Begin to read or write; the returned event triggers when it is done. Who stops waiting must `cancel` it."""
        return self._links.transfer(self.seconds(mib, operations), self._device)

    def cancel(self, transfer: Transfer) -> None:
        """Take an unfinished read or write off the disk."""
        self._links.cancel(transfer)

    def set_speed(self, factor: float) -> None:
        """From now on work at `factor` times the speed that the machine's record gives; 0 stands still."""
        self._links.set_capacity(self._device, factor)
