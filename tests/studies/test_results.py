import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studies import __main__ as command_line
from studies import page, results
from studies.measuring import packed, unpacked
from studies.statistics import difference, interval
from tofe_export.errors import InputError

ROOT = Path(__file__).parents[2]


def line(arm: str, seed: int, right: list[bool]) -> results.Line:
    found = np.array(right)
    return {"arm": arm, "seed": seed, "images": len(right), "right": packed(found), "accuracy": float(found.mean())}


def test_a_bit_an_image() -> None:
    right = np.random.default_rng(0).random(1016) < 0.5
    assert (unpacked(packed(right), 1016) == right).all()


def test_an_arm_is_added_once_and_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "set.jsonl"
    results.append(path, line("one", 0, [True]))
    with path.open("a") as file:
        file.write('{"arm": "two", "see')
    assert results.done(path) == {("one", 0)}
    results.append(path, line("two", 0, [True]))
    results.append(path, line("two", 0, [False]))
    assert [json.loads(text)["accuracy"] for text in path.read_text().splitlines()] == [1, 1]


def test_a_difference_is_taken_over_seeds_that_both_have() -> None:
    one = [line("one", 0, [True, True, False, False]), line("one", 1, [True] * 4)]
    other = [line("other", 0, [True, False, False, False]), line("other", 2, [False] * 4)]
    found = difference(one, other)
    assert found.mean == pytest.approx(25)
    assert found.low <= 25 <= found.high
    with pytest.raises(ValueError, match="in common"):
        difference(one[1:], other)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    random, truth, held = np.random.default_rng(0), 0.02, 0
    for trial in range(60):
        of_images, of_seeds = random.normal(0, 0.2, (1, 300)), random.normal(0, 0.01, (5, 1))
        each = truth + of_images + of_seeds + random.normal(0, 0.2, (5, 300))
        low, high = interval(each, trial)
        held += low <= truth <= high
    assert 48 <= held <= 60  # 57 of 60 are expected, rather fewer with five seeds


def test_an_interval_of_nothing_that_differs() -> None:
    assert interval(np.zeros((3, 50))) == (0, 0)


def test_the_page_says_what_the_results_say() -> None:
    text = page.PAGE.read_text()
    assert page.filled(text, page.contents(page.figures())) == text, "run: python -m studies page"


def test_the_page_refuses_results_of_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "path_of", lambda images: tmp_path / f"{images}.jsonl")
    monkeypatch.setattr(results, "hardware_path_of", lambda images: tmp_path / f"{images}-hardware.json")
    assert set(page.contents({}).values()) == {f"{page.NOT_RUN}\n"}
    old = {"arm": "bottleneck-50", "seed": 3, "recipe": "other"}
    timed = tmp_path / "clothing10-hardware.json"
    timed.write_text(json.dumps({"settings": {"arms": [old]}, "rows": []}))
    with pytest.raises(InputError, match="bottleneck-50 with seed 3 was made with other settings"):
        page.contents({})
    timed.unlink()
    (tmp_path / "clothing10.jsonl").write_text(json.dumps(old) + "\n")
    with pytest.raises(InputError, match="bottleneck-50 with seed 3 was made with other settings"):
        page.contents({})


def test_the_page_has_a_place_for_every_section() -> None:
    text = page.PAGE.read_text()
    assert not [name for name in page.SECTIONS if f"<!-- {name} -->" not in text]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nothing", "--data", "digits=digits"], "no experiment 'nothing'"),
        (["run", "--data", "flowers=x"], "names no set"),
        (["repeat", "identity-50", "--data", "digits=digits", "--data", "cifar10=x"], "Give --data once"),
        (["run", "--data", "digits=digits", "--processes", "0"], "is not above 0"),
        (["repeat", "identity-50", "--seed", "77", "--data", "digits=digits"], "No result of identity-50"),
    ],
)
def test_refusals(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["studies", *arguments])
    try:
        code: object = command_line.main()
    except SystemExit as ended:  # argparse's
        code = ended.code
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_finished_study_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line.queue, "jobs_left", lambda *given: [])
    arguments = ["--data", "digits=digits", "--work", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["studies", "run", *arguments])
    assert command_line.main() == 0
    assert capsys.readouterr().out == "digits: everything is done.\n"


@pytest.mark.slow
def test_a_queue_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "studies",
        "run",
        "reuse",
        "--data",
        "digits=digits",
        "--work",
        str(tmp_path / "work"),
    ]
    command += ["--results", str(tmp_path), "--processes", "2"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    said = [first.stdout.readline(), first.stdout.readline()]
    first.kill()
    first.communicate()
    assert "teacher" in said[0]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "teacher" not in second.stdout
    done = [(one["arm"], one["teacher"]) for one in results.read(results.path_of("digits", tmp_path))]
    assert sorted(arm for arm, _ in done) == ["bottleneck-50", "discard-50", "identity-50", "teacher"]
    assert len({teacher for _, teacher in done}) == 1
    again = ["repeat", "identity-50", "--data", "digits=digits", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "studies", *again]
    repeated = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert repeated.returncode == 0, repeated.stderr
    assert "agrees" in repeated.stdout
