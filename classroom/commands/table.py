"""The commands of `onggi`, in the order in which a newcomer meets them. Adding one: a row here, and its module.

A plain dictionary, since this module is imported at every start of the command.
"""

COMMANDS = {
    "compare": ("compare containers with virtual machines, and write a report", "classroom.commands.compare"),
    "measure": ("measure start-up, contention and memory on this machine", "classroom.commands.measure"),
    "validate": ("hold the model's predictions against measurements", "classroom.commands.validate"),
    "calibrate": ("fit the platforms' profiles to measurements", "classroom.commands.calibrate"),
    "report": ("write the report again from what was measured", "classroom.commands.report"),
    "platforms": ("list the platforms that can be simulated, with sources", "classroom.commands.platforms"),
    "run": ("simulate a scenario on one platform", "classroom.commands.run"),
    "bench": ("measure how fast the simulator is, beside its peers", "classroom.commands.bench"),
    "sweep": ("simulate a scenario at many points of its keys", "classroom.commands.sweep"),
    "scenario": ("begin a scenario, check one, or describe every key", "classroom.commands.scenario"),
    "engine": ("run a container on onggi's own engine, and watch how", "classroom.commands.engine"),
    "compose": ("bring up the services of a compose file, on one host or more", "classroom.commands.compose"),
    "registry": ("serve images to push to and pull from", "classroom.commands.registry"),
    "vm": ("boot a virtual machine under QEMU, and watch how", "classroom.commands.vm"),
}
"""Name to what it does in a line, and the module that does it."""
