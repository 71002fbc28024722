"""The report: one file that needs nothing, escapes what others wrote, and says what the rows say."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tabular_run import SMALL, execute, finished, invoke, small_spec

from harness import console, leaderboard
from harness.hookspecs import hookimpl
from harness.plugins import Plugins
from harness.report import charts, comparing, line_search, markdown, results, tables, transcripts
from harness.report import html as pages
from harness.report.results import Results

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Collects every tag with its attributes, texts of headings and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    @property
    def data(self) -> list[Any]:
        """What the scripts that are data hold."""
        kinds = [attributes.get("type") for tag, attributes in self.tags if tag == "script"]
        return [json.loads(text) for kind, text in zip(kinds, self.scripts, strict=True) if kind == "application/json"]


@pytest.fixture(scope="module")
def found() -> Results:
    return results.load(finished())


@pytest.fixture(scope="module")
def text() -> str:
    return (finished() / "report.html").read_text(encoding="utf-8")


def test_page_needs_nothing_from_elsewhere(text: str) -> None:
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert "svg" in names
    assert not names & {"link", "iframe", "object", "embed", "img", "base", "form"}
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\(\s*['\"]?(https?:|//)|@import", text.partition("<script>")[0])
    assert "color-scheme: light dark" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert len(text) < 5_000_000


def test_scripts_run_by_their_hash_and_nothing_is_fetched(text: str) -> None:
    page = Page(text)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe-inline" not in rules["script-src"]
    kinds = [attributes.get("type") for tag, attributes in page.tags if tag == "script"]
    running = [script for kind, script in zip(kinds, page.scripts, strict=True) if kind is None]
    assert len(running) == 2, "the bundle and page.js, each once"
    for script in running:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules["script-src"]


def test_sections_and_numbers_are_those_of_the_run(text: str, found: Results) -> None:
    assert Page(text).headings == [
        "Verdict", "Leaderboard", "Gain against base pass rate", "Break-even", "Why it breaks", "Kinds of failure",
        "Line search", "Steps against batch", "By level and subject", "Overfitting", "Format and the rest", "pass@k",
        "Cost", "Learning curves", "Density of good perturbations", "Status", "Provenance", "Transcripts",
    ]  # fmt: skip
    for row in found.aggregate:
        chip = charts.chip(row["method"], found.colors)
        assert re.search(rf"<td>{re.escape(chip)}</td><td>{float(row['pass@1']):.3f}( =)?</td>", text), row["method"]


def test_every_link_of_the_navigation_leads_to_a_section(text: str) -> None:
    page = Page(text)
    anchors = [a["id"] for tag, a in page.tags if tag == "section"]
    assert len(set(anchors)) == len(anchors)
    assert {(a["href"] or "")[1:] for tag, a in page.tags if tag == "a"} == set(anchors)


def test_both_views_of_the_pass_rate_are_there_and_say_which_they_are(text: str) -> None:
    section = text.partition('<section id="pass-rate">')[2].partition("</section>")[0]
    first, second = section.split("<h3>")[1:]
    assert first.startswith("View 1: by the base's pass rate on each test problem")
    assert second.startswith("View 2: by the pass rate of the training batch")
    own, batches = (data["hconcat"] for data in Page(section).data)
    assert {p["layer"][1]["encoding"]["x"]["field"] for p in own} == {"bin"}
    assert {p["layer"][1]["encoding"]["x"]["field"] for p in batches} == {"batch_pass_rate"}


def test_every_figure_is_a_picture_a_specification_and_three_files(text: str) -> None:
    page = Page(text)
    names = [attributes["data-figure"] for tag, attributes in page.tags if tag == "figure"]
    assert len(names) == len(set(names)) == len(page.data) >= 14
    for name, spec in zip(names, page.data, strict=True):
        assert spec["datasets"]["rows"], name
        for kind in ("png", "svg", "csv"):
            assert (finished() / f"figures/{name}.{kind}").stat().st_size, name
        drawn = (finished() / f"figures/{name}.svg").read_text()
        assert re.match(r'<svg [^>]*width="\d+(\.\d+)?" height="\d+(\.\d+)?"', drawn), name


def test_a_method_has_one_colour(text: str, found: Results) -> None:
    colors = found.colors
    assert len(set(colors.values())) == len(colors)
    for name, color in re.findall(r'<span class="m" style="--c:(#\w+)">([^<]+)</span>', text):
        assert colors.get(color, name) == name
    for spec in Page(text).data:
        for panel in spec["hconcat"]:
            for layer in panel.get("layer", ()):
                own = layer["encoding"].get("color", {})
                if own.get("field") == "method":
                    pairs = dict(zip(own["scale"]["domain"], own["scale"]["range"], strict=True))
                    assert pairs.items() <= colors.items()


def test_verdict_says_what_the_row_says(found: Results) -> None:
    (row,) = [r for r in found.aggregate if r["method"] == "one_shot"]
    said = results.verdict(found)
    assert f"{float(row['base_pass@1']):.3f} to {float(row['pass@1']):.3f}" in said
    assert f"({float(row['delta']):+.3f}, 95 % interval" in said
    word = "raises" if float(row["ci_low"]) > 0 else "does not measurably change"
    assert word in said


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [("0.1", "0.2", "raises"), ("-0.2", "-0.1", "lowers"), ("-0.1", "0.1", "does not measurably")],
)
def test_verdict_goes_by_the_interval(low: str, high: str, word: str, found: Results) -> None:
    rows = [{**r, "ci_low": low, "ci_high": high} if r["method"] == "one_shot" else r for r in found.rows]
    assert word in results.verdict(replace(found, rows=rows))


def test_the_gain_of_every_seed_is_told(found: Results, text: str) -> None:
    own = [row for row in found.rows if row["method"] == "one_shot" and row["seed"] != "all"]
    gains = [[float(row[column]) for column in ("delta", "ci_low", "ci_high")] for row in own]
    said = ", ".join(f"{delta:+.3f} [{low:+.3f}, {high:+.3f}]" for delta, low, high in gains)
    assert f"Gain by seed, with intervals over test problems alone: {said}; " in text
    assert len(own) == 2


def test_pairs_agree_with_the_rows(found: Results) -> None:
    pairs = {p["other"]: p for p in results.pairs(found)}
    assert set(pairs) == set(found.methods) - {"one_shot"}
    (row,) = [r for r in found.aggregate if r["method"] == "one_shot"]
    for key in ("delta", "ci_low", "ci_high", "p_value"):
        assert pairs["base"][key] == pytest.approx(float(row[key])), key
    (shuffled,) = [r for r in found.aggregate if r["method"] == "one_shot_shuffled"]
    difference = float(row["pass@1"]) - float(shuffled["pass@1"])
    assert pairs["one_shot_shuffled"]["delta"] == pytest.approx(difference)
    assert results.pairs(found, focus="dpo") == []


@pytest.mark.usefixtures("quick")
def test_what_others_wrote_is_escaped(found: Results, tmp_path: Path) -> None:
    root = shutil.copytree(found.root, tmp_path / "run")
    rename = {"one_shot_shuffled": EVIL}
    rows = [{**r, "method": rename.get(r["method"], r["method"]), "status": EVIL} for r in found.rows]
    manifest: dict[str, Any] = {**found.manifest, "engine": {"name": EVIL}}
    manifest["row"] = {**manifest["row"], "model": EVIL, "domain": EVIL, "test_benchmark": EVIL, "command": EVIL}
    renamed = {(rename.get(m, m), s): done for (m, s), done in found.finished.items()}
    bad = replace(found, root=root, rows=rows, manifest=manifest, finished=renamed)
    text = pages.of_run(bad)
    page = Page(text)
    assert EVIL not in text
    assert html.escape(EVIL) in text
    assert "img" not in {tag for tag, _ in page.tags}
    assert all(a.get("type") == "application/json" for tag, a in page.tags[:-2] if tag == "script"), (
        "and two at the end"
    )
    assert EVIL in json.dumps(page.data), "it is data there, and only data"


@pytest.mark.parametrize(
    ("value", "cell"),
    [("", ""), (None, ""), (float("nan"), ""), ("nan", ""), (0.5, "0.500"), ("1.0", "1.000"), (4096.0, "4096"),
     (-0.25, "-0.250"), (float("inf"), "inf"), ("inf", "inf")],
)  # fmt: skip
def test_a_cell_shows_any_number(value: Any, cell: str) -> None:
    """SNR is infinite where there is no noise (docs/metrics.md)."""
    assert console.number(value) == cell


def test_figure_data_holds_every_candidate(found: Results) -> None:
    with open(finished() / "figures/line_search.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    searched = {key: done.search for key, done in found.finished.items() if key[0] in ("one_shot", "one_shot_shuffled")}
    for (method, seed), search in searched.items():
        assert search is not None
        own = [r for r in rows if (r["method"], r["seed"]) == (method, str(seed))]
        assert [float(r["kl"]) for r in own] == [c.kl for c in search.candidates]
        assert [float(r["accuracy"]) for r in own] == [c.score.accuracy for c in search.candidates]
        assert [r["chosen"] for r in own].index("True") == search.chosen
    drawn = (finished() / "figures/line_search.svg").read_text()
    assert drawn.startswith("<svg")


def test_figures_draw_no_more_than_one_can_tell_apart(found: Results) -> None:
    """Fifty methods and ten seeds have thousands of points: files have them all, the page a few lines."""
    rows = [
        {**row, "method": f"{row['method']}_{copy}", "seed": seed}
        for row in line_search.rows(found)
        for copy in range(20)
        for seed in range(10)
    ]
    names = list(dict.fromkeys(row["method"] for row in rows))
    many = replace(found, rows=[{**found.aggregate[0], "method": name} for name in names], finished=dict.fromkeys(
        (name, 0) for name in names
    ))  # fmt: skip
    drawn = line_search.figure(many, rows)
    assert len(drawn.rows) == len(rows)
    assert len({row["method"] for row in drawn.shown}) == charts.MOST == len(drawn.colors)
    assert max(row["seed"] for row in drawn.shown) == line_search.SEEDS - 1


def test_data_cannot_leave_its_script() -> None:
    text = charts.script_json({"a": "</script><!--\u2028\u2029&", "b": 0.5})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--\u2028\u2029&", "b": 0.5}


def test_numbers_of_a_figure_are_those_that_json_has() -> None:
    assert charts.plain([{"a": math.nan, "b": math.inf, "c": 1 / 3, "d": "x", "e": True}]) == [
        {"a": None, "b": None, "c": 0.33333, "d": "x", "e": True}
    ]


def test_transcripts_are_those_of_the_run_side_by_side(text: str, found: Results) -> None:
    section = text.partition('<section id="transcripts">')[2].partition("</section>")[0]
    talks = section.split('<details class="talk"')[1:]
    problems = {problem.id: problem for problem in next(iter(found.tests.values()))}
    assert 0 < len(talks) <= transcripts.PROBLEMS
    shown = [re.search(r"<summary><code>(.*?)</code>", talk) for talk in talks]
    names = [html.unescape(name[1]) for name in shown if name]
    assert len(names) == len(talks)
    assert set(names) <= set(problems)
    assert {problems[name].level for name in names} == {1, 2, 3, 4, 5}
    said = [transcripts.completions(found, method) for method in ("base", "one_shot")]
    for name, talk in zip(names, talks, strict=True):
        cards = re.findall(r'<div data-method="([^"]*)">.*?<pre>(.*?)</pre>', talk, re.DOTALL)
        assert [method for method, _ in cards][:2] == ["base", "one_shot"]
        assert [html.unescape(own) for _, own in cards][:2] == [own[name].text for own in said]


def test_long_texts_are_cut_and_say_so() -> None:
    assert transcripts.cut("x" * 9, 9) == "x" * 9
    assert transcripts.cut("x" * 12, 9) == "x" * 9 + " ... (3 more characters)"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No PNG, where no test looks at one."""
    monkeypatch.setattr(charts, "png", lambda _: b"png")


def stopped(tmp_path: Path, *gone: str) -> Path:
    """The finished run as an interrupt would have left it, without the results of `gone`."""
    root = shutil.copytree(finished(), tmp_path / "stopped")
    for name in ("leaderboard.csv", "report.html", "DONE"):
        (root / name).unlink(missing_ok=True)
    for name in gone:
        shutil.rmtree(root / "methods" / name)
    return root


@pytest.mark.usefixtures("quick")
def test_an_interrupted_run_shows_what_is_finished(tmp_path: Path, found: Results) -> None:
    root = stopped(tmp_path, "grpo/1", "random_search/0", "random_search/1")
    result = invoke("report", str(root))
    assert result.exit_code == 0, result.output
    text = html.unescape((root / "report.html").read_text(encoding="utf-8"))
    assert f"{len(found.finished) - 3} of {len(found.finished)} results are here" in text
    assert "Missing: random_search (seed 0), grpo (seed 1), random_search (seed 1)." in text
    assert f"harness resume {root}" in text
    assert not (root / "leaderboard.csv").exists()
    partial = {(row["method"], row["seed"]): row for row in results.load(root).rows}
    whole = {(row["method"], row["seed"]): row for row in found.rows}
    assert ("random_search", "all") not in partial
    only_engine = {"relative_step", "changed_weights"}
    for key in {("one_shot", "0"), ("one_shot", "all"), ("grpo", "0"), ("base", "1")}:
        differing = {name for name in whole[key] if whole[key][name] != partial[key][name]}
        assert differing <= only_engine, key
    assert partial["grpo", "all"]["pass@1"] == whole["grpo", "0"]["pass@1"], "a mean over what is there"


@pytest.mark.usefixtures("quick")
def test_one_problem_has_a_page(tmp_path: Path) -> None:
    sets = ("--set", "evaluation.problems=1", "--set", "evaluation.wide_samples=8")
    result = invoke(
        "run", *SMALL[:-4], *sets, "--method", "one_shot", "--method", "grpo", "--quiet", "--out", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    (root,) = tmp_path.iterdir()
    page = Page((root / "report.html").read_text(encoding="utf-8"))
    assert page.headings[0] == "Verdict"
    assert "Provenance" in page.headings


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, _ = execute(small_spec(methods=("base", "one_shot"), budget=128), tmp_path_factory.mktemp("other"))
    return root


def test_several_runs_have_a_page_that_compares_them(
    tmp_path: Path, found: Results, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "write", lambda root, _: root / "report.html")  # the pages of the runs are tested above
    result = invoke("report", str(finished()), str(other), "--out", str(tmp_path / "both"))
    assert result.output.splitlines() == [
        str(finished() / "report.html"), str(other / "report.html"), str(tmp_path / "both/report.html")
    ]  # fmt: skip
    text = (tmp_path / "both/report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings == [
        "Verdict", "Runs", "What differs", "Gains", "Gain against batch pass rate", "Steps against batch", "Cost", "Provenance",
    ]  # fmt: skip
    links = [a["href"] or "" for tag, a in page.tags if tag == "a" and not (a["href"] or "").startswith("#")]
    assert {(tmp_path / "both" / link).resolve() for link in links} == {
        (root / "report.html").resolve() for root in (finished(), other)
    }
    runs = comparing.named([found, results.load(other)])
    differing = comparing.differences([run.found for run in runs])
    assert differing["budget"] == ["256", "128"]
    assert set(differing) == {"methods", "seeds", "budget"}
    (row,) = [r for r in found.aggregate if r["method"] == "one_shot"]
    assert console.gain(row) in text
    batches = page.data[1]["datasets"]["rows"]
    assert {(b["run"], b["seed"]) for b in batches if b["method"] == "one_shot"} == {
        (runs[0].label, 0), (runs[0].label, 1), (runs[1].label, 0)
    }  # fmt: skip
    assert len(text) < 5_000_000


def test_markdown_for_a_pull_request(found: Results, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(found.root.parent)
    text = markdown.of_run(found)
    assert f"**{results.verdict(found)}**" in text
    ((_, group),) = leaderboard.ranked(found.rows)
    assert tables.markdown(group) in text
    for title in ("Paired differences", "Break-even", "By level", "Cost"):
        assert f"**{title}**" in text
    pictures = re.findall(r"!\[\w+\]\(([^)]+)\)", text)
    assert len(pictures) == len(markdown.FIGURES)
    assert all((found.root.parent / path).exists() for path in pictures)
    both = markdown.of_runs([found, results.load(other)])
    assert both.startswith("## 2 runs side by side")
    assert text in both


def test_markdown_keeps_what_others_wrote_in_its_cell(found: Results) -> None:
    rows = [{**row, "method": "a|b <i>\n" if row["method"] == "grpo" else row["method"]} for row in found.rows]
    ((_, group),) = leaderboard.ranked(rows)
    (line,) = [line for line in tables.markdown(group).splitlines() if "a\\|b" in line]
    assert line.startswith("| a\\|b &lt;i&gt; |")


def test_writing_again_gives_the_same_page(tmp_path: Path, text: str) -> None:
    result = invoke("report", str(finished()))
    assert result.exit_code == 0, result.output
    assert (finished() / "report.html").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "base"], "one_shot did not run."),
        (["--method", "one_shot", "--set", "rewards.correct=0"], "no signal: no group with both rewards among"),
        (
            ["--method", "one_shot", "--set", "search.kl_targets=[]"],
            "changes nothing on tabular / ladder: the zero step was chosen",
        ),
    ],
    ids=["did not run", "no signal", "stayed at the base"],
)
def test_a_run_without_a_step_still_has_a_report(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    result = invoke("run", *SMALL, "--quiet", "--seeds", "2", "--out", str(tmp_path), *arguments)
    assert result.exit_code == 0, result.output
    (root,) = tmp_path.iterdir()
    text = (root / "report.html").read_text(encoding="utf-8")
    assert sentence in html.unescape(text)
    assert "No method searched a step." in text
    dead = "Where every group is dead there is nothing to follow"
    assert ("no signal:" in text) == (dead in text) == ("rewards.correct=0" in arguments)


def test_markdown_table_has_the_cells_of_the_rows(found: Results) -> None:
    ((_, group),) = leaderboard.ranked(found.rows)
    head, rule, *lines = tables.markdown(group).splitlines()
    assert head.count("|") == rule.count("|") == lines[0].count("|")
    assert [line.split("|")[1].strip() for line in lines] == [r["method"] for r in group]


class Sections:
    @hookimpl
    def harness_report_sections(self, run: Path) -> list[tuple[str, str]]:
        return [("Energy <Wh>", f"<p>of {run.name}</p>")]


class FailingSections:
    @hookimpl
    def harness_report_sections(self) -> list[tuple[str, str]]:
        raise RuntimeError(EVIL)


@pytest.mark.usefixtures("quick")
def test_plugins_append_sections_and_a_failing_one_is_named(tmp_path: Path) -> None:
    root, _ = execute(small_spec(methods=("base_tempered",)), tmp_path)
    assert not (root / "report.html").exists()
    found = Plugins()
    for name, plugin in (("energy", Sections()), ("bad", FailingSections())):
        found.add(plugin, name=name, distribution="acme", version="1")
    text = pages.write(root, found).read_text(encoding="utf-8")
    assert f"<h2>Energy &lt;Wh&gt;</h2><p>of {root.name}</p>" in text
    assert html.escape(EVIL) in text
    assert "<script>alert" not in text
