"""The command line. Exit codes: 0 done, 1 error, 2 the gate refused, 130 paused or interrupted."""

import os
import sys

import typer

from everlearn.commands import advice, bench, catalog, countdown, experts, home, online, runs
from everlearn.errors import EverlearnError, Paused

PAUSED = 130
UsageError = typer.BadParameter.__base__  # typer brings its own click; this is its error of a wrong command line
COMMANDS = {
    "demo": runs.demo,
    "run": runs.run,
    "online": online.online,
    "bench": bench.bench,
    "resume": runs.resume,
    "compare": runs.compare,
    "advise": advice.advise,
    "init": home.init,
    "learn": home.learn,
    "check": home.check,
    "log": home.log,
    "diff": home.diff,
    "report": home.report,
    "rollback": home.rollback,
    "retire": home.retire,
    "export": home.export,
    "ls": catalog.list_things,
    "show": catalog.show,
    "arena": catalog.arena,
    "pretrain": catalog.pretrain,
}

app = typer.Typer(
    help="Continual learning for language models: keep teaching a model, keep what it knows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(countdown.app, name="countdown")
app.add_typer(experts.app, name="experts")
app.command("meta", hidden=True)(runs.run)  # what `run` was called for such recipes


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; no error shows a stack trace."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="everlearn", standalone_mode=False) or 0
        if code == PAUSED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code
    except UsageError as error:
        error.show()
        return 1
    except EverlearnError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Paused as paused:
        print(f"Paused. Go on with: everlearn resume {paused}", file=sys.stderr)
        return PAUSED
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return PAUSED


def script() -> None:
    """Entry point of the installed command, which imports from the current directory as `python -m everlearn` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.exit(main())


if __name__ == "__main__":
    script()
