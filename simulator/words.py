"""Words for people in each language: a catalogue is a TOML file a language, with the same keys in all of them."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from simulator.errors import SimulatorError

LANGUAGES = ("en", "ko")


class Words:
    """The words of one catalogue in one language. `words("startup.title")` is a text, with its `{fields}` filled in.

    Args:
        folder: holds `words.en.toml` and `words.ko.toml`.
        language: one of `LANGUAGES`.

    Raises:
        SimulatorError: a language that there is not.
    """

    def __init__(self, folder: Path, language: str) -> None:
        if language not in LANGUAGES:
            raise SimulatorError(f"language `{language}`: there is no such one; choose from {', '.join(LANGUAGES)}")
        self.language = language
        tree = tomllib.loads((folder / f"words.{language}.toml").read_text(encoding="utf-8"))
        self.texts: Mapping[str, str] = dict(_leaves(tree))

    def __call__(self, key: str, /, **fields: object) -> str:
        """The text of `key`, with `{name}` replaced by each of `fields` as `str.format` does.

        Raises:
            KeyError: the catalogue has no such key, or the text wants a field that was not given.
        """
        text = self.texts[key]
        return text.format(**fields) if fields else text

    def __contains__(self, key: str) -> bool:
        return key in self.texts

    def get(self, key: str, otherwise: str) -> str:
        """The text of `key`, or `otherwise` where it names something that the catalogue does not know."""
        return self.texts.get(key, otherwise)


def _leaves(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a catalogue with its dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
