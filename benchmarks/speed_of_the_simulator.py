"""How fast the simulator is, beside Ciw, SimPy and its own process-per-request model. Takes some ten minutes.

    python benchmarks/speed_of_the_simulator.py                       tables on the terminal
    python benchmarks/speed_of_the_simulator.py --json result.json    with every sample

The same as `onggi bench simulator`, whose code is in `classroom/bench/` so that it runs where only a wheel is.
`onggi bench simulator --markdown docs/reference/simulator-speed.md` writes the page of the documentation.
"""

import sys

from classroom.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "simulator", *sys.argv[1:]]))
