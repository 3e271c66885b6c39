"""The page says what the records say, and nothing else gets into it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from urllib.parse import unquote

import pytest

from tests.report.fake import SESSION, fake_run
from tests.tables import slow
from tfprune.report import write_report

VOID = {"meta", "link", "br", "img", "hr", "input"}
SEVERAL = {
    "one": {},
    "seeds": {"seeds": (0, 1, 2)},
    "formats": {"own_formats": {"sparse": ["tflite-int8"]}},
    "single": {"chains": {"dense": ["dense"]}},
    "untimed": {"latency": False},
    "empty": {"chains": {"given": [], "slim": ["slim"]}},
    "unknown": {"chains": {"dense": ["dense"], "rewound": ["dense", "rewind"]}},
}
HOSTILE = {
    "dense": ["dense"],
    "<img src=x onerror=alert(1)>\"'&": ["dense", "sparse"],
    "javascript:alert(1)": ["dense", "slim"],
    "$x^2$ {{ 7 * 7 }} ns0: %2e%2e #a?b": ["dense"],
    "long" * 50: ["dense", "slim", "finetune"],
}


class Page(HTMLParser):
    """Elements, links and text; fails where an element is not closed by its own tag."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def _page(directory, **options) -> str:
    return write_report(fake_run(directory, **options)).read_text(encoding="utf-8")


@pytest.fixture(
    params=[name if name in ("seeds", "empty", "unknown") else slow(name) for name in SEVERAL]
)
def directory(request, tmp_path):
    write_report(fake_run(tmp_path, **SEVERAL[request.param]))
    return tmp_path


def test_every_kind_of_run_gives_a_sound_page(directory):
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    for tag, attrs in page.elements:
        if tag == "svg" and attrs.get("aria-hidden") != "true":
            assert attrs["role"] == "img"
            assert attrs["aria-label"]
        if tag == "th":
            assert attrs["scope"] in ("col", "row", "rowgroup")
    assert not re.search(r"\bnan\b|None", page.text.split("The whole pipeline")[0])


def test_all_links_lead_into_the_page_or_to_files_of_the_run(directory):
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    ids = {attrs.get("id") for _, attrs in page.elements}
    links = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
    assert links
    for href in links:
        assert href[1:] in ids if href.startswith("#") else (directory / unquote(href)).is_file()


def test_nothing_is_loaded_and_nothing_runs(directory):
    markup = (directory / "report.html").read_text(encoding="utf-8")
    page = Page(markup)
    assert not {"script", "iframe", "object", "embed", "img", "link"} & {
        tag for tag, _ in page.elements
    }
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert "http://" not in markup
    assert "https://" not in markup
    assert "content=\"default-src 'none'; style-src 'unsafe-inline';" in markup


def test_writing_twice_gives_the_same_bytes(directory):
    first = (directory / "report.html").read_bytes()
    write_report(directory)
    assert (directory / "report.html").read_bytes() == first


def test_the_result_can_be_checked_against_the_table(tmp_path):
    text = Page(_page(tmp_path)).text
    assert (
        "The accuracy of dense is 95.00% on 200 test examples. Against it, all as tflite: "
        "sparse loses 0.50 points at 17.9% of the compressed size, 100% of the MACs, and 100% of "
        "the latency "
        "slim loses 1.00 points at 48.7% of the compressed size, 50.0% of the MACs, and 50.0% of "
        "the latency "
        "With 200 test examples that accuracy has a standard error of 1.54 points and a 95% "
        "interval from 91.0% to 97.3%."
    ) in text


def test_a_figure_of_one_seed_links_to_its_source(tmp_path):
    markup = _page(tmp_path)
    for cell in (
        '<td class="strong"><a href="./sparse/seed-0/record.json">94.50%</a></td>',
        '<a href="./sparse/seed-0/model.tflite">0.7 KiB</a>',
        '<a href="./latency/seed-0/record.json">0.500 ms</a>',
        '<a href="./steps/sparse-000000000000/record.json">record</a>',
    ):
        assert cell in markup


def test_figures_of_several_seeds_are_means_with_deviations_and_link_to_all(tmp_path):
    markup = _page(tmp_path, seeds=(0, 1, 2))
    assert '<td class="strong">96.00% ± 1.00%</td>' in markup
    for seed in range(3):
        assert f'href="./dense/seed-{seed}/record.json"' in markup
        assert f'href="./latency/seed-{seed}/record.json"' in markup
    assert "the mean of 3 seeds" in Page(markup).text


def test_a_variant_with_formats_of_its_own_is_told_in_them(tmp_path):
    text = Page(_page(tmp_path, own_formats={"sparse": ["tflite-int8"]})).text
    assert (
        "Against it, as tflite where nothing else is said: "
        "sparse as tflite-int8: loses 0.50 points at 20.5% of the compressed size"
    ) in text


def test_names_from_records_are_text(tmp_path):
    evil = "</title><script>alert(1)</script>"
    session = SESSION | {"command": evil, "commit": evil, "versions": {evil: evil}}
    markup = _page(tmp_path, chains=HOSTILE, name=evil, data=evil, sessions=[session])
    page = Page(markup)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "img" not in {tag for tag, _ in page.elements}
    assert not any(
        str(attrs.get("href", "")).lower().startswith("javascript") for _, attrs in page.elements
    )
    assert page.text.count(evil) >= 5
    for name in HOSTILE:
        assert name in page.text
    for tag, attrs in page.elements:
        if tag == "a" and not attrs["href"].startswith("#"):
            assert (tmp_path / unquote(attrs["href"])).is_file()


def test_sessions_are_all_told_and_what_did_not_change_once(tmp_path):
    killed = SESSION | {"ended": None, "begun": "2026-01-01T00:00:00+00:00"}
    text = Page(_page(tmp_path, sessions=[killed, SESSION])).text
    assert "Session 1 of 2" in text
    assert "begun 2026-01-01 00:00:00 UTC ended killed or going on" in text
    assert "ended 2026-01-02 03:14:05 UTC" in text
    assert text.count("machine Abacus, 2 cores, 4.0 GiB, Linux x86_64") == 1


def test_a_latency_that_was_not_measured_is_no_figure(tmp_path):
    text = Page(_page(tmp_path, latency=False)).text
    assert "Not measured: latency." in text
    assert "of the latency" not in text


@pytest.mark.slow
def test_a_sweep_is_folded_and_its_result_is_the_front(tmp_path):
    chains = {"dense": ["dense"]} | {f"s{n:02d}": ["dense", "sparse"] for n in range(14)}
    page = Page(_page(tmp_path, chains=chains, formats=("tflite",)))
    # Later variants are smaller and less accurate: all are on the front, eight are told.
    assert "8 of 14 variants: those that no other beats" in page.text
    assert "7 more variants" in page.text
    figures = [attrs for tag, attrs in page.elements if tag == "svg" and "aria-label" in attrs]
    assert len(figures) == 3 + 14 + 15


def test_how_it_was_made(tmp_path):
    text = Page(_page(tmp_path, seeds=(0, 1))).text
    assert "slim 8 epochs in all, 7.5 s" in text
    assert "Seed 0: 7 channels of 2 layers went" in text
    assert "dense : trains 4 epochs at learning rate 0.05" in text


def test_a_chain_without_steps_is_told(tmp_path):
    text = Page(_page(tmp_path, chains={"given": []})).text
    assert "no steps: the model as it was given" in text
    assert "Without training of their own that was recorded: given." in text
