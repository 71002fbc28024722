"""Write what a run has made for other programs: a winner as a checkpoint with a model card, completions for EvalPlus.

Does: materialise a policy and say in its README.md where it comes from; write the programs of a test draw as samples.jsonl.
Doesn't: convert formats, or judge: EvalPlus's verdicts are its own. Our verdict stands beside each sample.

A sample's `solution` is the program that our verifier ran, so that two verdicts differ by the verifiers alone and never by
how code was found in a completion. Where no program was found it is empty, which EvalPlus fails; `outcome` says so.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
from harness import config, console, leaderboard, pipeline, provenance, selecting, store
from harness.errors import UnknownName, UsageError
from harness.leaderboard import Row
from harness.pipeline import Finished, Part
from harness.plugins import Plugins
from harness.report import drawn, results
from harness.report.drawn import Completion
from harness.types import Problem

CARD = "README.md"


def export(root: Path, method: str, *, seed: int, target: Path, plugins: Plugins) -> None:
    """Materialise the (first) policy of `method` in `target`, a new folder that appears once it is whole.

    Raises UnknownName for a method that did not run and UsageError when the target exists.
    """
    done = _result(root, Part(method, seed))
    _require_new(target)
    spec = config.load(None, file=root / "spec.toml", changes={"workers": 1}, sets=())
    engine = pipeline.open_engine(root, spec, plugins)
    whole = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        engine.materialise(done.contender.policies[0], whole)
        store.write_text(whole / CARD, card(root, Part(method, seed), done))
        whole.rename(target)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
        engine.close()


def _result(root: Path, part: Part) -> Finished:
    if not part.scores(root).exists():
        known = sorted({str(p.relative_to(root / "methods").parent) for p in root.glob("methods/*/*/scores.json")})
        raise UnknownName("finished method/seed", f"{part.method}/{part.seed}", known)
    found: Finished = store.read_json(part.scores(root), Finished)
    return found


def _require_new(target: Path) -> None:
    if target.exists():
        raise UsageError(f"{target} exists already; name a new one")
    store.make_folder(target.parent)


def card(root: Path, part: Part, done: Finished) -> str:
    """The model card: which run, method and step made the policy, and what it scored there."""
    manifest = provenance.read(root)
    every = leaderboard.of_engine(root / "leaderboard.csv", manifest["row"]["engine"])
    rows = [row for row in every if (row["method"], row["seed"]) == (part.method, str(part.seed))]
    row, commit = rows[0], rows[0]["commit"] or "of an installed package"
    facts = {
        "run": f"{row['run_id']}, spec {manifest['spec_hash']}, commit {commit}",
        "method": f"{row['method']} (version {row['method_version']}), seed {row['seed']}",
        "base model": f"{row['model']}, revision {row['model_revision']}",
        "step": _step(row),
        "trained on": f"{row['domain']} / {row['train_benchmark']}",
        "rollouts": f"{row['train_rollouts']} to train, {row['selection_rollouts']} to choose; {row['updates']} updates",
        "command": f"`{row['command']}`",
    }
    about = (
        f"One policy of a run of oneshot-harness {harness.__version__}. Licence and limits are those of the base model."
    )
    lines = [*_front(row["model"]), f"# {row['method']} of run {row['run_id']}", "", about + _not_alone(done), ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items() if value)]
    return "\n".join([*lines, "", *_scores(rows), ""])


def _front(model: str) -> list[str]:
    """What the hub reads. A base model is named where it is a hub id."""
    is_hub_id = model.count("/") == 1 and not model.startswith((".", "~", "/")) and not Path(model).exists()
    base = [f"base_model: {model}"] if is_hub_id else []
    return ["---", "library_name: transformers", *base, "tags: [oneshot-harness, rlvr]", "---", ""]


def _step(row: Row) -> str:
    """Empty where several steps led to the policy."""
    if not row["step"]:
        return ""
    kl = f"; KL(base, policy) {row['kl']} nats a token" if row["kl"] else ""
    return f"{row['step']} along the direction ({row['direction']}); {row['relative_step']} of the weights' norm{kl}"


def _not_alone(done: Finished) -> str:
    """Where scores are those of more than these weights."""
    if len(done.contender.policies) > 1:
        return f" It is the first of {len(done.contender.policies)} policies, and the scores are those of all together."
    if done.contender.combine != "single" or done.contender.prefix:
        return " The scores are those of several completions, or of words before the prompt, not of the weights alone."
    return ""


def _scores(rows: Sequence[Row]) -> list[str]:
    names, number = ("pass@1", "greedy", "format", "format_free"), console.number
    lines = ["On fresh test problems; in brackets the base on the same ones.", ""]
    lines += [f"| test set | problems x draws | gain [95 %] | {' | '.join(names)} |", "|" + " --- |" * (3 + len(names))]
    for row in rows:
        cells = [f"{number(row[name])} ({number(row[f'base_{name}'])})" for name in names]
        size = f"{row['test_problems']} x {row['test_samples']}"
        lines.append("| " + " | ".join([row["test_benchmark"], size, console.gain(row), *cells]) + " |")
    return lines


def samples(
    root: Path, method: str, *, seed: int, target: Path, plugins: Plugins, test: str = "", greedy: bool = False
) -> int:
    """Write the completions of one test set (the first one) as EvalPlus's samples.jsonl; returns how many.

    Raises UsageError where the domain has no programs, the rollouts are gone or the target exists.
    """
    _result(root, Part(method, seed))
    _require_new(target)
    found = results.load(root)
    domain = plugins.lookup("domain", found.manifest["row"]["domain"]).load()()
    program = getattr(domain, "program", None)
    if program is None:
        raise UsageError(
            f'EvalPlus judges programs, and domain "{domain.name}" has none (harness.contracts.Domain: program)'
        )
    name = test or next(iter(found.tests))
    if name not in found.tests:
        raise UnknownName("test set of this run", name, found.tests)
    problems = {problem.id: problem for problem in found.tests[name]}
    folders = drawn.folders(found, method, seed, found.tests[name], greedy=greedy)
    said = [completion for folder in folders for completion in drawn.completions(root, folder)]
    if not said:
        raise UsageError(f"{root} has no completions any more (rollouts/): nothing to export")
    is_file = name in map(selecting.label, filter(config.is_file, found.manifest["sources"]["test"]))
    before = f"{name}/" if is_file else ""  # a file's problems have its name in front of the ids of its rows
    lines = [_sample(one, problems[one.judged.problem_id], program, before) for one in said]
    store.write_lines(target, lines)
    return len(lines)


def _sample(
    one: Completion, problem: Problem, program: Callable[[Problem, str], str | None], before: str
) -> dict[str, Any]:
    """A line of samples.jsonl. EvalPlus reads `task_id` and `solution`."""
    outcome = str(one.judged.verdict.outcome)
    solution = program(problem, one.text) or ""
    extra = {"sample_idx": one.judged.sample_idx, "outcome": outcome, "truncated": one.judged.truncated}
    return {"task_id": problem.id.removeprefix(before), "solution": solution, **extra}
