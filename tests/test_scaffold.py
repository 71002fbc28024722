"""`harness new`: what it writes installs and passes as it is; the commands of the author's guides work as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from fresh_venv import FreshVenv

from harness import authoring, leaderboard, scaffold
from harness.cli import Friendly

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"domain": "my_sums", "method": "my_step", "engine": "my_table"}
INSTALL = "pip install --no-deps --no-build-isolation -e"
pytest.importorskip("setuptools", reason="packages are built without a download, so setuptools must be installed")


def new(kind: str, name: str) -> tuple[int, str]:
    result = CliRunner().invoke(Friendly("harness", commands={"new": authoring.new}), ["new", kind, name])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[FreshVenv, Path]:
    """An environment with a scaffolded domain, method and engine installed, and the folder they are in."""
    folder = tmp_path_factory.mktemp("scaffold")
    environment = FreshVenv(folder / "venv")
    for kind, name in NAMES.items():
        made = environment.run(f"harness new {kind} {name}", cwd=folder)
        assert made.returncode == 0, made.stdout + made.stderr
    folders = " ".join(f"-e harness-{name.replace('_', '-')}" for name in NAMES.values())
    installed = environment.run(f"{INSTALL.removesuffix('-e')} {folders}", cwd=folder)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return environment, folder


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_written_passes_its_own_tests(kind: str, place: tuple[FreshVenv, Path]) -> None:
    environment, folder = place
    done = environment.run("pytest", cwd=folder / f"harness-{NAMES[kind].replace('_', '-')}")
    assert done.returncode == 0, done.stdout + done.stderr
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 8
    assert "skipped" not in done.stdout


def test_plugins_lists_what_is_installed(place: tuple[FreshVenv, Path]) -> None:
    environment, folder = place
    listed = environment.run("harness plugins", cwd=folder).stdout
    for name in NAMES.values():
        assert f"harness-{name.replace('_', '-')} 0.1.0" in listed
    assert "placeholder" not in listed


def test_a_mistake_is_found_by_name(place: tuple[FreshVenv, Path]) -> None:
    environment, folder = place
    module = folder / "harness-my-sums" / "harness_my_sums" / "domain.py"
    right = module.read_text()
    module.write_text(right.replace("int(claim) == problem.answer", "int(claim) >= problem.answer"))
    try:
        done = environment.run("harness check my_sums", cwd=folder)
    finally:
        module.write_text(right)
    assert done.returncode == 1
    assert re.search(r"failed +domain.near_miss .*is correct, expected wrong", done.stdout), done.stdout
    assert "what to do:" in done.stdout


def test_a_working_verifier_is_at_most_sixty_lines() -> None:
    text = (scaffold.TEMPLATES / "domain" / "harness_placeholder" / "domain.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 60


def test_it_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harness-mine").mkdir()
    code, output = new("domain", "mine")
    assert code == 2
    assert "harness-mine exists already" in output
    assert list((tmp_path / "harness-mine").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("domain", "math", 'the domain "math" exists already, in oneshot-harness'),
        ("engine", "hf", "exists already"),
        ("method", "math", "a package harness_math is installed already"),
        ("domain", "My-Sums", 'small letters, digits and _, a letter first, 30 at most. "my_sums" would do.'),
        ("domain", "../up", '"up" would do'),
        ("domain", "1st", '"st" would do'),
        ("domain", "", "is no name"),
        ("domain", "a" * 31, "is no name"),
        ("plugin", "mine", "is not one of 'domain', 'method', 'engine'"),
    ],
)
def test_names_are_checked(kind: str, name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = new(kind, name)
    assert code == 2
    assert said in " ".join(output.split())
    assert list(tmp_path.iterdir()) == []


def test_it_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = new("domain", "mine")
    assert code == 0
    assert f"{INSTALL} harness-mine" in output
    assert "harness check mine" in output
    written = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert written == [
        f"harness-mine/{name}"
        for name in (
            "README.md",
            "harness_mine/__init__.py",
            "harness_mine/domain.py",
            "harness_mine/plugin.py",
            "pyproject.toml",
            "tests/test_mine.py",
        )
    ]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not re.search("placeholder|KIND", path.read_text(), re.IGNORECASE), path


def commands_of(page: str) -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["write-a-verifier.md", "write-a-method.md"])
def test_the_guides_work_as_shown(page: str, tmp_path: Path) -> None:
    environment, said = FreshVenv(tmp_path / "venv"), {}
    commands = commands_of(page)
    assert len(commands) >= 3
    for command in commands:
        done = environment.run(command, cwd=tmp_path, timeout=300)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
        said[command] = done.stdout
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (promised,) = re.findall(r"ends in\s+`(\d+ passed, 0 failed, 0 skipped)`", text)
    assert promised in next(output for command, output in said.items() if command.startswith("harness check"))
    if page == "write-a-verifier.md":
        (verdict,) = (output for command, output in said.items() if command.startswith("harness verify"))
        assert '"outcome": "correct", "extracted": "14", "format_ok": false' in verdict
        rows = {row["method"]: row for row in leaderboard.read_csv(tmp_path / "results/leaderboard/doubles.csv")}
        assert float(rows["base"]["pass@1"]) == pytest.approx(0.25, abs=0.08)
        assert float(rows["one_shot"]["pass@1"]) == pytest.approx(0.7, abs=0.15)
