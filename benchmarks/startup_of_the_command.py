"""How long `onggi --help` takes beside `python -c pass`, and what each further step of a command line adds.

    python benchmarks/startup_of_the_command.py

Measured in turns, A B A B …, so that a slow moment of the machine hits all alike; medians, and ratios pair by pair.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 30
COMMAND = Path(sys.executable).with_name("onggi")
CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import argparse'": [sys.executable, "-c", "import argparse"],
    "onggi --help": [str(COMMAND), "--help"],
    "onggi run --help": [str(COMMAND), "run", "--help"],
}


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of the whole process."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Measure, and print a table."""
    for command in CASES.values():
        seconds(command)  # warm the page cache and the bytecode
    rounds = [{name: seconds(command) for name, command in CASES.items()} for _ in range(RUNS)]
    base = next(iter(CASES))
    print(f"{'':32} {'median ms':>10} {'ratio':>7} {'quartiles':>15}   ({RUNS} runs in turns)")
    for name in CASES:
        ratios = [each[name] / each[base] for each in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = 1000 * statistics.median(each[name] for each in rounds)
        print(f"{name:32} {median:10.1f} {middle:7.2f} {low:7.2f} – {high:.2f}")


if __name__ == "__main__":
    main()
