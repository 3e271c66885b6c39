"""The site's pages: each public name is documented, links within it lead somewhere."""

from __future__ import annotations

import importlib
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


def test_the_picture_shows_the_committed_result():
    picture = pytest.importorskip("benchmarks.picture")
    drawn = (ROOT / picture.PICTURE).read_text()
    table = picture.table(ROOT / picture.RESULT)
    assert list(table.index) == list(picture.STAGES)
    for name, row in table.iterrows():
        assert name == "dense" or f"{row['smaller']:.0f}x smaller" in drawn
