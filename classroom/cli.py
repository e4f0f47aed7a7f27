"""The `onggi` command: finds the command that was asked for and runs it, and turns errors into one clear line.

Starting must stay cheap, so this module imports nothing but what reads a command line. Each command is a module of
`classroom.commands` with `add_arguments(parser)` and `run(arguments) -> int`, imported only when it is asked for.
"""

import sys

from classroom.commands.table import COMMANDS

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit status.

    0: done. 2: wrong input, told in one line on standard error. 130: interrupted by Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no Hangul or no arrow gets a question mark there, and not a traceback instead of all.
        if hasattr(stream, "reconfigure") and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()  # what fails at the interpreter's end is told by a traceback
        return status
    except KeyboardInterrupt:
        print("onggi: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (`onggi … | head`). Nothing is wrong, and nothing more can be said.
        sys.stderr.close()
        return 0
    except OSError as error:
        from contextlib import suppress
        from errno import EDQUOT, ENOSPC

        if error.errno not in (ENOSPC, EDQUOT):
            raise
        with suppress(OSError):
            sys.stdout.close()  # what is left can't be written either, and the interpreter would try once more
        print(f"onggi: cannot write: {error.strerror}", file=sys.stderr)
        return USAGE_ERROR
    except Exception as error:
        if not _is_for_people(error):
            raise
        print(f"onggi: {error}", file=sys.stderr)
        return USAGE_ERROR


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else USAGE_ERROR
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"onggi {version('onggi')}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        return _unknown(name)
    from argparse import ArgumentParser
    from importlib import import_module

    summary, module_name = COMMANDS[name]
    module = import_module(module_name)
    parser = ArgumentParser(prog=f"onggi {name}", description=module.__doc__ or summary)
    module.add_arguments(parser)
    status: int = module.run(parser.parse_args(arguments[1:]))
    return status


def _unknown(name: str) -> int:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean `onggi {near[0]}`?" if near else "see `onggi --help`"
    print(f"onggi: unknown command `{name}`: {hint}", file=sys.stderr)
    return USAGE_ERROR


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {summary}" for name, (summary, _) in COMMANDS.items())
    return (
        "usage: onggi [-h] [--version] COMMAND ...\n\n"
        "onggi measures and simulates what separates a container from a virtual machine.\n\n"
        f"commands:\n{rows}\n\n"
        "`onggi COMMAND --help` tells more. Start with `onggi compare`."
    )


def _is_for_people(error: Exception) -> bool:
    """Whether `error` is ours, with a message written for the person at the keyboard, and not a bug."""
    from real_engine.errors import EngineError
    from simulator.errors import SimulatorError

    return isinstance(error, (EngineError, SimulatorError))


if __name__ == "__main__":
    sys.exit(main())
