"""Lessons: one source, two languages, built the same each time, and solvable. (nbmake runs the built notebooks.)"""

from pathlib import Path

import nbformat
import pytest

from classroom.lessons.build import LANGUAGES, build, main, sources
from classroom.lessons.check import check_number

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = sources(NOTEBOOKS)


def test_there_are_lessons():
    assert len(SOURCES) >= 1


def test_the_built_notebooks_are_what_their_sources_give():
    assert main(["--notebooks", str(NOTEBOOKS), "--check"]) == 0


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_both_languages_have_the_same_code_and_as_many_texts(source):
    built = {language: nbformat.reads(build(source, language), as_version=4).cells for language in LANGUAGES}

    shapes = {language: [cell.cell_type for cell in cells] for language, cells in built.items()}
    code = {
        language: [cell.source for cell in cells if cell.cell_type == "code" and not cell.source.startswith("LANGUAGE")]
        for language, cells in built.items()
    }
    assert shapes["en"] == shapes["ko"]
    assert code["en"] == code["ko"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_what_students_get_holds_no_solution_and_no_output(source):
    student = nbformat.reads(build(source, "en"), as_version=4)
    solved = nbformat.reads(build(source, "en", solutions=True), as_version=4)

    assert len(student.cells) < len(solved.cells)
    assert all(cell.outputs == [] for cell in student.cells if cell.cell_type == "code")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_check_passes_with_the_solutions_and_none_without(source, tmp_path):
    from nbclient import NotebookClient

    marks = {}
    for solutions in (True, False):
        notebook = nbformat.reads(build(source, "ko", solutions=solutions), as_version=4)
        if not solutions:
            # Only what the checks need: figures were drawn by the first pass.
            notebook.cells = [cell for cell in notebook.cells if "subprocess" not in cell.source]
        NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
        answers = [
            output.data["text/plain"]
            for cell in notebook.cells
            if cell.cell_type == "code" and "check_number(" in cell.source
            for output in cell.outputs
            if output.output_type == "execute_result"
        ]
        marks[solutions] = {answer[0] for answer in answers}
        figures = [cell for cell in notebook.cells if "ax = plot_" in cell.source]
        assert all("image/png" in cell.outputs[-1].data for cell in figures), "a figure that nobody sees"

    assert marks == {True: {"✔"}, False: {"…"}}


def test_a_stale_notebook_is_told(tmp_path, capsys):
    texts = '# %% [markdown] lang="en"\n# Hello\n\n# %% [markdown] lang="ko"\n# 안녕\n'
    (tmp_path / "01_one.py").write_text(texts + "\n# %%\n1\n")
    assert main(["--notebooks", str(tmp_path)]) == 0
    assert main(["--notebooks", str(tmp_path), "--check"]) == 0

    (tmp_path / "ko" / "01_one.ipynb").write_text("{}")

    assert main(["--notebooks", str(tmp_path), "--check"]) == 1
    assert "ko/01_one.ipynb: out of date" in capsys.readouterr().err


def test_a_folder_without_lessons_is_told(tmp_path, capsys):
    assert main(["--notebooks", str(tmp_path)]) == 2
    assert "no lessons there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("got", "mark"),
    [(0.5, "✔"), (0.505, "✔"), (0.6, "✘"), (None, "…"), ("half", "✘"), (float("nan"), "✘"), (True, "✘")],
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_check_says_what_was_expected_what_came_and_what_to_try(got, mark, language):
    outcome = check_number("1", got, 0.5, hint="try the median", language=language)

    assert repr(outcome)[0] == mark
    assert outcome.passed is (mark == "✔")
    assert outcome.passed or "try the median" in outcome.message
