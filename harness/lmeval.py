"""Ask lm-eval (EleutherAI's harness, extra `lm-eval`) about a model that lies in memory.

Does: find tasks by name or YAML file, wrap the model, read back which problems were answered rightly.
Doesn't: judge anything itself, or change how a task prompts: no chat template, and no examples that the task does not name.

Departures from lm-eval's own command line, numbered:
1. Data files of a task that is given as a file are looked for beside it, then in HARNESS_DATA, not in the working folder.
2. Of a task counts the first metric under the first filter, and it must be right or wrong for every problem, since gains
   are paired by problem. `Answers.results` has all of them.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from harness import config, store, toml
from harness.contracts import Loaded
from harness.errors import UsageError
from harness.types import Score

FILES = (".yaml", ".yml")
UNKNOWN = float("nan")
PLAIN = "tag:yaml.org,2002:"  # of values; ...:python/ makes objects


class Asking(NamedTuple):
    """What is asked, the same of every model: names or YAML files of tasks. `limit` 0: all problems of each. `trusted`: files may
    run code."""

    tasks: Sequence[str]
    limit: int = 0
    batch: int = 32
    trusted: bool = False


class Answers(NamedTuple):
    """A model on one task. `metric` is lm-eval's name of it; `greedy`: answers were generated, without sampling."""

    score: Score
    metric: str
    data_hash: str
    greedy: bool
    results: Mapping[str, Any]


class Examiner:
    """lm-eval and its index of tasks. Raises UsageError, naming the extra, when lm-eval is not installed."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self._import("lm_eval")
        logging.getLogger("lm_eval").setLevel(logging.WARNING)
        named = not all(task.endswith(FILES) for task in asking.tasks)  # lm-eval's own index takes ten seconds to read
        self._manager = self._import("lm_eval.tasks").TaskManager(include_defaults=named)

    @property
    def name(self) -> str:
        """As the column `engine` has it."""
        return f"lm-eval {metadata.version('lm_eval')}"

    def examine(self, loaded: Loaded) -> dict[str, Answers]:
        """By task, groups and tags taken apart. Raises UsageError for a task that is not, or that cannot be scored."""
        wrap = self._import("lm_eval.models.huggingface").HFLM
        found = self._import("lm_eval").simple_evaluate(
            model=wrap(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=self.asking.batch),
            tasks=self._tasks(),
            limit=self.asking.limit or None,
            bootstrap_iters=0,
            task_manager=self._manager,
        )
        return {
            task: _answers(task, samples, found["configs"][task], found["results"][task])
            for task, samples in found["samples"].items()
        }

    def _tasks(self) -> list[Any]:
        """Made anew for each model: a task keeps the answers that it was given."""
        specs = [self._of_file(Path(task)) if task.endswith(FILES) else self._known(task) for task in self.asking.tasks]
        try:
            return list(self._manager.load(specs)["tasks"].values())
        except OSError as error:  # what datasets raises where it may not ask the hub, or cannot
            raise UsageError(f"lm-eval cannot load the data of {', '.join(self.asking.tasks)}: {error}") from error

    def _known(self, name: str) -> str:
        known = self._manager.all_tasks
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known)) or "none"
            raise UsageError(
                f'lm-eval has no task "{name}" (near: {near}). A task of your own is a file: --tasks FILE.yaml'
            )
        return name

    def _of_file(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise UsageError(f"there is no task file {path}")
        if not self.asking.trusted and (code := code_of(path)):
            raise UsageError(
                f"{code}, which runs Python code when the task is loaded. If you have read it and trust it: --trust-task-code"
            )
        spec: dict[str, Any] = self._import("lm_eval.tasks._yaml_loader").load_yaml(path)
        options = spec.get("dataset_kwargs") or {}
        if "data_files" in options:
            spec["dataset_kwargs"] = {**options, "data_files": _placed(options["data_files"], path.parent)}
        return spec

    @staticmethod
    def _import(name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"harness eval asks lm-eval, which cannot be imported ({error}): pip install 'oneshot-harness[lm-eval]'"
            ) from error


def code_of(path: Path) -> str:
    """Where a task file, or one that it includes, has a tag such as !function; "" where none does.

    Raises UsageError for what is no YAML.
    """
    yaml = importlib.import_module("yaml")  # comes with transformers
    seen: set[Path] = set()
    files = [path]
    while files:
        place = files.pop()
        if place.resolve() in seen:
            continue
        seen.add(place.resolve())
        try:
            root = yaml.compose(toml.read_text(place, "task file"), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"{place} is not YAML: {error}") from error
        for node in _nodes(root):
            if not node.tag.startswith(PLAIN) or "/" in node.tag:
                return f"{place}, line {node.start_mark.line + 1} has the tag {node.tag}"
        files += [place.parent / name for name in _included(root)]
    return ""


def _nodes(root: Any) -> Iterator[Any]:
    """Every node of a YAML document once: aliases may lead in circles."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, tuple | list):
            waiting += node
            continue
        yield node
        if not isinstance(node.value, str):
            waiting += node.value


def _included(root: Any) -> Iterator[str]:
    """Files that a task takes its defaults from: the scalars under its key `include`."""
    for key, value in root.value if root is not None and not isinstance(root.value, str) else ():
        if key.value == "include":
            yield from (node.value for node in _nodes(value) if isinstance(node.value, str))


def _placed(files: Any, folder: Path) -> Any:
    """The same files by where they are. Raises UsageError for one that is nowhere."""
    if isinstance(files, dict):
        return {split: _placed(part, folder) for split, part in files.items()}
    if isinstance(files, list):
        return [_placed(part, folder) for part in files]
    places = [place / files for place in (folder.absolute(), config.data_folder()) if place is not None]
    for place in places:
        if place.exists():
            return str(place)
    looked = ", nor in the folder that HARNESS_DATA names" if len(places) > 1 else "; HARNESS_DATA is not set"
    raise UsageError(f"data file {files} is not beside its task, in {folder}{looked}")


def _answers(
    task: str, samples: Sequence[Mapping[str, Any]], about: Mapping[str, Any], results: Mapping[str, Any]
) -> Answers:
    """`samples` hold each problem once for every filter."""
    first = samples[0]
    metric, own = first["metrics"][0], [sample for sample in samples if sample["filter"] == first["filter"]]
    values = [sample[metric] for sample in own]
    if not all(isinstance(value, int | float) and value in (0, 1) for value in values):
        raise UsageError(f"task {task} cannot make rows: its metric {metric} is not right or wrong for every problem")
    correct = tuple(map(int, values))
    score = Score(
        problem_ids=tuple(str(sample["doc_id"]) for sample in own),
        n=(1,) * len(own),
        correct=correct,
        correct_free=correct,
        format=UNKNOWN,
        truncated=UNKNOWN,
        unparsed=UNKNOWN,
        timeouts=UNKNOWN,
        errors=0,
    )
    content = [[sample[part] for part in ("doc_hash", "prompt_hash", "target_hash")] for sample in own]
    sampled = (about.get("generation_kwargs") or {}).get("do_sample", False)
    greedy = about["output_type"] == "generate_until" and not sampled
    return Answers(score, f"{metric},{first['filter']}", store.fingerprint(content)[:12], greedy, dict(results))
