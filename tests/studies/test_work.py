"""Jobs from the first step to the line of results, one of each kind, and the runtimes' table of one of them."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from studies import hardware, results
from studies.experiments import ARMS, COUNTED, FUSED, RANDOM, TEACHER
from studies.work import Job, Place, work
from tofe_export.checkpoints import checkpoint
from tofe_export.errors import InputError

KINDS = ("dynamicvit-50", "dense", "bottleneck-6-blocks", "random-50", "evit-50", "narrow-50", "shared-50",
         "learned-counts-50", "identity-50", "bottleneck-alone-50")  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    threads = torch.get_num_threads()
    yield Place("digits", "digits", tmp_path, results.path_of("digits", tmp_path), "cpu")
    torch.set_num_threads(threads)


def test_without_trained_networks_there_is_nothing_to_time(place: Place) -> None:
    with pytest.raises(InputError, match="has no trained networks of digits"):
        hardware.measure(place, (1,), 1, 1)


def test_the_lowest_seed_with_all_arms_is_timed(place: Place) -> None:
    for seed, arms in ((0, ("evit-50",)), (2, ()), (5, ("evit-50", "discard-50")), (7, ("evit-50", "discard-50"))):
        place.teacher(seed).touch()
        for arm in arms:
            place.checkpoint(arm, seed).parent.mkdir(exist_ok=True)
            place.checkpoint(arm, seed).touch()
    assert hardware._complete_seed(place, ("evit-50", "discard-50")) == 5
    with pytest.raises(InputError, match="No seed of digits has all arms; seed 5 lacks block-50"):
        hardware._complete_seed(place, ("evit-50", "discard-50", "block-50"))


def test_a_teacher_has_its_line_before_its_weights(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, line: results.Line) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "append", killed)
    monkeypatch.setattr("studies.work._teacher", lambda place, job: ({}, torch.nn.Linear(1, 1)))
    with pytest.raises(KeyboardInterrupt):
        work(place, Job(TEACHER, 0))
    assert place.teachers() == []


@pytest.mark.slow
def test_a_job_of_each_kind(place: Place) -> None:
    for arm in (TEACHER, *KINDS):
        work(place, Job(arm, 0))
    lines = {line["arm"]: line for line in results.read(place.results)}
    assert set(lines) == {TEACHER, *KINDS}
    assert len({line["teacher"] for line in lines.values()}) == 1
    assert len({line["recipe"] for line in lines.values()}) == len(lines)
    for arm in KINDS:
        line, kind = lines[arm], ARMS[arm]
        if kind.shape not in ("all", "half"):
            assert line["macs_ratio"] == pytest.approx(0.5, abs=0.03)
        given = kind.selection in (COUNTED, FUSED, RANDOM)
        assert (max(line["keep_std"]) == 0) == given
        assert ("steering" in line) != given
        assert ("errors" in line) == (arm not in ("dynamicvit-50", "random-50", "evit-50"))
        saved = not kind.selector and kind.selection != RANDOM
        assert place.checkpoint(arm, 0).exists() == saved
    learned = lines["learned-counts-50"]
    assert len(learned["steering"]["shares"]) == len(learned["steering"]["prices"]) == 3
    used = learned["variants"]
    assert list(used) == ["fixed-0.5", "fixed-0.75", "fixed-0.9", "returning", "no-return", "no-estimate"]
    assert used["no-return"]["images"] == learned["images"]
    assert used["returning"]["counts"] == list(accumulate(used["fixed-0.5"]["counts"], min))
    for other in ("no-return", "no-estimate"):
        assert used[other]["counts"] == used["returning"]["counts"]
        assert used[other]["keep_mean"] == pytest.approx(used["returning"]["keep_mean"])
    assert used["no-return"]["macs_ratio"] == used["returning"]["macs_ratio"] > used["no-estimate"]["macs_ratio"]
    assert "no-estimate" not in lines["identity-50"]["variants"]
    ratios = checkpoint.load(place.checkpoint("learned-counts-50", 0)).keep_ratios
    assert ratios != pytest.approx(learned["keep_mean"], abs=1e-6)  # those are of held-out images
    assert ratios == pytest.approx(learned["keep_mean"], abs=0.2)

    document = hardware.measure(place, (1,), 1, 1, arms=("dynamicvit-50",))
    rows = {(row["arm"], row["form"]): row for row in document["rows"]}
    assert set(rows) == {(arm, form) for arm in ("dynamicvit-50", TEACHER) for form in hardware.FORMS}
    assert document["settings"]["arms"] == [
        {"arm": arm, "seed": 0, "recipe": lines[arm]["recipe"]} for arm in ("dynamicvit-50", TEACHER)
    ]
    assert rows["dynamicvit-50", "openvino"]["share"] == pytest.approx(lines["dynamicvit-50"]["macs_ratio"])
    assert rows[TEACHER, "openvino"]["share"] == 1
    assert rows[TEACHER, "onnxruntime"]["accuracy"] == pytest.approx(lines[TEACHER]["accuracy"], abs=0.01)
