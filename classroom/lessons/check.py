"""Checks of a lesson's tasks: what was expected, what came, and what to try next; never just *wrong*."""

import math
from dataclasses import dataclass

from simulator.words import LANGUAGES

_TEXTS = {
    "en": {
        "passed": "✔ {task}: {got} — this public check passes.",
        "empty": "… {task}: no answer yet. {hint}",
        "type": "✘ {task}: expected a number, got {got!r}. {hint}",
        "off": "✘ {task}: expected about {expected}, got {got}. {hint}",
    },
    "ko": {
        "passed": "✔ {task}: {got} — 이 공개 검사를 통과했습니다.",
        "empty": "… {task}: 아직 답이 없습니다. {hint}",
        "type": "✘ {task}: 수가 와야 하는데 {got!r}이(가) 왔습니다. {hint}",
        "off": "✘ {task}: 약 {expected}이어야 하는데 {got}이(가) 왔습니다. {hint}",
    },
}


@dataclass(frozen=True)
class Outcome:
    """What a check found: whether it passes, and the words for it, which a notebook shows as the cell's value."""

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message


def check_number(
    task: str, got: object, expected: float, *, tolerance: float = 0.02, hint: str = "", language: str = "en"
) -> Outcome:
    """Compare a student's number with what the lesson computes itself from the same data.

    Args:
        task: its name, for the message.
        got: what the student's cell left; None where nothing was answered yet.
        expected: the answer.
        tolerance: relative; 0.02 lets two per cent of rounding pass.
        hint: what to try next, shown unless the check passes.
        language: `en` or `ko`.

    Raises:
        ValueError: there are no messages in this language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language {language!r}: choose from {', '.join(LANGUAGES)}")
    texts = _TEXTS[language]
    if got is None:
        return Outcome(False, texts["empty"].format(task=task, hint=hint))
    if isinstance(got, bool) or not isinstance(got, (int, float)) or not math.isfinite(got):
        return Outcome(False, texts["type"].format(task=task, got=got, hint=hint))
    passed = math.isclose(got, expected, rel_tol=tolerance)
    name = "passed" if passed else "off"
    return Outcome(passed, texts[name].format(task=task, got=f"{got:.4g}", expected=f"{expected:.3g}", hint=hint))
