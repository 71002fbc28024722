"""Whose code runs: none of a model's, a task's or a page's unless it was asked for, and what was asked for is recorded."""

from __future__ import annotations

import html
import importlib
import json
import pickle
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tabular_run import PLAIN, REPOSITORY, execute, invoke, small_spec
from test_report import Page

from harness import lmeval, plugins, store
from harness.errors import UsageError
from harness.hookspecs import hookimpl
from harness.plugins import Plugins
from harness.report import html as pages
from harness.report import results, transcripts
from harness_engines.model import CausalModel, file_hashes

MARKING = "from pathlib import Path\nPath({!r}).touch()\n"
EVIL = '</script><script>alert(1)</script><img src=x onerror=alert(2)>" \' onload="x'
PICKLED = {"torch.load", "pickle.load", "pickle.loads", "np.load", "marshal.loads", "shelve.open"}


@pytest.fixture
def model(random_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(random_model, tmp_path / "model")


def load(folder: Path, **options: Any) -> CausalModel:
    return CausalModel(str(folder), folder.parent, dtype="float32", device="cpu", **options)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def run(folder: Path, *more: str) -> Any:
    return invoke("run", "--domain", "math", "--model", str(folder), "--quiet", "--workers", "1", *more)


# Models


def with_code(folder: Path, marker: Path, *, known: bool) -> None:
    """A model with Python code of its own, of an architecture that transformers has as well, or has not."""
    module = MARKING.format(str(marker)) + (
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class Own(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    (folder / "own.py").write_text(module)
    mapped = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    change(folder / "config.json", auto_map=mapped, **({} if known else {"model_type": "own"}))


def test_code_of_a_model_runs_only_where_it_is_asked_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    with_code(model, marker, known=False)
    result = run(model)
    assert result.exit_code == 2, result.output
    assert "brings Python code of its own" in result.stderr
    assert "--set engine.trust_remote_code=true" in result.stderr
    assert not marker.exists()
    load(model, trust_remote_code=True)
    assert marker.exists(), "the test could not fail"
    assert "own.py" in file_hashes(str(model), code=True)


def test_where_transformers_knows_the_architecture_its_own_code_is_used(model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with_code(model, marker, known=True)
    assert type(load(model).module).__module__.startswith("transformers.models.llama")
    assert not marker.exists()


def test_code_of_a_tokenizer_is_not_run(model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (model / "own_tokenizer.py").write_text(MARKING.format(str(marker)) + "class Own: pass\n")
    mapped = {"AutoTokenizer": ["own_tokenizer.Own", "own_tokenizer.Own"]}
    change(model / "tokenizer_config.json", auto_map=mapped, tokenizer_class="Own")
    with pytest.raises(UsageError, match="brings Python code of its own"):
        load(model)
    assert not marker.exists()


class Marking:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_weights_that_are_pickles_are_not_read(model: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Marking(marker)))
    words = "may run code when they are read.*save_pretrained" if name.endswith("bin") else "cannot load model"
    with pytest.raises(UsageError, match=words):
        load(model)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Marking(marker)))
    assert marker.exists(), "the test could not fail"


def test_the_conversion_that_is_named_works(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, new = load(model).module, tmp_path / "new"
    torch.save(whole.state_dict(), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(UsageError) as refused:
        load(model)
    told = shlex.split(str(refused.value).partition("once: ")[2])
    assert told[:2] == ["python", "-c"]
    assert told[3:] == [str(model), "NEW_FOLDER"]
    monkeypatch.setattr(sys, "argv", ["-c", str(model), str(new)])
    exec(told[2], {})
    again = load(new).module
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(whole.parameters(), again.parameters(), strict=True))


def test_nothing_that_runs_read_back_is_a_pickle() -> None:
    """What unpickles: requests to our own verifier workers, and the state of the embedded model's recipe, weights only."""
    found = set()
    for top in ("harness", "plugins"):
        for path in (REPOSITORY / top).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                for call in PICKLED:
                    if f"{call}(" in line:
                        found.add((path.relative_to(REPOSITORY).as_posix(), call, "weights_only=True" in line))
    assert found == {
        ("harness/judging.py", "pickle.loads", False),
        ("harness/testing/probing.py", "pickle.loads", False),
        ("harness/testing/verdict_rules.py", "pickle.loads", False),
        ("plugins/harness_tiny/pretrain.py", "torch.load", True),
    }


# Tasks of lm-eval

TASKS = {
    "process_docs: !function own.f": "line 2 has the tag !function",
    "doc_to_text: !<!function> own.f": "line 2 has the tag !function",
    "doc_to_text: {a: [1, !function own.f]}": "line 2 has the tag !function",
    "doc_to_text: !!python/name:os.system": "line 2 has the tag tag:yaml.org,2002:python/name:os.system",
    "include: [other.yaml]": "other.yaml, line 1 has the tag !function",
}


@pytest.mark.parametrize(("text", "words"), TASKS.items())
def test_a_task_file_that_runs_code_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "task.yaml").write_text(f"task: x\n{text}\n")
    (tmp_path / "other.yaml").write_text("process_docs: !function own.f\ninclude: task.yaml\n")
    assert words in lmeval.code_of(tmp_path / "task.yaml")


def test_a_directive_does_not_hide_the_tag_and_circles_end(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("%TAG !e! !func\n---\na: &x [*x, 1]\nb: !e!tion own.f\n")
    assert "line 4 has the tag !function" in lmeval.code_of(tmp_path / "task.yaml")
    (tmp_path / "task.yaml").write_text("a: [\n")
    with pytest.raises(UsageError, match=r"task\.yaml is not YAML"):
        lmeval.code_of(tmp_path / "task.yaml")


def test_our_own_task_files_run_no_code() -> None:
    files = [*REPOSITORY.glob("benchmarks/lm_eval_tasks/*.yaml"), *REPOSITORY.glob("tests/lm_eval_tasks/*.yaml")]
    assert len(files) >= 3
    assert not any(map(lmeval.code_of, files))


def test_lm_eval_is_not_asked_for_a_task_that_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for lm-eval's reader, which would import what the tag names."""
    (tmp_path / "task.yaml").write_text("process_docs: !function own.f\n")
    examiner: Any = object.__new__(lmeval.Examiner)
    reads: list[Path] = []
    reader = type("Reader", (), {"load_yaml": staticmethod(lambda path: reads.append(path) or {})})
    monkeypatch.setattr(lmeval.Examiner, "_import", staticmethod(lambda _: reader))
    examiner.asking = lmeval.Asking(["task.yaml"])
    with pytest.raises(UsageError, match="--trust-task-code"):
        examiner._of_file(tmp_path / "task.yaml")
    assert not reads
    examiner.asking = lmeval.Asking(["task.yaml"], trusted=True)
    examiner._of_file(tmp_path / "task.yaml")
    assert reads == [tmp_path / "task.yaml"]


# Plugins and pages


class Watching:
    @hookimpl
    def harness_run_started(self, run: Path) -> None:
        pass


def test_whose_code_ran_is_in_the_manifest_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = plugins.load({})
    found.add(Watching(), name="watching [/x]", distribution="somebody", version="7.0")
    root, _ = execute(small_spec(methods=("majority",), budget=32), tmp_path, found=found)
    manifest = store.read_json(root / "manifest.json")
    used, version = (
        manifest["plugins"]["used"],
        importlib.import_module("importlib.metadata").version("oneshot-harness"),
    )
    assert used["method majority"] == f"oneshot-harness {version} (harness_methods.test_time:Majority)"
    assert {"domain tabular", "engine tabular", "method base"} <= used.keys()
    assert "watching [/x] of somebody 7.0" in manifest["plugins"]["loaded"]
    assert manifest["spec"]["engine"]["trust_remote_code"] is False
    doctor = importlib.import_module("harness.doctor")
    doctor.print_plugins(found, as_json=False)
    assert "watching [/x] of somebody 7.0" in " ".join(capsys.readouterr().out.split())
    doctor.print_plugins(found, as_json=True)
    assert {"name": "watching [/x]", "distribution": "somebody", "version": "7.0"} in json.loads(
        capsys.readouterr().out
    )["loaded"]


def test_what_a_model_says_is_text_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions, answers, reasons, prompts and ids of problems, together in the section that shows them all."""
    root, _ = execute(small_spec(*PLAIN, methods=("base_tempered",), budget=32), tmp_path)
    found = results.load(root)
    test = next(iter(found.tests))
    bad = replace(found.tests[test][0], id=EVIL, prompt=EVIL, answer=EVIL)
    said = transcripts.Said(EVIL, "wrong", True, EVIL, EVIL)
    monkeypatch.setattr(transcripts, "_problems", lambda _: [bad])
    monkeypatch.setattr(transcripts, "completions", lambda *_: {EVIL: said})
    body = transcripts.section(found).body
    page = Page(body)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert body.count(html.escape(EVIL)) >= 4


def test_a_name_in_brackets_is_no_markup_in_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, _ = execute(small_spec(methods=("majority",), budget=32), tmp_path)
    text = (root / "leaderboard.csv").read_text()
    (root / "leaderboard.csv").write_text(text.replace(",ladder,", ",[/red]ladder,"))
    (root / "checksums.sha256").write_text("")
    result = invoke("leaderboard", str(root), "--into", str(tmp_path / "into"))
    assert result.exit_code == 0, result.output
    assert pages.write(root, Plugins()).exists()
