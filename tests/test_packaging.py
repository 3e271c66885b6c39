"""A wheel holds all that the package reads, and the files about the project agree."""

from __future__ import annotations

import configparser
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tfprune

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfprune"
# What the jobs of CI install.
CI_EXTRAS = ("dev", "docs", "notebooks")


@pytest.fixture(scope="module")
def setup() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def _listed(text: str) -> list[str]:
    """The lines of a value, without comments."""
    lines = map(str.strip, text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def test_every_file_of_the_package_that_is_not_python_goes_into_the_wheel(setup):
    data = setup["options.package_data"]
    wanted = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in (".py", ".pyc")
        and "node_modules" not in path.parts
    }
    assert wanted
    anywhere = {path for pattern in _listed(data["*"]) for path in PACKAGE.rglob(pattern)}
    named = {path for pattern in _listed(data["tfprune"]) for path in PACKAGE.glob(pattern)}
    assert not wanted - anywhere - named


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_the_version_is_one(setup):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert setup["metadata"]["version"] == citation["version"] == tfprune.__version__
    assert setup["metadata"]["license"] == citation["license"]


def test_files_about_the_project_exist(setup):
    for name in [*_listed(setup["metadata"]["license_files"]), "CHANGELOG.md", "SECURITY.md"]:
        assert (ROOT / name).stat().st_size > 200
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert {path.stem for path in forms} == {"bug", "question", "config"}
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert path.stem == "config" or {"name", "description", "body"} <= set(form)


def test_what_is_installed_is_within_the_bounds(setup):
    for line in _listed(setup["options"]["install_requires"]):
        wanted = Requirement(line)
        assert wanted.specifier.contains(version(wanted.name), prereleases=True), line


def test_every_requirement_is_pinned_for_ci_within_its_bounds(setup):
    pinned = {}
    for line in _listed((ROOT / ".ci/newest.txt").read_text()):
        (exact,) = Requirement(line).specifier
        assert exact.operator == "==", line
        pinned[canonicalize_name(Requirement(line).name)] = exact.version
    extras = setup["options.extras_require"]
    for text in [setup["options"]["install_requires"], *(extras[name] for name in CI_EXTRAS)]:
        for line in _listed(text):
            wanted = Requirement(line)
            found = pinned.get(canonicalize_name(wanted.name))
            assert found, f"{line} has no pin: make constraints"
            assert wanted.specifier.contains(found, prereleases=True), line


@pytest.mark.parametrize("name", ["ci", "docs"])
def test_ci_installs_the_pinned_versions(name):
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())
    assert "/.ci/newest.txt" in workflow["env"]["PIP_CONSTRAINT"]
