"""What the documents say exists: every command they show parses, every column is explained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from harness import leaderboard, plugins
from harness.cli import main

ROOT = Path(__file__).resolve().parent.parent
TAUGHT = (
    "quickstart.md", "report.md", "methods.md", "methods-single-example.md", "diagnostics.md", "ray.md", "interop.md",
)  # fmt: skip
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in TAUGHT)]
COMMANDS = [
    line.partition("  #")[0].removeprefix(".venv/bin/").strip()
    for page in PAGES
    for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.removeprefix(".venv/bin/").startswith("harness ")
]


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_shown_commands_parse(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    main.commands[name].make_context(name, arguments)  # raises for an unknown flag or a missing argument


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_teaches(command: str) -> None:
    found = main.commands[command]
    assert found.help
    for parameter in found.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_every_column_is_explained() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    cells = set(re.findall(r"[\w@]+", " ".join(re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE))))
    assert {column.removeprefix("base_") for column in leaderboard.COLUMNS} - cells == set()


def test_specs_shown_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"benchmarks/\w+/\w+\.toml", page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), path


def test_every_option_of_every_method_is_documented() -> None:
    """As a word in a section that names the method."""
    text = "".join(
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("methods.md", "methods-single-example.md")
    )
    sections, found = text.split("\n## "), plugins.load({})
    for name in found.names("method"):
        own = [section for section in sections if re.search(rf"\b{name}\b", section)]
        assert own, name
        for option in getattr(found.lookup("method", name).load(), "options", {}):
            assert any(re.search(rf"\b{option}\b", section) for section in own), f"{name}: {option}"


def test_every_figure_of_the_report_is_explained() -> None:
    """By the name of its file, in a section that says how not to misread it."""
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "harness" / "report").glob("*.py")]
    names = {name for source in sources for name in re.findall(r'Figure\(\s*"(\w+)"', source)}
    assert len(names) > 12
    for name in names:
        own = [section for section in sections if f"`{name}`" in section]
        assert own, name
        assert any("*Not to misread*" in section for section in own), name


def test_pictures_of_the_docs_exist_and_are_small() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            picture = page.parent / link
            assert picture.exists(), link
            assert picture.parent.name != "images" or picture.stat().st_size < 200_000, link
