"""The commands of `onggi`, in the order in which a newcomer meets them. Adding one: a row here and its module."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command's name, what it does in a line, and the module that does it."""

    name: str
    summary: str
    module: str


COMMANDS = (
    Command("compare", "compare containers with virtual machines, and write a report", "classroom.commands.compare"),
    Command("measure", "measure start-up, contention and memory on this machine", "classroom.commands.measure"),
    Command("validate", "hold the model's predictions against measurements", "classroom.commands.validate"),
    Command("report", "write the report of a comparison again", "classroom.commands.report"),
    Command("run", "simulate a scenario on one platform", "classroom.commands.run"),
    Command("engine", "run a container on onggi's own engine, and watch how", "classroom.commands.engine"),
    Command("vm", "boot a virtual machine under QEMU, and watch how", "classroom.commands.vm"),
)
