"""What the simulator raises when its input is wrong: one clear line a person can act on."""


class SimulatorError(Exception):
    """Input that cannot be simulated. The message names what was wrong, where, and what to do, in one line."""
