"""Every operation says why it is done, in English and in Korean."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

from classroom.commands.engine_records import Reasons
from real_engine import container, networks
from real_engine.container import steps as container_steps
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
    assert set() == {each for each in korean - english if not each.startswith(("operation.", "kernel.meaning."))}


def test_no_korean_is_left_of_an_operation_that_has_gone():
    known = {name for name, _ in operations()}
    kept = {each.partition(".")[2] for each in Reasons("ko").words.texts if each.startswith("operation.")}
    assert set() == kept - known
