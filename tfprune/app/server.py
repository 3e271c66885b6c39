"""The application as a gradio server: draw, upload or pick, and every variant answers.

Needs the extra `app`. Only this module imports gradio.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from importlib.resources import files as resources
from typing import Any

# It is read when gradio is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
from PIL import Image

from tfprune.app.contents import Answer, Contents, File, example_at
from tfprune.figures import Figure, figure

# More images are not looked at on one page.
_MOST_SHOWN = 24
_SHOWN_PIXELS = 96
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
        gr.HTML(_heading(contents))
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300):
                triggers = _inputs(contents)
            with gr.Column(scale=2, min_width=320):
                table = gr.HTML(
                    _answers_of(contents, _example(contents, 0)), elem_id="answers", padding=False
                )
        for listen, function, source in triggers:
            listen(function, source, table, show_progress="hidden", api_visibility="private")
        with gr.Tab("Front"):
            _front(contents)
        with gr.Tab("Layers"):
            _layers(contents)
        with gr.Tab("Where they differ"):
            gr.HTML(differences(contents), elem_id="differences", padding=False)
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
    build(contents).launch(
        server_name=host,
        server_port=port,
        inbrowser=open_browser,
        share=False,
        **look(),
    )


def look() -> dict[str, Any]:
    """What `launch` is told of the look: fonts of the system, and no request to elsewhere."""
    style = resources("tfprune.app").joinpath("app.css").read_text(encoding="utf-8")
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"]
    theme = gr.themes.Default(primary_hue="blue", font=fonts, font_mono=["ui-monospace", "monospace"])
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
                    return _nothing("Drop an image.")
                return _answers_of(contents, contents.photo(image))

            triggers.append((photo.change, uploaded, photo))
    with gr.Tab("Test example"):
        number = gr.Slider(
            0, len(contents.examples) - 1, 0, step=1, label="Number", elem_id="number"
        )
        shown = gr.HTML(_example_view(contents, 0), padding=False)

        def picked(place: float) -> str:
            return _answers_of(contents, _example(contents, int(place)))

        triggers.append((number.change, picked, number))
        number.change(
            lambda place: _example_view(contents, int(place)),
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
            return _nothing("Draw something.")
        image = np.asarray(image, np.uint8)
        # The brush is black; what was never drawn on is transparent or white.
        ink = image[..., 3] if image.shape[2] == 4 else np.full(image.shape[:2], 255, np.uint8)
        ink = np.minimum(ink, 255 - image[..., :3].max(axis=2))
        if not (ink > 25).any():
            return _nothing("Draw something.")
        return _answers_of(contents, contents.drawing(ink))

    return answer


def _example(contents: Contents, number: int) -> Any:
    return example_at(contents.examples, number)


def _example_view(contents: Contents, number: int) -> str:
    targets = contents.examples.targets
    told = ""
    if contents.is_classification and targets is not None:
        label = np.asarray(targets)[number]
        place = int(label.argmax()) if np.ndim(label) else int(label)
        told = f"is {html.escape(contents.dataset.classes[place])}"
    example = _example(contents, number)
    if contents.image_shape is not None:
        return (
            f'<figure class="tp-example">{picture(example)}<figcaption>{told}</figcaption></figure>'
        )
    values = {"": example} if not isinstance(example, dict) else example
    lines = [
        f"{html.escape(name)} {', '.join(f'{value:.4g}' for value in np.ravel(array)[:12])}"
        for name, array in values.items()
    ]
    return f'<p class="tp-note">{"<br>".join(lines)}{"<br>" + told if told else ""}</p>'


def _nothing(text: str) -> str:
    return f'<p class="tp-note">{html.escape(text)}</p>'


def _answers_of(contents: Contents, example: Any) -> str:
    seen = picture(example) if contents.image_shape is not None else ""
    return answers_table(contents.answers(example), contents.figure, seen)


def answers_table(answers: Sequence[Answer], by: Figure, seen: str = "") -> str:
    """A table of answers, one row a file.

    Args:
        answers: of all files to one example.
        by: what the run is compared by.
        seen: the example as the files see it, as HTML.
    """
    size = figure("bytes")
    head = ["", "format", "answer", "", "time here", "size", f"test {by.noun}"]
    rows, before = [], ""
    for each in answers:
        file = each.file
        sure = ""
        if each.confidence is not None:
            share = f"{each.confidence:.1%}"
            sure = (
                f'<meter min="0" max="1" value="{each.confidence:.4f}" aria-hidden="true"></meter>'
                f"<span>{share}</span>"
            )
        differs = each.agrees is False
        mark = ' <b class="tp-differs">differs</b>' if differs else ""
        cells = [
            html.escape(file.format),
            f"<strong>{html.escape(each.text)}</strong>{mark}",
            sure,
            f"{each.milliseconds:.3g} ms",
            size.text(file.row["bytes"]),
            by.text(file.row[by.name]),
        ]
        name = html.escape(file.variant) if file.variant != before else ""
        begins = ' class="tp-first"' if name else ""
        before = file.variant
        tds = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr{begins}><th scope="row">{name}</th>{tds}</tr>')
    differing = sum(each.agrees is False for each in answers)
    first = html.escape(answers[0].file.title)
    said = ""
    if answers[0].agrees is not None:
        said = (
            f"All {len(answers)} files agree."
            if not differing
            else f"{differing} of {len(answers)} files differ from {first}."
        )
    what = f'<div class="tp-seen"><span>what the files see</span>{seen}</div>' if seen else ""
    heads = "".join(f'<th scope="col">{each}</th>' for each in head)
    return (
        f'<div class="tp-answers"><div class="tp-said"><p role="status">{said}</p>{what}</div>'
        '<div class="tp-wide">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>"
    )


# -- what does not change -----------------------------------------------------------------------


def _heading(contents: Contents) -> str:
    left = "".join(
        f"<li>{html.escape(title)} is left out: {html.escape(why)}</li>"
        for title, why in contents.left_out.items()
    )
    return (
        f'<header class="tp-head"><h1>{html.escape(contents.name)}</h1>'
        f"<p>Every variant answers with its own exported file. Seed {contents.seed}; "
        f"{html.escape(contents.dataset.note)}.</p>{f'<ul>{left}</ul>' if left else ''}</header>"
    )


def _front(contents: Contents) -> None:
    costs = {each.sentence: each for each in contents.costs}
    first = next(iter(costs))
    members = contents.front(costs[first])
    cost = gr.Dropdown(list(costs), value=first, label="Cost", elem_id="cost")
    place = gr.Slider(
        1, max(len(members), 2), len(members), step=1, label="From cheap to dear", elem_id="place"
    )
    shown = gr.HTML(front_member(contents, costs[first], len(members)), padding=False)

    def chosen(name: str) -> tuple[Any, str]:
        count = len(contents.front(costs[name]))
        view = front_member(contents, costs[name], count)
        return gr.update(maximum=max(count, 2), value=count), view

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    cost.change(chosen, cost, [place, shown], **quiet)
    place.change(
        lambda name, number: front_member(contents, costs[name], int(number)),
        [cost, place],
        shown,
        **quiet,
    )


def front_member(contents: Contents, cost: Figure, number: int) -> str:
    """One file of the front, beside the first file of the run.

    Args:
        contents: of the run.
        cost: that the front is walked in.
        number: of the member, from 1, the cheapest first; a larger one is the last.
    """
    members = contents.front(cost)
    file, base = members[min(number, len(members)) - 1], contents.files[0]
    by = contents.figure
    rows = []
    for each in (by, *contents.costs):
        value, was = file.row[each.name], base.row[each.name]
        if each is by:
            lost = each.change(each.gain(was), each.gain(value))
            unit = " points" if each.is_share else each.number.unit
            change = f"{abs(lost):.2f}{unit} {'lost' if lost > 0 else 'gained'}"
        else:
            change = f"{value / was:.3g} times" if was else ""
        rows.append(
            f'<tr><th scope="row">{html.escape(each.sentence)}</th><td>{each.text(value)}</td>'
            f"<td>{each.text(was)}</td><td>{change}</td></tr>"
        )
    return (
        f'<div class="tp-answers"><p role="status"><strong>{html.escape(file.title)}</strong>, '
        f"{min(number, len(members))} of {len(members)} that no other file beats in both</p>"
        f'<div class="tp-wide"><table><thead><tr><th></th><th scope="col">this file</th>'
        f'<th scope="col">{html.escape(base.title)}</th><th scope="col">change</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _layers(contents: Contents) -> None:
    names = list(contents.pictures)
    if not names:
        gr.HTML(_nothing("The run has no variant whose layers were counted."))
        return
    begin = names[-1]
    variant = gr.Dropdown(names, value=begin, label="Variant", elem_id="variant")
    shown = gr.HTML(_layer_view(contents, begin), elem_id="layers", padding=False)
    variant.change(
        lambda name: _layer_view(contents, name),
        variant,
        shown,
        show_progress="hidden",
        api_visibility="private",
    )


def _layer_view(contents: Contents, variant: str) -> str:
    return (
        f'<figure class="tp-layers">{contents.pictures[variant]}<figcaption>Blue: the share of the '
        "weights that are not zero. Orange, where channels were removed: the share of the weights "
        "that are there. The line shows the first variant.</figcaption></figure>"
    )


def differences(contents: Contents) -> str:
    """The test examples whose class is not the same for all files, as HTML."""
    if not contents.is_classification:
        return _nothing("The answers are no classes, so none is the same or another one.")
    found, count = contents.differences, len(contents.examples)
    if not found:
        return _nothing(f"All files give the same class for {count} test examples.")
    shown = []
    for each in found[:_MOST_SHOWN]:
        seen = ""
        if contents.image_shape is not None:
            seen = picture(_example(contents, each.number))
        others = "".join(
            f"<li>{html.escape(title)}: {html.escape(name)}</li>"
            for title, name in each.answers.items()
        )
        truth = f"is {html.escape(each.truth)}; " if each.truth else ""
        first = html.escape(contents.files[0].title)
        shown.append(
            f"<li>{seen}<div><p>Example {each.number} {truth}{first}: "
            f"{html.escape(each.expected)}</p><ul>{others}</ul></div></li>"
        )
    more = f", the first {_MOST_SHOWN} of them" if len(found) > _MOST_SHOWN else ""
    return (
        f'<p class="tp-note">{len(found)} of {count} test examples{more}</p>'
        f'<ul class="tp-grid">{"".join(shown)}</ul>'
    )


def picture(image: np.ndarray) -> str:
    """An image as an HTML element, enlarged without smoothing.

    Args:
        image: (height, width, 1 or 3), pixels 0 to 255.
    """
    pixels = np.clip(np.asarray(image), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img class="tp-pixels" width="{_SHOWN_PIXELS}" height="{_SHOWN_PIXELS}" alt="" '
        f'src="data:image/png;base64,{data}">'
    )


__all__ = ["File", "answers_table", "build", "differences", "front_member", "look", "serve"]
