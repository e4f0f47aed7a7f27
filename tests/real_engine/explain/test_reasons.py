"""Every operation says why it is done, in English and in Korean."""

import ast
import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest

from classroom.commands.engine_records import Phrases, Reasons
from real_engine import container, networks
from real_engine.container import steps as container_steps
from real_engine.explain import kernel
from real_engine.explain.reasons import WHY
from real_engine.networks import steps as network_steps

ENGINE = Path(container.__file__).parents[1]


def operations():
    for package in (container, networks):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
    for base in (container_steps.Operation, network_steps.Operation):
        for kind in base.__subclasses__():
            why = kind.__dict__.get("why")
            if isinstance(why, str):
                yield kind.__name__, why
    yield from WHY.items()


def given_reasons():
    """The texts with which the plan makes the operations whose classes have no reason of their own."""
    taking = {"MountFilesystem", "AttachTree", "WriteSettings", "MakeDevices", "MakeReadOnly"}
    for path in sorted((ENGINE / "container").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id.startswith("why")
        }
        yield from texts.values()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in taking and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield first.value


def observed_reasons():
    """Those of the network's steps that are no objects: constants, and the second argument of `Timed`."""
    for path in sorted((ENGINE / "networks").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            timed = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Timed" and len(node.args) > 1
            if timed and isinstance(node.args[1], ast.Constant):
                yield node.args[1].value
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("WHY", "_WHY"):
                yield ast.literal_eval(node.value)
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_RESOLVER_STEP":
                yield ast.literal_eval(node.value)[1]


def has_hangul(text):
    return any("가" <= each <= "힣" for each in text)


@pytest.mark.parametrize(("operation", "why"), sorted(set(operations())))
def test_each_operation_has_both(operation, why):
    assert why
    assert has_hangul(Reasons("ko").why({"operation": operation, "why": why}))
    assert why == Reasons("en").why({"operation": operation, "why": why})


@pytest.mark.parametrize("why", sorted({*given_reasons(), *observed_reasons()}))
def test_each_reason_that_an_object_is_given_has_both(why):
    assert has_hangul(Reasons("ko").why({"operation": "", "why": why}))


def test_the_catalogues_have_the_same_keys_but_for_what_stands_in_the_code():
    english, korean = (set(Reasons(language).words.texts) for language in ("en", "ko"))
    assert set() == english - korean
    of_the_code = ("operation.", "call.", "kernel.meaning.", "kernel.value.", "kernel.limit.", "kernel.name.")
    assert set() == {each for each in korean - english if not each.startswith(of_the_code)}


def test_no_korean_is_left_of_an_operation_that_has_gone():
    known = {name for name, _ in operations()}
    kept = {each.partition(".")[2] for each in Reasons("ko").words.texts if each.startswith("operation.")}
    assert set() == kept - known


SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(ENGINE.rglob("*.py"))}


def test_each_phase_has_a_name_in_both():
    named = re.compile(r'(?:\bPhase|\bspan|\bSpan|\btell)\(\s*"(\w+)"')
    phases = {found for text in SOURCES.values() for found in named.findall(text)} | {network_steps.PHASE}
    assert {"mounts", "cache", "registry", "enter"} <= phases
    for language in ("en", "ko"):
        words = Reasons(language).words
        assert [] == sorted(phase for phase in phases if f"phase.{phase}" not in words)


def test_what_is_done_is_said_for_operations_that_there_are():
    known = {name for name, _ in operations()}
    assert set() == {each.partition(".")[2] for each in Reasons("en").words.texts if each.startswith("doing.")} - known


def pieces(sentence):
    return [each for part in re.split(r"\{\d\}", sentence) if len(each := part.strip(" :;,()")) > 3]


def test_no_korean_is_left_of_a_sentence_that_has_gone():
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(SOURCES.values())).replace('\\"', '"')
    for key in Reasons("ko").words.texts:
        for table in ("call.", "kernel.meaning.", "kernel.value."):
            if key.startswith(table):
                assert [] == [each for each in pieces(key.removeprefix(table)) if each not in code], key


def meanings():
    """The notes of `explain.kernel`, with {0} and so on for what they name."""
    tree = ast.parse(SOURCES[ENGINE / "explain" / "kernel.py"])
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Row" and len(node.args) == 4:
            yield from sentences(node.args[3])
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("note", "notes"):
            yield from sentences(node.value)
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and node.target.elts[-1].id == "note":
            for row in node.iter.elts:
                yield from sentences(row.elts[-1])
        elif isinstance(node, ast.FunctionDef) and node.name == "_mount_note":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from sentences(inner.value)


def sentences(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "example" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from sentences(node.body)
        yield from sentences(node.orelse)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from sentences(value)
    elif isinstance(node, ast.BinOp):
        yield from sentences(node.left)


def test_each_meaning_of_what_the_kernel_shows_has_both():
    korean = Phrases(Reasons("ko").words, "kernel.meaning")
    found = set(meanings())
    assert {"the host's", "its own", "differs", "which system calls pass", "terminals of its own"} <= found
    assert [] == sorted(each for each in found if not has_hangul(korean(each)))


def test_what_the_kernel_shows_of_a_process_is_korean_but_for_names():
    words = Reasons("ko").words
    meaning, name = Phrases(words, "kernel.meaning"), Phrases(words, "kernel.name")
    rows = {section.key: section.rows for section in kernel.view(os.getpid()).sections}
    assert [] == [
        row.note for rows_ in rows.values() for row in rows_ if row.note and not has_hangul(meaning(row.note))
    ]
    assert [] == [row.name for row in rows["limits"] if not has_hangul(name(row.name))]


def test_a_sentence_with_gaps_is_matched_by_the_one_that_says_most():
    values = Phrases(Reasons("ko").words, "kernel.value")
    assert "41개 모두" == values("all 41")
    assert "SYS_RESOURCE 말고 모두" == values("all but SYS_RESOURCE")
    assert "8.0 MiB / 한도 없음" == Phrases(Reasons("ko").words, "kernel.limit")("8.0 MiB / unlimited")
    assert "unknown words" == values("unknown words")
