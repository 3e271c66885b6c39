"""Makes the environment of a peer: `python -m benchmarks.peers.environments torch-pruning`.

Each has its versions pinned in a file beside this one, and is apart from that of tfprune, since
their requirements do not go together.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import click

HERE = Path(__file__).parent
PEERS = tuple(sorted(path.stem for path in HERE.glob("*.txt")))


@click.command()
@click.argument("peer", type=click.Choice(PEERS))
@click.option("--into", type=click.Path(path_type=Path), default=Path(".peers"))
def environments(peer: str, into: Path) -> None:
    """Make the environment of PEER with its pinned versions."""
    place = into / peer
    venv.create(place, with_pip=True, clear=True)
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [python, "-m", "pip", "install", "--quiet", "--requirement", HERE / f"{peer}.txt"]
    subprocess.run(command, check=True)
    click.echo(python)


if __name__ == "__main__":
    environments()
