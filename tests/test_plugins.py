"""Plugins are found one by one; a broken one is named and takes nothing else down; listing imports nothing heavy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tabular_run import SMALL, harness

from harness import doctor, plugins
from harness.errors import HarnessError, UnknownName
from harness.hookspecs import hookimpl
from harness.leaderboard import read_csv
from harness.plugins import Plugins

HEAVY = {"torch", "transformers", "tokenizers", "altair", "vl_convert", "math_verify", "numpy", "safetensors", "rich"}


def point(name: str, load: Callable[[], Any], *, distribution: str = "acme", version: str = "1.2") -> Any:
    return SimpleNamespace(name=name, load=load, dist=SimpleNamespace(name=distribution, version=version))


def module(kind: str, *names: str, api: int = 1) -> Any:
    def hook(register: Any) -> None:
        for name in names:
            register(name, f"acme.{name}:Thing", summary=f"the {name}", api=api)

    return SimpleNamespace(**{f"harness_register_{kind}s": hook})


def fail(error: BaseException) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plugins]:
    def loader(*points: Any, **environment: str) -> Plugins:
        monkeypatch.setattr(plugins, "metadata", SimpleNamespace(entry_points=lambda group: list(points)))
        return plugins.load(environment)

    return loader


def test_names_come_with_their_distribution(load: Callable[..., Plugins]) -> None:
    found = load(point("a", lambda: module("method", "leap", "hop")), point("b", lambda: module("domain", "chess")))
    assert found.names("method") == ["hop", "leap"]
    registration = found.lookup("domain", "chess")
    assert (registration.target, registration.distribution, registration.version) == ("acme.chess:Thing", "acme", "1.2")
    assert found.broken == []


@pytest.mark.parametrize(
    "error", [ImportError("no module named gpu"), SyntaxError("bad"), ZeroDivisionError("x"), KeyError("k")]
)
def test_a_broken_plugin_is_named_and_isolated(load: Callable[..., Plugins], error: Exception) -> None:
    found = load(
        point("a", fail(error), distribution="rotten", version="0.9"), point("b", lambda: module("method", "leap"))
    )
    assert found.names("method") == ["leap"]
    (broken,) = found.broken
    assert (broken.name, broken.distribution, broken.version) == ("a", "rotten", "0.9")
    assert type(error).__name__ in broken.error
    assert str(error) in broken.error


def test_a_failing_hook_is_isolated(load: Callable[..., Plugins]) -> None:
    rotten = SimpleNamespace(harness_register_methods=lambda register: 1 / 0)
    found = load(point("a", lambda: rotten), point("b", lambda: module("method", "leap")))
    assert found.names("method") == ["leap"]
    assert "ZeroDivisionError" in found.broken[0].error


def test_a_duplicate_name_keeps_the_first_and_names_both(load: Callable[..., Plugins]) -> None:
    found = load(
        point("a", lambda: module("method", "leap")), point("b", lambda: module("method", "leap"), distribution="other")
    )
    assert found.lookup("method", "leap").distribution == "acme"
    assert "acme" in found.broken[0].error
    assert "other" in found.broken[0].error


def test_one_name_may_be_of_two_kinds(load: Callable[..., Plugins]) -> None:
    found = load(point("a", lambda: module("method", "leap")), point("b", lambda: module("domain", "leap")))
    assert found.broken == []


def test_a_broken_plugin_registers_nothing(load: Callable[..., Plugins]) -> None:
    """Half of a plugin would run without the other half it may rely on."""
    found = load(
        point("a", lambda: module("method", "leap")),
        point("b", lambda: module("method", "hop", "leap"), distribution="other"),
    )
    assert [b.name for b in found.broken] == ["b"]
    assert found.names("method") == ["leap"]


def test_a_plugin_cannot_take_a_builtin_name(load: Callable[..., Plugins]) -> None:
    """Whatever the alphabet says: the built-in keeps its name, and the names registered after it."""
    found = load(
        point("a", lambda: module("method", "one_shot", "leap")),
        point("methods", lambda: module("method", "base", "one_shot", "grpo"), distribution="oneshot-harness"),
    )
    assert found.lookup("method", "one_shot").distribution == "oneshot-harness"
    assert {"base", "one_shot", "grpo"} <= set(found.names("method"))
    assert [b.distribution for b in found.broken] == ["acme"]


def test_another_api_is_refused(load: Callable[..., Plugins]) -> None:
    found = load(point("a", lambda: module("engine", "warp", api=2)))
    assert found.names("engine") == []
    assert "wants api 2; this harness has 1" in found.broken[0].error


def test_unknown_name_lists_suggests_and_tells_of_broken_ones(load: Callable[..., Plugins]) -> None:
    found = load(
        point("a", lambda: module("method", "one_shot", "grpo")),
        point("b", fail(ImportError("no gpu")), distribution="rotten", version="0.9"),
    )
    with pytest.raises(UnknownName) as caught:
        found.lookup("method", "oneshot")
    text = str(caught.value)
    assert 'no method "oneshot". Known: grpo, one_shot (did you mean "one_shot"?)' in text
    assert "Installed but broken: rotten 0.9 (ImportError: no gpu)" in text
    assert "harness plugins" in text


def test_harness_plugins_limits_the_entry_points(load: Callable[..., Plugins]) -> None:
    points = [point(name, lambda name=name: module("method", name)) for name in ("a", "b", "c")]
    assert load(*points, HARNESS_PLUGINS="a,c").names("method") == ["a", "c"]
    assert load(*points, HARNESS_PLUGINS="a, c").names("method") == ["a", "c"]
    assert load(*points, HARNESS_PLUGINS="").names("method") == []
    assert load(*points).names("method") == ["a", "b", "c"]


@pytest.fixture
def rotten(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """A plugin that registers well but whose domain has the parameter as its source."""
    name = f"rotten_{abs(hash(request.param))}"
    (tmp_path / f"{name}.py").write_text(request.param + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = Plugins()
    hook = SimpleNamespace(harness_register_domains=lambda register: register("chess", f"{name}:Thing", summary="x"))
    found.add(hook, name="chess", distribution="rotten", version="0.9")
    return found


ROTTEN = pytest.mark.parametrize(
    "rotten", ["1 +", "raise ValueError('no licence')", "import no_such_module", "Other = 1"], indirect=True
)


@ROTTEN
def test_a_target_that_does_not_import_is_named(rotten: Plugins) -> None:
    with pytest.raises(HarnessError, match=r'domain "chess" of rotten 0\.9 cannot be loaded'):
        rotten.lookup("domain", "chess").load()


@ROTTEN
def test_doctor_survives_a_target_that_does_not_import(rotten: Plugins, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.print_doctor(rotten)
    assert 'FAILED domain "chess" of rotten 0.9' in capsys.readouterr().out


class Bad:
    @hookimpl
    def harness_run_started(self, run: Path) -> None:
        raise RuntimeError("no disk")


class Good:
    @hookimpl
    def harness_run_started(self, run: Path) -> str:
        return f"saw {run}"


class Silent:
    @hookimpl
    def harness_run_started(self) -> None:
        """Takes no argument and answers nothing."""


def test_observer_errors_are_returned_and_stop_nobody() -> None:
    found = Plugins()
    for name, observer in (("before", Bad()), ("good", Good()), ("silent", Silent()), ("after", Bad())):
        found.add(observer, name=name, distribution="acme", version="1")
    answers, errors = found.observe("harness_run_started", run=Path("x"))
    assert sorted(errors) == [f"acme:{name}.harness_run_started: RuntimeError: no disk" for name in ("after", "before")]
    assert answers == ["saw x"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import harness, harness.cli, harness.plugins, sys; print(sorted(m.partition('.')[0] for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.strip("[]\n").replace("'", "").split(", "))


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [(("--help",), HEAVY), (("run", "--help"), HEAVY), (("plugins", "--json"), {"torch", "transformers", "altair"})],
)
def test_help_and_listing_import_nothing_heavy(arguments: tuple[str, ...], heavy: set[str]) -> None:
    script = shutil.which("harness", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run(
        [sys.executable, "-X", "importtime", script, *arguments], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in imported
    assert not heavy & imported


ACME = """
from dataclasses import dataclass

from harness.hookspecs import hookimpl
from harness.types import (Contender)


@hookimpl
def harness_register_methods(register):
    register("acme", "acme_plugin:Acme", summary="entropy-regularised step")


@dataclass(frozen=True)
class Entropic:
    needs: frozenset = frozenset({"entropy", "ref_logprob"})
    unit: str = "rollout"

    def loss(self, b):
        return -((b.weights_B[:, None] * b.logprobs_BT + 0.01 * b.entropy_BT) * b.mask_BT).sum()


class Acme:
    name, version, options = "acme", 3, {"strength": 1.0}

    def run(self, stages):
        direction = stages.direct(stages.weigh(stages.base_batch()), stages.base, Entropic())
        return Contender(policies=(stages.search(direction).winner.policy,))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an installer leaves it: one good and one broken distribution with entry points."""
    folder = tmp_path_factory.mktemp("site")
    bodies = {("acme", "1.2"): ACME, ("rotten", "0.9"): "import no_such_module\n"}
    for (name, version), body in bodies.items():
        (folder / f"{name}_plugin.py").write_text(body)
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[harness]\n{name} = {name}_plugin\n")
    return folder


def _path(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_an_installed_plugin_is_listed_beside_a_broken_one(installed: Path, tmp_path: Path) -> None:
    done = harness("plugins", "--json", cwd=tmp_path, environment={"PYTHONPATH": _path(installed)})
    listed = json.loads(done.stdout)
    names = {(p["kind"], p["name"]): p for p in listed["plugins"]}
    assert names["method", "acme"]["version"] == "1.2"
    assert {("method", "one_shot"), ("domain", "math"), ("domain", "code"), ("domain", "arc"), ("engine", "hf")} <= set(
        names
    )
    assert [(b["distribution"], b["version"]) for b in listed["broken"]] == [("rotten", "0.9")]
    assert "no_such_module" in listed["broken"][0]["error"]


def test_an_installed_method_runs_and_resumes(installed: Path, tmp_path: Path) -> None:
    """The two hash seeds print a set of two strings in two orders: nothing stored may depend on that."""
    environment = {"PYTHONPATH": _path(installed), "PYTHONHASHSEED": "0"}
    done = harness("run", *SMALL, "--method", "acme", "--quiet", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    (root,) = (tmp_path / "results/runs").iterdir()
    first = read_csv(root / "leaderboard.csv")
    assert [(r["method"], r["method_version"]) for r in first[-1:]] == [("acme", "3")]
    (root / "methods/acme/0/scores.json").unlink()
    environment["PYTHONHASHSEED"] = "3"
    done = harness("resume", str(root), "--quiet", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert read_csv(root / "leaderboard.csv") == first
