"""The application as a gradio server: draw, upload or pick, and every variant answers.

Needs the extra `app`. Only this module imports gradio.
"""

from __future__ import annotations

import os
from importlib.resources import files as resources
from typing import Any

# It is read when gradio is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np

from tfprune.app import views
from tfprune.app.contents import Contents, example_at

_PAPER = 280
# gradio's paper waits until a tool is chosen.
_TAKE_BRUSH = """async () => {
  for (let tries = 0; tries < 50; tries++) {
    const brush = document.querySelector('#paper button[aria-label="Brush"]');
    if (brush) return brush.click();
    await new Promise((done) => setTimeout(done, 100));
  }
}"""


def build(contents: Contents) -> gr.Blocks:
    """The application of a run.

    Example:
        ```python
        build(open_run(Path("saved_models/digits"))).launch()
        ```

    Args:
        contents: of the run.
    """
    with gr.Blocks(title=f"tfprune: {contents.name}", analytics_enabled=False) as blocks:
        gr.HTML(views.heading(contents))
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                triggers = _inputs(contents)
            with gr.Column(scale=2, min_width=320):
                table = gr.HTML(
                    _answers_of(contents, example_at(contents.examples, 0)),
                    elem_id="answers",
                    padding=False,
                )
        # In one queue, so that the newest example is answered last.
        queue: dict[str, Any] = {"concurrency_id": "answers", "concurrency_limit": 1}
        for listen, function, source in triggers:
            listen(
                function, source, table, show_progress="hidden", api_visibility="private", **queue
            )
        with gr.Tab("Front"):
            _front(contents)
        with gr.Tab("Layers"):
            _layers(contents)
        with gr.Tab("Where they differ"):
            gr.HTML(views.differences(contents), elem_id="differences", padding=False)
        blocks.load(None, js=_TAKE_BRUSH)
    return blocks


def serve(contents: Contents, *, host: str, port: int | None, open_browser: bool) -> None:
    """Serves the application of a run until it is interrupted.

    Args:
        contents: of the run.
        host: where it listens, such as `127.0.0.1`.
        port: where it listens; a free one from 7860 on if None.
        open_browser: whether to open it in a browser.
    """
    blocks = build(contents)
    # gradio's own lines advise to share the page with everyone.
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        **look(),
    )
    print(f"{contents.name} is at {address}; Ctrl-C ends it", flush=True)
    blocks.block_thread()


def look() -> dict[str, Any]:
    """What `launch` is told of the look: fonts of the system, and no request to elsewhere."""
    style = resources("tfprune.app").joinpath("app.css").read_text(encoding="utf-8")
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"]
    theme = gr.themes.Default(
        primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "css": style}


# -- what is answered ---------------------------------------------------------------------------


def _inputs(contents: Contents) -> list[tuple[Any, Any, Any]]:
    """The ways to give an example: what to listen to, what answers, and its source."""
    triggers: list[tuple[Any, Any, Any]] = []
    if contents.image_shape is not None:
        if contents.image_shape[2] == 1:
            with gr.Tab("Draw"):
                paper = gr.Sketchpad(
                    canvas_size=(_PAPER, _PAPER),
                    height=_PAPER + 80,
                    brush=gr.Brush(default_size=22, colors=["#000000"], color_mode="fixed"),
                    layers=False,
                    image_mode="RGBA",
                    sources=(),
                    transforms=(),
                    type="numpy",
                    label=f"Draw one of: {', '.join(contents.dataset.classes[:12])}",
                    elem_id="paper",
                )
                triggers.append((paper.change, _drawn(contents), paper))
        with gr.Tab("Upload"):
            photo = gr.Image(
                type="numpy",
                image_mode="RGB",
                sources=["upload", "clipboard"],
                label="An image of any size",
                elem_id="photo",
            )

            def uploaded(image: np.ndarray | None) -> str:
                if image is None:
                    return views.note("Drop an image.")
                return _answers_of(contents, contents.photo(image))

            triggers.append((photo.input, uploaded, photo))
    with gr.Tab("Test example"):
        number = gr.Slider(
            0, len(contents.examples) - 1, 0, step=1, label="Number", elem_id="number"
        )
        shown = gr.HTML(views.example_view(contents, 0), padding=False)

        def picked(place: float) -> str:
            return _answers_of(contents, example_at(contents.examples, int(place)))

        triggers.append((number.change, picked, number))
        number.change(
            lambda place: views.example_view(contents, int(place)),
            number,
            shown,
            show_progress="hidden",
            api_visibility="private",
        )
    return triggers


def _drawn(contents: Contents) -> Any:
    def answer(drawn: dict[str, Any] | None) -> str:
        image = None if drawn is None else drawn.get("composite")
        if image is None:
            return views.note("Draw something.")
        image = np.asarray(image, np.uint8)
        # The brush is black; what was never drawn on is transparent or white.
        ink = image[..., 3] if image.shape[2] == 4 else np.full(image.shape[:2], 255, np.uint8)
        ink = np.minimum(ink, 255 - image[..., :3].max(axis=2))
        if not (ink > 25).any():
            return views.note("Draw something.")
        return _answers_of(contents, contents.drawing(ink))

    return answer


def _answers_of(contents: Contents, example: Any) -> str:
    seen = views.picture(example) if contents.image_shape is not None else ""
    return views.answers_table(contents.answers(example), contents.figure, seen)


# -- the run ------------------------------------------------------------------------------------


def _front(contents: Contents) -> None:
    costs = {each.sentence: each for each in contents.costs}
    first = next(iter(costs))
    members = contents.front(costs[first])
    cost = gr.Dropdown(list(costs), value=first, label="Cost", elem_id="cost")
    place = gr.Slider(
        1, max(len(members), 2), len(members), step=1, label="From cheap to dear", elem_id="place"
    )
    shown = gr.HTML(views.front_member(contents, costs[first], len(members)), padding=False)

    def chosen(name: str) -> tuple[Any, str]:
        count = len(contents.front(costs[name]))
        view = views.front_member(contents, costs[name], count)
        return gr.update(maximum=max(count, 2), value=count), view

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    cost.change(chosen, cost, [place, shown], **quiet)
    place.change(
        lambda name, number: views.front_member(contents, costs[name], int(number)),
        [cost, place],
        shown,
        **quiet,
    )


def _layers(contents: Contents) -> None:
    names = list(contents.pictures)
    if not names:
        gr.HTML(views.note("The run has no variant whose layers were counted."))
        return
    begin = names[-1]
    variant = gr.Dropdown(names, value=begin, label="Variant", elem_id="variant")
    shown = gr.HTML(views.layer_view(contents, begin), elem_id="layers", padding=False)
    variant.change(
        lambda name: views.layer_view(contents, name),
        variant,
        shown,
        show_progress="hidden",
        api_visibility="private",
    )
