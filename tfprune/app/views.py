"""What the application shows, as HTML: the same for the server and for the page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tfprune.app.contents import Answer, Contents, example_at
from tfprune.figures import Figure, figure

# More images are not looked at on one page.
_MOST_SHOWN = 24
_SHOWN_PIXELS = 96


def heading(contents: Contents) -> str:
    """The name of the run, its data, and the files that are left out."""
    left = "".join(
        f"<li>{html.escape(title)} is left out: {html.escape(why)}</li>"
        for title, why in contents.left_out.items()
    )
    return (
        f'<header class="tp-head"><h1>{html.escape(contents.name)}</h1>'
        f"<p>Every variant answers with its own exported file. Seed {contents.seed}; "
        f"{html.escape(contents.dataset.note)}.</p>{f'<ul>{left}</ul>' if left else ''}</header>"
    )


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


def example_view(contents: Contents, number: int) -> str:
    """A test example and its class, by its number."""
    told = f"is {html.escape(contents.truth[number])}" if contents.truth else ""
    example = example_at(contents.examples, number)
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
            lost = each.drop(value, was)
            unit = " points" if each.is_share else each.number.unit
            amount = f"{abs(lost):.2f}"
            change = f"{amount}{unit} {'lost' if lost > 0 else 'gained'}"
            same = float(amount) == 0
        else:
            ratio = f"{value / was:.3g}" if was else ""
            change = f"{ratio} times" if ratio else ""
            same = ratio == "1"
        if same:
            change = "the same"
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


def layer_view(contents: Contents, variant: str) -> str:
    """The layers of a variant: how much of each is left."""
    return (
        f'<figure class="tp-layers">{contents.pictures[variant]}<figcaption>Blue: the share of the '
        "weights that are not zero. Orange, where channels were removed: the share of the weights "
        "that are there. The line shows the first variant.</figcaption></figure>"
    )


def differences(contents: Contents) -> str:
    """The test examples whose class is not the same for all files, as HTML."""
    if not contents.is_classification:
        return note("The answers are no classes, so none is the same or another one.")
    found, count = contents.differences, len(contents.examples)
    if not found:
        return note(f"All files give the same class for {count} test examples.")
    shown = []
    for each in found[:_MOST_SHOWN]:
        seen = ""
        if contents.image_shape is not None:
            seen = picture(example_at(contents.examples, each.number))
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


def note(text: str) -> str:
    """A line of text."""
    return f'<p class="tp-note">{html.escape(text)}</p>'
