"""`tfprune doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from tfprune.cli import options


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
            extra: f"needs {', '.join(missing)}: pip install 'tfprune[{extra}]'"
            if missing
            else "ok"
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


def _requirement(each: dict[str, Any]) -> str:
    if each["version"] is None:
        return f"missing: pip install '{each['name']}{each['bounds']}'"
    if not each["ok"]:
        return (
            f"{each['version']} is not {each['bounds']}: "
            f"pip install '{each['name']}{each['bounds']}'"
        )
    return str(each["version"])


def _gpus(told: dict[str, Any]) -> str:
    if "error" in told:
        return f"TensorFlow does not start: {told['error']}"
    built = f"built for CUDA {told['cuda']}" if told["cuda"] else "built without CUDA"
    return f"{', '.join(told['gpus']) or 'none'} ({built})"


def _section(title: str, rows: dict[str, str]) -> Iterator[str]:
    yield f"\n{title}"
    width = max(map(len, rows), default=0)
    for name, said in rows.items():
        yield f"  {name:<{width}}  {said}"
