"""What the documents say exists: every command they show parses, every column is explained."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from harness import leaderboard
from harness.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "quickstart.md", ROOT / "docs" / "diagnostics.md"]
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
