"""The instrument as a test: a sample by default, everything with -m slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.case import VERBS, Case
from tests.hostile.cases import all_cases
from tests.hostile.judge import Verdict, judge, snapshot
from tests.hostile.launch import ROOT


def _faults(folder: Path, *options: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile", "--json", str(folder / "verdicts.json"), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    verdicts = json.loads((folder / "verdicts.json").read_text())["cases"]
    assert verdicts
    return [f"{verdict['name']}: {fault}" for verdict in verdicts for fault in verdict["faults"]]


def test_a_sample_of_hostile_inputs(tmp_path: Path) -> None:
    assert not _faults(tmp_path, "--sample")


@pytest.mark.slow
def test_every_hostile_input(tmp_path: Path) -> None:
    assert not _faults(tmp_path)


def test_there_are_enough_over_all_verbs() -> None:
    cases = all_cases()
    assert len(cases) >= 500
    assert {case.verb for case in cases} == set(VERBS)


@pytest.mark.parametrize(
    ("code", "said", "spoil", "words"),
    [
        (70, "", None, "exit code 70"),
        (-11, "", None, "signal 11"),
        (None, "", None, "did not end"),
        (0, "", None, "exits with 0"),
        (2, "Traceback (most recent call last):", None, "a traceback"),
        (2, "Something went wrong inside tofe-export: KeyError: 1", None, "a defect"),
        (2, "", lambda work: (work / "input").unlink(), "is gone"),
        (2, "", lambda work: (work / "input").write_text("x"), "no output"),
        (2, "", lambda work: (work / "input").chmod(0o600), "no output"),
        (2, "", lambda work: (work / "named").write_text("x"), "a run that failed"),
        (2, "", lambda work: ((work / "named").unlink(), (work / "named").mkdir()), "another kind"),
        (2, "", lambda work: (work / ".named.1-x.part").touch(), "left over"),
        (2, "", lambda work: (work / "stray").touch(), "nobody asked"),
        (2, "", lambda work: (work / "CANARY").touch(), "code from the input"),
    ],
)
def test_the_judge_sees(tmp_path: Path, code: int, said: str, spoil: object, words: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for name in ("input", "named"):
        (work / name).write_text("old")
        (work / name).chmod(0o644)
    case = Case("f", "inspect", "w", (), writes=("named",), codes=frozenset({2}))
    verdict = Verdict(case.name, "", code, said=said)
    before = snapshot(tmp_path)
    if callable(spoil):
        spoil(work)
    judge(case, verdict, before, snapshot(tmp_path), "Error: no\nNext: yes")
    assert words in " ".join(verdict.faults)


def test_the_judge_has_nothing_against_a_good_run(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "named").write_text("old")
    case = Case("f", "inspect", "w", (), writes=("named", "new"), codes=frozenset({0}))
    before = snapshot(tmp_path)
    for name in ("named", "new"):
        (tmp_path / "work" / name).write_text("new")
    verdict = Verdict(case.name, "", 0)
    judge(case, verdict, before, snapshot(tmp_path), "")
    assert not verdict.faults
    assert not verdict.notes
