"""Write the table of the READMEs from what `onggi compare` finds on the reference set; `--check` only tells.

python tools/readme_table.py [--check]
"""

import sys
from pathlib import Path

from classroom.commands.compare import DEFAULT_SEED
from classroom.comparison import compare_platforms
from classroom.recordings import REFERENCE, read_recording
from classroom.report.headline import METRICS, Figure
from classroom.report.page import report_words
from simulator.scenario import Scenario
from simulator.words import Words

CHECKOUT = Path(__file__).resolve().parents[1]
READMES = {"en": CHECKOUT / "README.md", "ko": CHECKOUT / "README.ko.md"}
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def tables() -> dict[str, str]:
    """Language to the table in Markdown."""
    compared = compare_platforms(Scenario.from_toml("compare"), read_recording(REFERENCE), seed=DEFAULT_SEED)
    figures = compared.figures
    made = {}
    for language in READMES:
        words = report_words(language)
        rows = [["", *(words(f"metric.{metric}") for metric in METRICS)], ["---"] * (len(METRICS) + 1)]
        for name, profile in compared.profiles.items():
            label = profile.label_ko if language == "ko" else profile.label_en
            rows.append([label, *(cell(figures[name][metric], words) for metric in METRICS)])
        made[language] = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return made


def cell(figure: Figure, words: Words) -> str:
    """Value, interval and kind."""
    return f"**{figure.text}**<br>{figure.interval}<br>*{words(f'kind.{figure.kind}')}*"


def with_table(text: str, table: str) -> str:
    """`text` with `table` between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    """Write or check both; 1 if `--check` finds one out of date."""
    stale = 0
    for language, table in tables().items():
        path = READMES[language]
        text = path.read_text(encoding="utf-8")
        wanted = with_table(text, table)
        if text == wanted:
            continue
        stale += 1
        if "--check" in sys.argv[1:]:
            print(f"{path.name}: its table is out of date; run `python tools/readme_table.py`", file=sys.stderr)
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"wrote the table of {path.name}")
    return 1 if "--check" in sys.argv[1:] and stale else 0


if __name__ == "__main__":
    sys.exit(main())
