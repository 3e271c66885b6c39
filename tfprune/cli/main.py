"""The `tfprune` command and what all of its subcommands share: how errors are told."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
import warnings
from typing import Any, TextIO

import click

from tfprune import __version__
from tfprune.errors import TfpruneError

# Name to module and one-line help: listing the commands must not import what they use.
_COMMANDS = {
    "run": ("pipeline", "Run a pipeline file: train, prune, export, measure, compare."),
    "pipeline": ("pipeline", "Check and begin pipeline files; print their JSON Schema."),
    "runs": ("pipeline", "List runs, and free what nothing refers to."),
    "compare": ("results", "Compare the artifacts of runs in one table."),
    "report": ("results", "Write the report of a run: HTML, Markdown, CSV and JSON."),
    "check": ("results", "Judge a run by its budget: exit 1 where a limit is broken."),
    "search": ("search", "Search for the cheapest artifact inside a budget."),
    "train": ("training", "Train a net of the zoo, or a .keras file further."),
    "prune": ("training", "Make a model's weights sparse while it trains."),
    "prune-once": ("weights", "Set a share of a model's weights to zero, without training."),
    "rewrite": ("weights", "Rewrite a model exactly, so that zeros pay in browsers and phones."),
    "quantize-weights": ("weights", "Round a model's weights to few values, without training."),
    "equalize": ("weights", "Scale channels so that int8 rounds them alike, exact in float."),
    "correct-biases": ("weights", "Move biases so that rounded weights keep the means."),
    "cluster": ("training", "Give a model's weights few values, and train these."),
    "learn": ("training", "Train a model until whole filters are zero."),
    "quantize-aware": ("training", "Train with the rounded numbers of the int8 file."),
    "lottery": ("lottery", "Draw lottery tickets: train, prune, rewind, again."),
    "slim": ("slim", "Remove channels and rebuild a smaller model."),
    "export": ("artifacts", "Export a model: SavedModel, TFLite, C array, ONNX."),
    "measure": ("measure", "Measure artifacts: accuracy, MACs, size, latency, memory."),
    "verify": ("artifacts", "Verify exported artifacts: hash, loading, running."),
    "devices": ("machine", "List where files can be measured; install what is missing."),
    "app": ("app", "Try out a run: all variants answer side by side, in a browser."),
    "inspect": ("inspect", "Show what of a model can be removed, and what not."),
    "doctor": ("machine", "Show versions, extras, devices and data that are here or missing."),
}


class _WronglyCalled(click.ClickException):
    exit_code = 2


class _Commands(click.Group):
    """Finds commands by name, and turns errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"tfprune.cli.{_COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in _COMMANDS.items()])

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs a command as click does, and tells what click does not: output with no place."""
        for stream in (sys.stdout, sys.stderr):
            # What the terminal's encoding lacks, such as the bytes of a file name, is spelt out.
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        before, warnings.showwarning = warnings.showwarning, _show_warning
        try:
            return super().main(*args, **options)
        except OSError as error:
            stream = _unwritten(error)
            if stream is None:
                raise
            _abandon(stream)
            with contextlib.suppress(OSError):
                click.echo(
                    f"Error: what the command prints cannot be written ({error.strerror}): give "
                    "its output a place with room",
                    err=True,
                )
            sys.exit(1)
        finally:
            warnings.showwarning = before

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            # A closed pipe is click's to end quietly, a full disk is told in `main`.
            if isinstance(error, OSError) and _unwritten(error) is not None:
                raise
            if isinstance(error, TfpruneError):
                failure = _WronglyCalled if error.exit_code == 2 else click.ClickException
                raise failure(str(error)) from error
            said = " ".join(str(error).split()) or "no message"
            raise click.ClickException(
                f"unexpected {type(error).__name__}: {said[:300]} "
                "(run `tfprune --debug ...` for the traceback)"
            ) from error


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Tells a warning in one line, without the place in the code that Python adds."""
    click.echo(f"Warning: {' '.join(str(message).split())}", err=True)


def _unwritten(error: OSError) -> TextIO | None:
    """The stream that could not be written, where that is what an error is about."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if frame.f_globals["__name__"] != click.utils.__name__:
        return None
    found: TextIO | None = frame.f_locals.get("file")
    return found


def _abandon(stream: TextIO) -> None:
    """Lets what a stream still holds go, which Python would complain of when it ends."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tfprune")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Make Keras CNNs sparser or slimmer, export them, and measure what was gained.

    Results go to stdout, progress and errors to stderr. Exit code 2 means that the command was
    called wrongly, 1 that it failed.
    """
