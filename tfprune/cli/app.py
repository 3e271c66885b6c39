"""`tfprune app`: a run to try out, served or as a page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from tfprune.cli import options
from tfprune.errors import UsageError
from tfprune.quiet import start_keras


@click.command("app")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--seed", type=options.SEED, metavar="N", help="Whose files. [default: the first]")
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    metavar="FORMAT",
    help="Only files of this format; repeatable. [default: all that can be run here]",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="Test examples that are looked at for differences.",
)
@options.data_dir
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="N",
    help="Where it listens. [default: a free one from 7860 on]",
)
@click.option("--open", "open_browser", is_flag=True, help="Open it in a browser.")
@click.option(
    "--static",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write it as a page into a new folder instead: the TFLite files run in the browser.",
)
@options.imports
def app_command(
    run: Path,
    seed: int | None,
    formats: tuple[str, ...],
    limit: int,
    data_dir: str | None,
    host: str,
    port: int | None,
    open_browser: bool,
    static: Path | None,
) -> None:
    """Try out RUN, the folder of a finished run: all variants answer side by side.

    Draw or upload an image, or pick a test example: each exported file answers through its own
    runtime, with its confidence, its time on this machine and its size. Ctrl-C ends it.
    """
    if static is None and importlib.util.find_spec("gradio") is None:
        raise UsageError(
            "the application needs gradio: pip install 'tfprune[app]', or --static DIR for a page"
        )
    start_keras()
    from tfprune.app.contents import open_run

    contents = open_run(run, seed=seed, formats=formats, limit=limit, data_dir=data_dir)
    for title, why in contents.left_out.items():
        click.echo(f"{title} is left out: {why}", err=True)
    if static is not None:
        from tfprune.app.static import write_page

        page = write_page(contents, static)
        for title, why in page.left_out.items():
            if title not in contents.left_out:
                click.echo(f"{title} is left out: {why}", err=True)
        click.echo(f"{page.index} shows {len(page.offered)} files; to open it:")
        click.echo(f"  python -m http.server --bind 127.0.0.1 --directory {static}")
        return
    from tfprune.app.server import serve

    serve(contents, host=host, port=port, open_browser=open_browser)
