"""`harness verify`: real lines through the real command, and every kind of bad line, verifier and file."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tabular_run import harness, invoke

from harness import completions, isolation, jsonlines, verify_file
from harness.completions import Line
from harness.errors import UsageError, VerifierFailure
from harness.plugins import Registration
from harness.types import Outcome
from harness.verifying import VerifierPool
from harness_ai2_arc.domain import Ai2Arc
from harness_math import ladder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QUESTION = {"question": "Which?", "choices": ["one", "two", "three"], "answer_index": 1}
KEYS = ["id", "outcome", "extracted", "format_ok", "detail", "seconds"]

DOMAIN = """
import os, signal, time
from pathlib import Path
from harness.errors import BadRow
from harness.types import Outcome, Problem, Verdict

class Odd:
    name, version = "odd", 1

    def read(self, row):
        if "text" not in row:
            raise BadRow("field text: missing")
        return Problem(id=str(row["text"]), prompt=str(row["text"]), answer=row["text"].strip())

    def verify(self, problem, completion):
        flag = Path(__file__).with_name("flag-" + completion.replace("/", "_")[:40])
        if completion.startswith("die-once") and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if completion.startswith("die "):
            os._exit(3)
        if completion.startswith("sleep "):
            time.sleep(float(completion.split()[1]))
        if completion.startswith("raise"):
            raise RuntimeError("boo")
        outcome = Outcome.WRONG if completion.startswith("wrong") else Outcome.CORRECT
        return Verdict(outcome=outcome, extracted=str(os.getpid()), detail=problem.answer)

class Patient(Odd):
    def time_limit(self, problem):
        return 30.0

class Loose(Odd):
    isolation = staticmethod(lambda: "rlimits")

class Tight(Odd):
    isolation = staticmethod(lambda: "full")

class Mute:
    name, version = "mute", 1

class Broken(Odd):
    def open(self):
        raise OSError("no such sandbox")
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_file_domain.py").write_text(DOMAIN)
    monkeypatch.syspath_prepend(tmp_path)


def line(id_: object, completion: object, problem: object = QUESTION) -> str:
    return json.dumps({"id": id_, "problem": problem, "completion": completion})


def write(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{one}\n" for one in lines), encoding="utf-8")
    return path


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(one) for one in text.splitlines()]


def odd(name: str = "Odd") -> Registration:
    return Registration(
        kind="domain", name=name.lower(), target=f"odd_file_domain:{name}", summary="", distribution="test", version="1"
    )


class Told(list[str]):
    """What `run` said."""

    def __call__(self, text: str) -> None:
        self.append(text)


def run(source: Path, name: str = "Odd", **options: Any) -> tuple[bool, list[dict[str, Any]], str]:
    """Whether all was clean, the verdicts, and what was said."""
    told, out = Told(), source.with_name("out.jsonl")
    defaults: dict[str, Any] = {"workers": 2, "timeout": None, "require_isolation": False, "out": out}
    clean = verify_file.run(source, odd(name), say=told, **{**defaults, **options})
    return clean, read(out.read_text()), "\n".join(told)


def texts(path: Path, completions_: Iterable[str]) -> Path:
    return write(path, [line(i, text, {"text": f"t{i}"}) for i, text in enumerate(completions_)])


def test_ladder_rows_of_math_through_the_command(tmp_path: Path) -> None:
    """Four workers keep the order; a result on disk and one on standard output are the same."""
    problems = list(ladder.problems("test", seed=0, limit=40))
    rows, expected = [], []
    for number in range(600):
        problem = problems[number % 40]
        right = number % 3 > 0
        answer = str(problem.answer) if right else str(int(str(problem.answer)) + 1 + number)
        rows.append(
            line(
                f"{problem.id}/{number}",
                f"So \\boxed{{{answer}}}",
                {"problem": problem.prompt, "answer": problem.answer},
            )
        )
        expected.append((f"{problem.id}/{number}", "correct" if right else "wrong"))
    write(tmp_path / "in.jsonl", rows)
    done = harness("verify", "--domain", "math", "in.jsonl", "--out", "out/v.jsonl", "--workers", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    verdicts = read((tmp_path / "out/v.jsonl").read_text())
    assert [(v["id"], v["outcome"]) for v in verdicts] == expected
    assert all(list(v) == KEYS for v in verdicts)
    assert "verified 600 in" in done.stderr
    assert "correct 400, wrong 200" in done.stderr
    assert "verify: 600/600" in done.stderr
    assert "isolation: none needed" in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    again = harness("verify", "--domain", "math", "in.jsonl", "--workers", "1", cwd=tmp_path)
    drop = {"seconds"}
    assert [{k: v[k] for k in v.keys() - drop} for v in read(again.stdout)] == [
        {k: v[k] for k in v.keys() - drop} for v in verdicts
    ]


@pytest.mark.skipif(not (DATA / "math").is_dir(), reason=f"the public math files are not in {DATA / 'math'}")
@pytest.mark.parametrize("file", ["gsm8k_test", "math500_dev", "aime25"])
def test_public_rows_of_math_through_the_command(file: str, tmp_path: Path) -> None:
    rows = [json.loads(one) for one in (DATA / f"math/{file}.jsonl").read_text().split("\n")[:25] if one]
    golds = [str(row["answer"]).rpartition("####")[2].strip() for row in rows]
    lines = [line(i, f"\\boxed{{{gold}}}", row) for i, (row, gold) in enumerate(zip(rows, golds, strict=True))]
    done = harness(
        "verify", "--domain", "math", str(write(tmp_path / "in.jsonl", lines)), "--workers", "2", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [v["outcome"] for v in read(done.stdout)] == ["correct"] * len(rows)


BAD = [
    ("{", "not JSON"),
    ('{"id": 1, "problem": ', "not JSON: Expecting value: line 1 column 21 (char 20)"),
    ("[1]", "a line is a JSON object"),
    ('"text"', "found text"),
    ("null", "found null"),
    ("7", "found a number"),
    ('{"problem": {}, "completion": ""}', "field id: missing"),
    ('{"id": 1, "completion": ""}', "field problem: missing"),
    ('{"id": 1, "problem": {}}', "field completion: missing"),
    ('{"id": 1, "problem": [], "completion": ""}', "field problem: a JSON object"),
    ('{"id": 1, "problem": {}, "completion": NaN}', "field completion: text, found a number"),
    ('{"id": 1, "problem": {}, "completion": null}', "field completion: text, found null"),
    ('{"id": 1, "problem": {}, "completion": ["A"]}', "field completion: text, found a list"),
    ('{"id": 1, "problem": {}, "completion": "A"}', "problem: field question"),
    (line(float("nan"), "B"), "field id: Out of range float values are not JSON compliant"),
    (line(1, "B", {**QUESTION, "answer_index": float("nan")}), "problem: field answer_index: NaN"),
    ("[" * 100_000, "not JSON"),
    ('{"id": ' + "1" * 5000 + "}", "not JSON"),
]


def test_malformed_lines_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    lines = ["\ufeff" + line("first", "B"), "", "   "]
    for text, _ in BAD:
        lines += [text, line(f"after {text[:9]}", "B") + "\r"]
    write(tmp_path / "in.jsonl", lines)
    result = invoke("verify", "--domain", "ai2_arc", "in.jsonl", "--workers", "2")
    assert result.exit_code == 1
    first, *verdicts = read(result.stdout)
    assert (first["id"], first["outcome"]) == ("first", "correct")
    for number, (text, message) in enumerate(BAD):
        bad, good = verdicts[2 * number : 2 * number + 2]
        assert list(bad) == ["id", "line", "outcome", "detail"]
        assert (bad["id"], bad["line"], bad["outcome"]) == (None, 4 + 2 * number, "error")
        assert message in bad["detail"], text[:80]
        assert (good["id"], good["outcome"]) == (f"after {text[:9]}", "correct")
    assert f"correct {len(BAD) + 1}; malformed lines {len(BAD)}" in result.stderr


def test_bytes_that_are_no_text_and_endless_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "MAX_LINE_BYTES", 500)
    good = line("x", "B").encode()
    (tmp_path / "in.jsonl").write_bytes(b"\xff\xfe\n" + good + b"\n" + b"a" * 1501 + b"\n" + good + b"\n" + b"a" * 501)
    result = invoke("verify", "--domain", "ai2_arc", "in.jsonl")
    found = read(result.stdout)
    assert [(v["id"], v.get("line"), v["outcome"]) for v in found] == [
        (None, 1, "error"), ("x", None, "correct"), (None, 3, "error"), ("x", None, "correct"), (None, 5, "error")
    ]  # fmt: skip
    assert "not UTF-8" in found[0]["detail"]
    assert "longer than" in found[2]["detail"]


def test_ids_are_echoed_whatever_they_are_and_may_repeat(tmp_path: Path) -> None:
    ids = ["a", "a", 1, 1.5, None, True, ["x", 2], {"k": "ü"}, "\ud800", ""]
    lines = [line(id_, "B" if n % 2 else "A") for n, id_ in enumerate(ids)]
    result = invoke("verify", "--domain", "ai2_arc", str(write(tmp_path / "in.jsonl", lines)))
    assert result.exit_code == 0
    verdicts = read(result.stdout)
    assert [v["id"] for v in verdicts] == ids
    assert [v["outcome"] for v in verdicts] == ["correct" if n % 2 else "wrong" for n in range(len(ids))]


def test_one_id_with_two_problems_gets_two_verdicts(tmp_path: Path) -> None:
    rows = [{**QUESTION, "id": "same", "answer_index": n % 3} for n in range(30)]
    lines = [line("same", "B", row) for row in rows]
    result = invoke("verify", "--domain", "ai2_arc", str(write(tmp_path / "in.jsonl", lines)))
    assert [v["outcome"] for v in read(result.stdout)] == ["wrong", "correct", "wrong"] * 10


def test_standard_input_and_an_empty_one(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("harness")), "verify", "--domain", "ai2_arc", "-", "--workers", "1"]
    for text, outcomes in ((line(1, "B") + "\n" + line(2, "A"), ["correct", "wrong"]), ("", [])):
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
        assert [v["outcome"] for v in read(done.stdout)] == outcomes
    assert "verified 0 in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--domain", "mth", "in.jsonl"], ['did you mean "math"', "harness plugins"]),
        (["--domain", "tabular", "in.jsonl"], ["does not read data rows", "read(row)"]),
        (["--domain", "ai2_arc", "absent.jsonl"], ["cannot read absent.jsonl"]),
        (["--domain", "ai2_arc", "."], ["cannot read .", "directory"]),
        (["--domain", "ai2_arc", "in.jsonl", "--timeout", "nan"], ["--timeout must be above 0"]),
        (["--domain", "ai2_arc", "in.jsonl", "--timeout", "0"], ["--timeout must be above 0"]),
        (["--domain", "ai2_arc", "in.jsonl", "--timeout", "inf"], ["at most 86400"]),
        (["--domain", "ai2_arc", "in.jsonl", "--workers", "0"], ["--workers"]),
        (["--domain", "ai2_arc", "in.jsonl", "--out", "in.jsonl"], ["the input itself"]),
        (["--domain", "ai2_arc", "in.jsonl", "--out", "precious.txt"], ["precious.txt exists", "no result"]),
        (["--domain", "ai2_arc", "in.jsonl", "--out", "folder"], ["folder exists"]),
        (["--domain", "ai2_arc", "in.jsonl", "--out", "blocked"], ["blocked.part is in the way"]),
        (["--domain", "ai2_arc", "in.jsonl", "--out", "in.jsonl/x"], ["cannot write"]),
        (["in.jsonl"], ["--domain"]),
    ],
)
def test_a_mistake_ends_in_2_with_help_and_changes_nothing(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [line(1, "B")])
    (tmp_path / "precious.txt").write_text("my thesis")
    (tmp_path / "blocked.part").write_text("my other thesis")
    (tmp_path / "folder").mkdir()
    before = {p.name: p.read_text() for p in tmp_path.iterdir() if p.is_file()}
    result = invoke("verify", *arguments)
    assert result.exit_code == 2, result.output
    for word in words:
        assert word in result.stderr
    assert {p.name: p.read_text() for p in tmp_path.iterdir() if p.is_file()} == before


def test_an_earlier_result_is_replaced_and_said(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(1, "B")])
    write(tmp_path / "v.jsonl", ['{"id": 9, "outcome": "wrong"}'])
    result = invoke("verify", "--domain", "ai2_arc", "in.jsonl", "--out", "v.jsonl")
    assert "holds an earlier result" in result.stderr
    assert [v["id"] for v in read((tmp_path / "v.jsonl").read_text())] == [1]


def test_a_verifier_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VerifierFailure, match="no such sandbox"):
        run(texts(tmp_path / "in.jsonl", ["x"]), "Broken")
    assert not list(tmp_path.glob("out.jsonl*"))


def test_a_worker_that_dies_midway_costs_nothing_but_a_retry(tmp_path: Path) -> None:
    words = [f"wrong {i}" if i % 2 else f"right {i}" for i in range(300)]
    words[150], words[200], words[250] = "die-once", "die for good", "raise"
    clean, verdicts, said = run(texts(tmp_path / "in.jsonl", words))
    assert not clean
    expected = ["wrong" if i % 2 else "correct" for i in range(300)]
    expected[150], expected[200], expected[250] = "correct", "error", "error"
    assert [v["outcome"] for v in verdicts] == expected
    assert [v["detail"] for v in verdicts if v["outcome"] != "error"] == [
        f"t{i}" for i in range(300) if i not in (200, 250)
    ]
    assert verdicts[200]["detail"] == "death: ended with status 3"
    assert "error 2" in said


def test_timeout_holds_also_where_the_domain_has_its_own(tmp_path: Path) -> None:
    source = texts(tmp_path / "in.jsonl", ["right", "sleep 3", "sleep 0.1"])
    started = time.monotonic()
    clean, verdicts, _ = run(source, "Patient", timeout=0.8)
    assert [v["outcome"] for v in verdicts] == ["correct", "timeout", "correct"]
    assert clean, "a limit that was hit is a fact about the completion"
    assert 0.8 <= verdicts[1]["seconds"] < 3
    assert time.monotonic() - started < 20
    assert [v["outcome"] for v in run(source, "Odd", timeout=10.0)[1]] == ["correct"] * 3, (
        "a wider limit than the pool's"
    )


def test_isolation_is_stated_and_can_be_required(tmp_path: Path) -> None:
    source = texts(tmp_path / "in.jsonl", ["right"])
    said = run(source, "Loose")[2]
    assert "WEAK: below landlock, a hostile completion can read what this user can read" in said
    assert said.endswith("isolation: rlimits")
    with pytest.raises(UsageError, match="isolation in force is rlimits, which is below landlock"):
        run(source, "Loose", require_isolation=True)
    assert run(source, "Tight", require_isolation=True)[2].endswith("isolation: full")
    assert run(source, "Odd", require_isolation=True)[2].endswith("isolation: none needed")


@pytest.mark.parametrize(
    ("level", "enough"),
    [
        ("full", True),
        ("landlock", True),
        ("landlock (abi 4)", True),
        ("rlimits", False),
        ("none needed", True),
        ("none", False),
    ],
)
def test_levels(level: str, enough: bool) -> None:
    assert isolation.confined(level) is enough


def test_no_more_than_a_window_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streaming: the input is never more than a window ahead of the output, by lines or by bytes."""
    monkeypatch.setattr(verify_file, "WINDOW_LINES", 50)
    monkeypatch.setattr(verify_file, "WINDOW_BYTES", 20_000)
    made, written, ahead = 0, 0, []
    problem = completions.reading(odd().load()()).read({"text": "t"})

    def lines() -> Iterable[Line]:
        nonlocal made
        for number in range(1, 2001):
            made += 1
            ahead.append(made - written)
            size = 2000 if number > 1000 else 10
            yield Line(number, size, number, problem, f"right {number}", "")

    def keep(_: object) -> None:
        nonlocal written
        written += 1

    seen: list[tuple[int, int]] = []
    with VerifierPool("odd_file_domain:Odd", workers=2) as pool:
        summary = verify_file.verify(lines(), pool, write=keep, progress=lambda *told: seen.append(told))
    assert max(ahead[:1000]) == 50
    assert max(ahead[1050:]) == 10
    assert (written, summary.counts) == (2000, {Outcome.CORRECT: 2000})
    assert seen == sorted(seen)
    assert seen[-1] == (2000, 2000)


def test_twenty_thousand_lines_in_bounded_memory(tmp_path: Path) -> None:
    """Ten times the lines (80 MB) do not take more memory in any process of the command."""
    filler = "word " * 800
    peaks = {}
    for count in (2000, 20_000):
        with open(tmp_path / "in.jsonl", "w") as file:
            for number in range(count):
                print(line(number, f"{filler}{number}\nThe answer is {'AB'[number % 2]}."), file=file)
        script = textwrap.dedent("""
            import resource, subprocess, sys
            subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
        """)
        command = [str(Path(sys.executable).with_name("harness")), "verify", "--domain", "ai2_arc", "in.jsonl",
                   "--out", "out.jsonl", "--workers", "2"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", script, *command],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            cwd=tmp_path,
        )
        peaks[count] = int(done.stdout)
    outcomes = [v["outcome"] for v in read((tmp_path / "out.jsonl").read_text())]
    assert outcomes == ["wrong", "correct"] * 10_000
    assert peaks[20_000] < peaks[2000] + 40, peaks


def test_an_interrupted_command_says_where_its_verdicts_are(tmp_path: Path) -> None:
    texts_ = [line(i, "B") for i in range(verify_file.WINDOW_LINES)]
    command = [str(Path(sys.executable).with_name("harness")), "verify", "--domain", "ai2_arc", "-", "--out", "v.jsonl"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - background jobs ignore it
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("".join(f"{text}\n" for text in texts_))
    process.stdin.flush()
    process.stderr.readline()  # the first window is done, and the next is waited for
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "verdicts so far are in v.jsonl.part" in said
    assert not (tmp_path / "v.jsonl").exists()
    assert len(read((tmp_path / "v.jsonl.part").read_text())) == verify_file.WINDOW_LINES
    assert harness("verify", "--domain", "ai2_arc", str(write(tmp_path / "in.jsonl", texts_[:1])), "--out", "v.jsonl",
                   cwd=tmp_path).returncode == 0, "what is left of an interrupted run is not in the way"  # fmt: skip
    assert not (tmp_path / "v.jsonl.part").exists()


def test_a_closed_output_ends_without_a_traceback(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [line(i, "B" * 200) for i in range(5000)])
    command = f"{Path(sys.executable).with_name('harness')} verify --domain ai2_arc in.jsonl --workers 1 | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_verdicts_on_a_terminal_are_whole_lines(tmp_path: Path) -> None:
    """A progress bar there would have them wrapped at the width of the terminal."""
    write(tmp_path / "in.jsonl", [line("an id of some length " * 10, "B")])
    ours, theirs = os.openpty()
    command = [str(Path(sys.executable).with_name("harness")), "verify", "--domain", "ai2_arc", "in.jsonl"]
    with open(ours, "rb", buffering=0) as shown:
        done = subprocess.run(
            command, stdin=theirs, stdout=theirs, stderr=theirs, timeout=60, check=False, cwd=tmp_path
        )
        os.close(theirs)
        first, *_ = shown.read(1 << 16).splitlines()
    assert done.returncode == 0
    assert json.loads(first)["outcome"] == "correct"


def test_lines_are_read_without_being_held() -> None:
    """A generator over the stream: nothing is read ahead."""
    stream = io.BytesIO(b"".join(f"{line(i, 'B')}\n".encode() for i in range(1000)))
    lines = completions.read_lines(stream, Ai2Arc())
    next(lines)
    assert stream.tell() < 400
