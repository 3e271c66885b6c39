"""`tfprune doctor`, `devices`: what this machine has, what is missing, and what installs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tfprune.cli import options
from tfprune.vocabulary import DEVICES

if TYPE_CHECKING:
    from tfprune.devices import Device

# Packages of an extra that are named when they are missing; extras of developers have dozens.
_NAMED = 4


@click.command("doctor")
@options.as_json
def doctor_command(as_json: bool) -> None:
    """Show what is here, and what is missing with the command that installs it.

    Versions of Python and of each requirement, extras, devices that can be measured on, data of
    tensorflow-datasets, what the processor can do, and the GPUs that TensorFlow sees. It changes
    nothing, and exits with 0 whatever it finds. Put its output into a bug report.
    """
    from tfprune.pipeline.environment import environment

    found = environment()
    if as_json:
        options.print_json(found)
        return
    for line in _lines(found):
        click.echo(line)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """The document for people."""
    machine, features = found["machine"], found["cpu_features"]
    yield f"tfprune {found['tfprune']}, Python {found['python']}, {machine['system']}"
    yield f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB of memory"
    yield from _section(
        "processor",
        {name: "yes" if has else "no" for name, has in features.items()}
        if features is not None
        else {"features": "this system does not tell"},
    )
    yield from _section(
        "requirements",
        {each["name"]: _requirement(each) for each in found["requirements"]}
        or {"tfprune": "is not installed: pip install tfprune"},
    )
    yield from _section(
        "extras",
        {
            extra: f"needs {_few(missing)}: pip install 'tfprune[{extra}]'" if missing else "ok"
            for extra, missing in found["extras"].items()
        },
    )
    yield from _section("devices", found["devices"])
    sets = found["data"]["sets"]
    yield from _section("data", {found["data"]["folder"]: ", ".join(sets) or "no data sets"})
    yield from _section(
        "programs",
        {"chromium": found["chromium"] or "not found; only tests of reports need it"},
    )
    yield from _section("TensorFlow", {"GPUs": _gpus(found["tensorflow"])})


def _few(names: list[str]) -> str:
    """Names, of which the last ones are counted where they are many: `--json` has all."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _requirement(each: dict[str, Any]) -> str:
    if each["version"] is None:
        return f"missing: pip install '{each['name']}{each['bounds']}'"
    if not each["ok"]:
        return (
            f"{each['version']} is not {each['bounds']}: "
            f"pip install '{each['name']}{each['bounds']}'"
        )
    return str(each["version"])


def _gpus(tensorflow: dict[str, Any]) -> str:
    if "error" in tensorflow:
        return f"TensorFlow does not start: {tensorflow['error']}"
    built = f"built for CUDA {tensorflow['cuda']}" if tensorflow["cuda"] else "built without CUDA"
    return f"{', '.join(tensorflow['gpus']) or 'none'} ({built})"


def _section(title: str, rows: dict[str, str]) -> Iterator[str]:
    yield f"\n{title}"
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        yield f"  {name:<{width}}  {text}"


@click.group("devices", invoke_without_command=True)
@options.as_json
@click.pass_context
def devices_command(context: click.Context, as_json: bool) -> None:
    """List the devices that files can be measured on, and what is missing here."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json is for the list: leave it out")
        return
    from tfprune.devices.registry import kinds

    rows = [_row(kind) for kind in kinds()]
    if as_json:
        options.print_json(rows)
        return
    import pandas as pd

    from tfprune.report import render

    table = pd.DataFrame(rows)
    table["missing"] = [text or "nothing" for text in table["missing"]]
    click.echo(render(table), nl=False)


@devices_command.command("install")
@click.argument("name")
def install_command(name: str) -> None:
    """Install what the device NAME needs and pip does not install, with the pinned versions.

    It goes to the user's cache. The device wasm gets its npm packages.
    """
    from tfprune.devices.registry import find_kind

    click.echo(find_kind(name).install())


def _row(kind: type[Device]) -> dict[str, str]:
    from tfprune.devices.registry import missing

    options = kind.required_options()
    lacking = f"options: {', '.join(options)}" if options else missing(kind)
    return {"device": kind.key, "what": DEVICES[kind.key], "missing": lacking}
