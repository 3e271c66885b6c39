"""The site's pages: each public name is documented, links within it lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

import tfprune

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Packages whose public names have a page, and that page.
PACKAGES = {
    "tfprune": "index",
    **{
        f"tfprune.{name}": name
        for name in (
            "artifacts",
            "data",
            "devices",
            "filters",
            "formats",
            "measure",
            "pipeline",
            "quantize",
            "searching",
            "tasks",
            "weights",
        )
    },
}


def _public(package: str) -> set[str]:
    return set(importlib.import_module(package).__all__) - {"__version__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_name_is_on_the_page_of_its_package(package):
    page = (DOCS / "api" / f"{PACKAGES[package]}.md").read_text()
    shown = re.findall(r"^::: (\S+)$", page, re.M)
    assert sorted(shown) == sorted(f"{package}.{name}" for name in _public(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_each_public_function_and_class_is_documented(package):
    module = importlib.import_module(package)
    for name in _public(package):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"
            # A dataclass without one gets its signature.
            assert not (value.__doc__ or "").startswith(f"{name}("), f"{package}.{name}"


@pytest.mark.parametrize("name", sorted(_public("tfprune")))
def test_what_is_imported_first_has_an_example(name):
    value = getattr(tfprune, name)
    if not (inspect.isclass(value) and issubclass(value, Exception)):
        assert "Example" in inspect.getdoc(value)


def test_each_page_is_in_the_navigation():
    text = re.sub(r"^\s+filters:.*$", "", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
    listed = set(re.findall(r"[\w/-]+\.md", json.dumps(yaml.safe_load(text)["nav"])))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages == listed - {"CONTRIBUTING.md", "CHANGELOG.md"}


@pytest.mark.parametrize(
    "page",
    sorted(path.relative_to(ROOT).as_posix() for path in [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]),
)
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            slugs = {
                re.sub(r"[^\w\s-]", "", each.lower()).strip().replace(" ", "-") for each in headings
            }
            assert anchor in slugs, f"{page} links to {link}"


@pytest.fixture(scope="module")
def hooks():
    specification = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("link", "origin", "place", "moved"),
    [
        ("devices.md", "docs/faq.md", "faq.md", "devices.md"),
        (
            "../../benchmarks/results/a.md",
            "docs/guides/b.md",
            "guides/b.md",
            "../benchmarks/results/a.md",
        ),
        ("../CONTRIBUTING.md", "docs/faq.md", "faq.md", "CONTRIBUTING.md"),
        ("docs/data.md", "CONTRIBUTING.md", "CONTRIBUTING.md", "data.md"),
        (
            "../.github/workflows/prune-and-check.yml",
            "docs/ci.md",
            "ci.md",
            "files/prune-and-check.yml",
        ),
    ],
)
def test_links_out_of_docs_lead_to_the_same_file_on_the_site(hooks, link, origin, place, moved):
    assert hooks.moved(link, origin, place) == moved


def test_rows_become_a_table_and_what_is_nested_stays_whole(hooks):
    written = hooks.as_csv([{"a": 1, "b": [1, 2]}, {"a": "x, y", "c": None}])
    assert written.splitlines() == ["a,b,c", '1,"[1, 2]",', '"x, y",,']


def test_the_page_of_results_lists_each_result_with_its_command(hooks):
    listed = hooks.all_results()
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        row = next(line for line in listed.splitlines() if line.startswith(f"| [{path.stem}]"))
        assert "python" in row or "tfprune" in row


def test_documents_quote_results_as_they_are():
    quotes = pytest.importorskip("benchmarks.quotes")
    results = ROOT / "benchmarks" / "results"
    documents = {path: path.read_text() for path in [ROOT / "README.md", *DOCS.rglob("*.md")]}
    marks = sum(text.count("<!-- quote ") for text in documents.values())
    assert marks == sum(text.count("<!-- end -->") for text in documents.values()) > 0
    for path, text in documents.items():
        assert quotes.quoted(text, results) == text, f"{path}: run python -m benchmarks.quotes"


def test_a_quotation_follows_its_result_and_a_mistake_in_it_is_told(tmp_path):
    quotes = pytest.importorskip("benchmarks.quotes")
    (tmp_path / "run.md").write_text(
        "# run\n\n| name | a | b |\n|:--|--:|--:|\n| one | 1 | 2 |\n| two | 3 | 4 |\n\ntext\n\n"
        "| other |\n|:--|\n| 5 |\n"
    )
    mark = "before\n<!-- quote run: name | b where t* -->\nold\n<!-- end -->\nafter\n"
    written = quotes.quoted(mark, tmp_path)
    assert "| name | b |\n|:--|--:|\n| two | 4 |\n" in written
    assert (
        "<!-- end -->" in written
        and "old" not in written
        and written.startswith("before")
        and written.endswith("after\n")
    )
    assert quotes.quoted(written, tmp_path) == written
    for wrong in ("quote ran: name", "quote run: c", "quote run: name where x*"):
        with pytest.raises(Exception, match=r"is not there|has no"):
            quotes.quoted(f"<!-- {wrong} -->\n<!-- end -->", tmp_path)


def test_the_picture_shows_the_committed_result():
    picture = pytest.importorskip("benchmarks.picture")
    drawn = (ROOT / picture.PICTURE).read_text()
    table = picture.table(ROOT / picture.RESULT)
    assert list(table.index) == list(picture.STAGES)
    for name, row in table.iterrows():
        assert name == "dense" or f"{row['smaller']:.0f}x smaller" in drawn
