"""Files of a public project agree with pyproject.toml and with scripts/test."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
FORMS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(".github/**/*.yml"))
YAML = [".pre-commit-config.yaml", "CITATION.cff", *FORMS]


def load(path: str) -> dict:
    return yaml.load(
        (ROOT / path).read_text("utf-8"), yaml.BaseLoader
    )  # BaseLoader: `on` is no Boolean, 3.10 no number


def jobs(name: str) -> dict:
    return load(f".github/workflows/{name}.yml")["jobs"]


def test_there_are_files_to_check():
    assert len(YAML) >= 10


@pytest.mark.parametrize("path", YAML)
def test_yaml_is_a_mapping(path):
    assert isinstance(load(path), dict)


@pytest.mark.parametrize("path", [path for path in YAML if "/workflows/" in path])
def test_workflows_have_least_privilege_and_time_limits(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all(int(job["timeout-minutes"]) <= 90 for job in workflow["jobs"].values())


def test_workflows_test_the_python_versions_of_the_classifiers():
    prefix = "Programming Language :: Python :: 3."
    minors = sorted(int(line.removeprefix(prefix)) for line in PROJECT["classifiers"] if line.startswith(prefix))
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    assert jobs("test")["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in minors]
    lowest = [step["with"]["python-version"] for step in jobs("test")["lowest"]["steps"] if "setup-python" in str(step)]
    assert lowest == [f"3.{minors[0]}"]


def test_hooks_and_workflow_run_the_checks_of_the_script():
    script = re.findall(r"^\.venv/bin/(?:ruff|pyright).*", (ROOT / "scripts" / "test").read_text("utf-8"), re.M)
    hooks = [hook["entry"] for repo in load(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    steps = [step.get("run", "") for step in jobs("test")["checks"]["steps"]]
    assert len(script) == 3
    assert hooks == script
    assert [step for step in steps if step.startswith(".venv/")] == script


def test_the_change_log_keeps_its_format():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased, newest, *_ = versions = re.findall(r"^## (.*)$", text, re.M)
    assert unreleased == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    assert newest.startswith(f"[{PROJECT['version']}] - ")
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= CHANGES


def test_the_citation_names_the_newest_version():
    citation = load("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert f"## [{citation['version']}] - {citation['date-released']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_lower_bounds_of_the_documentation_are_those_of_the_project():
    page = (ROOT / "docs" / "installation.md").read_text("utf-8")
    bounds = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in PROJECT["dependencies"])
    for name in ("tensorflow", "keras"):
        assert re.search(rf"^\| {name} \| {re.escape(bounds[name])} and later", page, re.M | re.I), name
