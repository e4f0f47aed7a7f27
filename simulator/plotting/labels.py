"""What platforms and kinds of numbers are called in figures, in both languages."""

from collections.abc import Mapping

from simulator.datacenter.platforms import Kind, PlatformProfile
from simulator.evidence.measurements import Subject
from simulator.plotting.style import KIND_MARKS, figure_words


def platform_label(profile: PlatformProfile, language: str) -> str:
    """The platform's name for people, as its profile has it."""
    return profile.label_ko if language == "ko" else profile.label_en


def name_label(name: str, profiles: Mapping[str, PlatformProfile], language: str) -> str:
    """The name for people of the platform `name`: from its profile, from the catalogue, or as it is."""
    if name in profiles:
        return platform_label(profiles[name], language)
    return figure_words(language).get(f"platform.{name}", name)


def subject_label(subject: Subject, profiles: Mapping[str, PlatformProfile], language: str) -> str:
    """The same for what was measured, with its variant where there is more than one."""
    label = name_label(subject.platform, profiles, language)
    return label if subject.variant == "default" else f"{label} {subject.variant}"


def kind_label(kind: Kind, language: str) -> str:
    """The mark and the word for where a number comes from: `□ published`."""
    return f"{KIND_MARKS[kind]} {figure_words(language)('kind.' + kind)}"
