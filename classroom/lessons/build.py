"""Build the notebooks of each language from one source: `python -m classroom.lessons.build [--check]`.

A lesson's source is a `py:percent` file in `notebooks/`. A cell whose marker carries `lang="ko"` or `lang="en"` belongs
to that language only, every other cell to both, so the code that is shown and run is the same in both languages. A cell
marked `solution=true` is left out of what students get. Notebooks are only ever generated and never read back.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "ko")


def build(source: Path, language: str, *, solutions: bool = False) -> str:
    """The notebook of `source` in `language`, as the text of an .ipynb file, without outputs.

    With `solutions`, the cells that solve the tasks are in it, so that a test can see every check pass.

    The same source gives the same bytes: cells are numbered instead of getting random identifiers.
    """
    import jupytext
    import nbformat

    notebook = jupytext.read(source, fmt="py:percent")
    cells = [
        cell
        for cell in notebook.cells
        if cell.metadata.get("lang", language) == language and (solutions or not cell.metadata.get("solution", False))
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:02}"
        cell.metadata = nbformat.NotebookNode()
    metadata: dict[str, Any] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "onggi": {"source": source.name, "language": language},
    }
    built = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(built)
    text: str = nbformat.writes(built)
    return text if text.endswith("\n") else text + "\n"


def sources(notebooks: Path) -> list[Path]:
    """The lessons' sources, in order."""
    return sorted(notebooks.glob("[0-9][0-9]_*.py"))


def main(argv: list[str] | None = None) -> int:
    """Build all notebooks; with `--check`, change nothing and return 1 if one is not what its source gives."""
    parser = argparse.ArgumentParser(prog="python -m classroom.lessons.build", description=__doc__)
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="where the sources are")
    parser.add_argument("--check", action="store_true", help="only tell which notebooks are out of date")
    arguments = parser.parse_args(argv)
    found = sources(arguments.notebooks)
    if not found:
        print(f"{arguments.notebooks}: no lessons there; name the folder with --notebooks", file=sys.stderr)
        return 2
    stale = 0
    for source in found:
        for language in LANGUAGES:
            target = source.parent / language / f"{source.stem}.ipynb"
            text = build(source, language)
            if target.is_file() and target.read_text(encoding="utf-8") == text:
                continue
            stale += 1
            if arguments.check:
                print(f"{target}: out of date; run `make lessons`", file=sys.stderr)
                continue
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(f"built {target}")
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
