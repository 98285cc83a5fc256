"""`tofe-export train`: what it refuses, in which order and in which words, and what it says at the end of a run."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_refusals import refused
from tests.cli.training import train
from tofe_export.cli import main as entry
from tofe_export.training.loop import Evaluation
from tofe_export.training.run import Outcome

_NOWHERE = ["train", "--data", "nowhere", "-o", "run"]
_NO_IMAGES = "There are no images called 'nowhere'"

_VALUES: list[tuple[list[str], str]] = [
    (["--backbone-args", "img_size=[96,64]"], _NO_IMAGES),
    (["--backbone-args", "img_size=[96,64"], "has a bracket that is not closed"),
    (["--backbone-args", "img_size=96,64]"], "closes a bracket that is not open"),
    (["--backbone-args", "img_size=[96,,64],"], "has an empty part"),
    (["--backbone-args", "img_size=[NaN,64]"], "is not a finite number"),
    (["--backbone-args", "patch_drop_rate=0.5"], "the backbone itself drops tokens"),
    (["--set", "budget=0.5"], "'budget=0.5' is not KEY=VALUE; write run.precision=bf16"),
    (["--set", "tofe.budget"], "'tofe.budget' is not KEY=VALUE"),
    (["--set", "tofe.budget="], "'tofe.budget=' is not KEY=VALUE"),
    (["--set", "=0.5"], "is not KEY=VALUE"),
    (["--set", ""], "'--set': it is empty"),
    (["--set", "tofe.budget=0.5", "--set", "tofe.budget=0.6"], "tofe.budget is given twice"),
    (["--set", "tofe.budget=0.5", "--budget", "0.6"], "tofe.budget is given twice: in --set and as --budget"),
    (["--set", "tofe.bugdet=0.5"], "Recipes have no key 'tofe.bugdet'. Next: Did you mean tofe.budget"),
    (["--set", "tofe.budget=NaN"], "'tofe.budget=NaN' is not a finite number"),
    (["--set", "tofe.lr=1e400"], "'tofe.lr=1e400' is not a finite number"),
    (["--set", "images.scale=[NaN,1.0]"], "is not a finite number"),
    (["--set", "images.scale=[0.5"], "--set images.scale is '[0.5', but it must be a list"),
    (["--set", "images.scale=[0.9,0.3]"], "--set images.scale is [0.9, 0.3], but the least comes first"),
    (["--set", "run.precision=fp99"], "--set run.precision is 'fp99', but it must be 'auto', 'fp32', 'bf16' or 'fp16'"),
    (["--set", "tofe.budget=-1"], "--set tofe.budget is -1, but it must be greater than 0"),
    (["--set", "run.seed=true"], "--set run.seed is True, but it must be a whole number"),
    (["--set", "run.accumulate=3"], "--set run.accumulate is 3, but it should divide batch_size, 128"),
    (["--set", "optimizer.name=abacus"], "timm has no optimizer called 'abacus'"),
    (["--dense-lr", "-1"], "--dense-lr is -1.0, but it must be greater than 0"),
    (["--lr", "0"], "--lr is 0.0, but it must be greater than 0"),
    (["--lr", "nan"], "'--lr': nan is not a finite number"),
    (["--budget", "1.5"], "--budget is 1.5, but it must be less than 1"),
    (["--epochs", "0"], "--epochs is 0, but it must be"),
    (["--dense-epochs", "-1"], "--dense-epochs is -1, but it must be"),
    (["--batch-size", "9" * 30], "--batch-size is 999999999999999999999999999999, but it must be"),
    (["--seed", "9" * 30], "--seed is 999999999999999999999999999999, but it must be"),
    (["--workers", "-1"], "--workers is -1, but it must be from 0 to 1,024"),
    (["--save-minutes", "-1"], "--save-minutes is -1.0, but it must be from 0"),
    (["--save-minutes", "inf"], "'--save-minutes': inf is not a finite number"),
    (["--device", "tpu"], "There is no device 'tpu'"),
    (["--log-to", "abacus"], "called 'abacus'. Next: Use some of: tensorboard, wandb, mlflow"),
    (["--log-to", "tensorboard,"], "'tensorboard,' has an empty part"),
    (["--selector", "none"], "has nothing to train"),
    (["--recipe", "nothing"], "There is no recipe 'nothing'. Next: Name a .toml file, or one of: "),
    (["--recipe", "imagenet"], "There is no recipe 'imagenet'"),
    (["--recipe", "nowhere.toml"], "nowhere.toml does not exist"),
    (["--recipe", "calibration.toml"], "calibration.toml has the unknown key data"),
    (["--recipe", "text.toml"], "text.toml is not a TOML file"),
    (["--recipe", "folder.toml"], "folder.toml is a folder"),
    (["--recipe", "wrong.toml"], "wrong.toml: tofe.lr is -1.0, but it should be greater than 0"),
]


@pytest.mark.parametrize(("options", "words"), _VALUES, ids=[" ".join(options)[:60] for options, _ in _VALUES])
def test_values_are_refused_before_the_images_are_looked_for(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "calibration.toml").write_text("[data]\nsource = 'digits'\n")
    (tmp_path / "text.toml").write_text("hello")
    (tmp_path / "wrong.toml").write_text("[tofe]\nlr = -1.0\n")
    (tmp_path / "folder.toml").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    code, text = refused([*_NOWHERE, *options], monkeypatch, capsys)
    assert code == 2, text
    assert words in text
    assert words == _NO_IMAGES or "nowhere'" not in text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "0.01"], "Give a --budget of at least 0."),
        (["--set", "network.backbone_args.num_classes=7"], "has 10 classes, but num_classes is 7"),
        (["--set", "network.backbone_args.num_heads=7"], "cannot be built"),
        (["--init", "run/other.pth"], "run/other.pth does not exist"),
    ],
    ids=str,
)
def test_what_shows_later_leaves_no_folder_either(
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = refused([*train(1), *options], monkeypatch, capsys)
    assert code == 2, text
    assert words in text
    assert not list(tmp_path.iterdir())


def test_images_none_of_which_can_be_read_leave_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(3):
            (tmp_path / "images" / name / f"{index}.png").write_bytes(b"not an image")
    monkeypatch.chdir(tmp_path)
    words = [word if word != "digits" else "images" for word in train(1)]
    code, text = refused([*words], monkeypatch, capsys)
    assert code == 2, text
    assert "can be read" in text
    assert not (tmp_path / "run").exists()


def test_a_run_from_its_first_step_to_its_last_word(tmp_path: Path, run: Run) -> None:
    arguments = train(2, "--resume", "--log-to", "tensorboard", "--save-minutes", 0)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "Note: run has no state.pt to continue from, so the run starts at the beginning." in done.stderr
    first, second, wrote, following = done.stdout.splitlines()
    assert re.fullmatch(
        r"Held-out accuracy [\d.]+% \(dense backbone [\d.]+%\) at [\d.]+% of its MACs \(budget 50\.0%\)", first
    )
    assert re.fullmatch(r"Tokens kept per stage, mean and spread over images: (\d+% ± \d+%, ){2}\d+% ± \d+%", second)
    assert (wrote, following) == ("Wrote run/ckpt.pth", "Next:  tofe-export onnx run/ckpt.pth")
    files = {"ckpt.pth", "state.pt", "metrics.jsonl", "steps.jsonl", "tensorboard"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files

    again = run(*(word for word in arguments if word != "--resume"))
    assert again.returncode == 2
    assert "Error: run already holds a run." in again.stderr
    assert "--resume" in again.stderr
    weights = (tmp_path / "run" / "ckpt.pth").read_bytes()
    finished = run(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert "starts at the beginning" not in finished.stderr
    assert finished.stdout == done.stdout
    assert (tmp_path / "run" / "ckpt.pth").read_bytes() == weights
    other = run(*arguments, "--seed", 5)
    assert other.returncode == 2
    assert "run.seed was 0 and is now 5" in other.stderr
    (tmp_path / "run" / "state.pt").unlink()
    for words in (arguments, arguments[: arguments.index("--resume")]):
        lost = run(*words)
        assert lost.returncode == 2
        assert "run holds the ckpt.pth of a finished run, and no state.pt to continue from" in lost.stderr
    assert (tmp_path / "run" / "ckpt.pth").read_bytes() == weights


def test_notes_say_what_the_result_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    notes = ("The budget was missed. Train with a smaller `batch_size`.", "Stage 0 keeps every token.")
    outcome = Outcome(Path("run/ckpt.pth"), Evaluation(0.5, [0.6, 1.0], [0.05, 0.0], 0.7), 0.75, 0.5, notes)
    monkeypatch.setattr("tofe_export.api.train.run", lambda *arguments: outcome)
    monkeypatch.setattr(sys, "argv", ["tofe-export", *train(1)])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    shown = capsys.readouterr()
    assert not caught.value.code, shown.err
    assert [line for line in shown.err.splitlines() if line] == [
        "Note: The budget was missed. Train with a smaller --batch-size.",
        "Note: Stage 0 keeps every token.",
    ]
    assert shown.out.splitlines() == [
        "Held-out accuracy 50.0% (dense backbone 75.0%) at 70.0% of its MACs (budget 50.0%)",
        "Tokens kept per stage, mean and spread over images: 60% ± 5%, 100% ± 0%",
        "Wrote run/ckpt.pth",
        "Next:  tofe-export onnx run/ckpt.pth",
    ]
