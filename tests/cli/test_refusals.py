"""Bad input, through the command line: a sentence, the next step, the exit code, and never a traceback."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.cli import forked
from tests.cli.conftest import Run
from tofe_export.cli import main as entry


def refused(
    arguments: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Runs the program in this process, through its real entry point."""
    monkeypatch.setattr(sys, "argv", ["tofe-export", *map(str, arguments)])
    monkeypatch.setenv("TOFE_DEBUG", "")
    with pytest.raises(SystemExit) as caught:
        entry.main()
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return int(caught.value.code or 0), " ".join((shown.out + shown.err).replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "photos"], "--data is for web, executorch and litert"),
        (["--for", "kserve", "--data", "photos"], "--data is for web, executorch and litert"),
        (["--for", "web", "--int8"], "--checkpoint, --int8 and --taps are for executorch and litert"),
        (["--for", "litert", "--webgpu"], "takes --checkpoint, --int8, --taps and --data alone"),
        (["--for", "executorch", "--runtime", "dist"], "takes --checkpoint, --int8, --taps and --data alone"),
        (["--webgpu"], "--webgpu is for a page"),
        (["--for", "web", "--threads", "2"], "--delay-us and --gpu are for triton and kserve"),
        (["--for", "web"], "The page needs onnxruntime-web"),
    ],
)
def test_options_of_package_for_another_target(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = refused(["package", *options], monkeypatch, capsys)
    assert (code, words in said) == (3 if "needs" in words else 2, True), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "0,4,2"], "Keep count 0 of stage 0 is outside 1..16"),
        (["--keep", "8,-1,2"], "Keep count -1 of stage 1 is outside 1..16"),
        (["--keep", "8,4,17"], "Keep count 17 of stage 2 is outside 1..16"),
        (["--keep", "8,4"], "2 keep counts were given (8,4), but the model has 3 stages"),
        (["--keep", "8,4,2,1"], "4 keep counts were given"),
        (["--keep", "many"], "is not a list of whole numbers"),
        (["--keep", "8,4.5,2"], "is neither a list of counts (96,49,27) nor of ratios"),
        (["--keep", "8,,2"], "is not a list of whole numbers"),
        (["--keep", "8,4,2", "--keep-from", "digits"], "both given"),
        (["--keep-from", "digits", "--keep-quantile", "1.5"], "not between 0 and 1"),
        (["--keep-quantile", "7"], "not between 0 and 1"),
        (["--keep-from", "no/such/folder"], "no/such/folder"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["-o", "model.engine"], "does not end in .onnx"),
        (["--rearrange", "sideways"], "sideways"),
        (["--input", "jpeg"], "jpeg"),
        (["--top", "3"], "--top is for --outputs classes"),
        (["--outputs", "logits,classes"], "classes take the place of logits"),
        (["--keep-quantile", "0.5"], "Add --keep-from DATA"),
        (["--keep-samples", "5"], "Add --keep-from DATA"),
        (["--keep", "9" * 30 + ",4,2"], "of stage 0 is outside 1..16"),
        (["--keep", "8_0,4,2"], "is not a list of whole numbers"),
        (["--img-size", "8000x8193"], "8000x8193 is not from 1 to 8,192 pixels a side"),
        (["--img-size", "1" + "0" * 9], "is not a size in pixels"),
        (["--keep-rate", "nan"], "nan is not a finite number"),
        (["--data", ""], "Invalid value for '--data': it is empty"),
        (["--data="], "Invalid value for '--data': it is empty"),
        (["--keep-from", "x" * 300], "its name is too long"),
        (["--keep-from", "x" * 300 + ".toml"], "its name is too long"),
        (["-o", "x" * 300 + ".onnx"], "its name is too long"),
    ],
)
def test_onnx_options(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = refused(["onnx", checkpoint, *options], monkeypatch, capsys)
    assert code == 2
    assert words in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["onnx", "missing.pth"], "missing.pth does not exist"),
        (["onnx", "."], "is a folder"),
        (["onnx", "text.txt"], "not a checkpoint"),
        (["verify", "missing.onnx", "--against", "text.txt"], "missing.onnx does not exist"),
        (["verify", "`keep`.onnx", "--against", "text.txt"], "`keep`.onnx does not exist"),
        (["verify", "text.onnx", "--against", "text.txt"], "text.onnx.json does not exist"),
        (["bench", "missing.onnx"], "missing.onnx does not exist"),
        (["bench", "text.txt"], "not a checkpoint"),
        (["bench"], "Missing argument"),
        (["inspect", "text.onnx"], "not an ONNX file"),
        (["inspect", "missing"], "does not exist"),
        (["report", "nowhere"], "nowhere"),
        (["report", "empty"], "empty"),
        (["train", "--data", "nowhere", "-o", "run"], "nowhere"),
        (["train", "--data", "empty", "-o", "run"], "empty"),
        (["train", "--data", "digits", "-o", "run", "--budget", "1.5"], "--budget is 1.5, but it must be less than 1"),
        (["train", "--data", "digits", "-o", "run", "--backbone", "deit_smal_patch16_224"], "deit_small_patch16_224"),
        (["train", "--data", "digits", "-o", "run", "--backbone-args", "img_size"], "NAME=VALUE"),
        (["frobnicate"], "No such command"),
        (["verfy"], "Did you mean 'verify'?"),
        (["export"], "Did you mean 'onnx'?"),
        (["build", "x"], "Did you mean 'trt'?"),
        (["onnx", "x.pth", "--keep-rte", "0.5"], "No such option: --keep-rte. Did you mean --keep-rate"),
        (["verify", "x.onnx", "--agains", "x.pth"], "Did you mean --against?"),
        (["onnx", "x.pth", "--rearrange", "plugn"], "'plugn' is not one of 'plugin', 'elide'"),
        (["train", "--data", "digts", "-o", "run"], "digits"),
        (["train", "--data", "digits", "-o", "run", "--selector", "mpl"], "mlp"),
    ],
)
def test_files_and_verbs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    code, text = refused(list(arguments), monkeypatch, capsys)
    assert code == 2
    assert words in text


def test_counts_of_a_discarding_model_may_not_rise(
    discarding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = refused(["onnx", discarding, "--keep", "4,8,2"], monkeypatch, capsys)
    assert code == 2
    assert "discards tokens" in text


def test_a_corrupt_image_is_named_skipped_and_counted(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (40, 40), (50 * index, 90, 30)).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG not really")
    done = run("onnx", checkpoint, "--keep-from", folder, "--data", folder)
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stderr
    assert "Images: 3 read, 1 left out: 1 that cannot be decoded." in done.stderr
    assert (tmp_path / "model.onnx").exists()


def test_a_kill_during_the_export_leaves_the_old_file(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    process = forked.begin(["onnx", str(checkpoint), "-o", str(target)], tmp_path, {}, os.devnull, os.devnull)
    while process.is_alive() and not list(tmp_path.glob(".model.onnx.*.part")):
        time.sleep(0.005)
    assert process.is_alive(), "the export ended before it could be killed"
    process.kill()
    process.join()
    assert target.read_bytes() == b"old"
    assert not (tmp_path / "model.onnx.json").exists()


def test_no_traceback_unless_asked(run: Run) -> None:
    quiet, loud = run("onnx", "missing.pth"), run("onnx", "missing.pth", TOFE_DEBUG="1")
    assert quiet.returncode == 2
    assert "Traceback" not in quiet.stderr
    assert quiet.stderr.splitlines()[-1].startswith("Next:")
    assert "Traceback" in loud.stderr
    assert "InputError" in loud.stderr


def test_a_defect_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("one over nothing")

    monkeypatch.setattr("tofe_export.api.inspect.inspect", broken)
    code, text = refused(["inspect", "x"], monkeypatch, capsys)
    assert code == 70
    assert "ZeroDivisionError: one over nothing" in text
    assert "TOFE_DEBUG=1" in text


@pytest.mark.parametrize(
    ("error", "exit_code", "words"),
    [
        (ConnectionError("no network"), 3, "could not be downloaded"),
        (RuntimeError("size mismatch for norm.weight"), 2, "do not fit"),
    ],
)
def test_pretrained_weights_that_cannot_be_had(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    exit_code: int,
    words: str,
) -> None:
    import timm

    real = timm.create_model

    def failing(name: str, pretrained: bool = False, **arguments: object) -> object:
        if pretrained:
            raise error
        return real(name, **arguments)

    monkeypatch.setattr(timm, "create_model", failing)
    monkeypatch.chdir(tmp_path)
    code, text = refused(["train", "--data", "digits", "-o", "run", "--pretrained"], monkeypatch, capsys)
    assert code == exit_code
    assert words in text


@pytest.mark.parametrize("verb", [["onnx"], ["verify", "--against"]])
def test_without_onnx_runtime_is_exit_3(
    verb: list[str],
    checkpoint: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [checkpoint]
    if verb[0] == "verify":
        assert run("onnx", checkpoint).returncode == 0
        files = [checkpoint, tmp_path / "model.onnx"]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, text = refused([*verb, *files], monkeypatch, capsys)
    assert code == 3
    assert "ONNX Runtime is not installed" in text
    assert "pip install 'tofe-export[cpu]'" in text


def test_help_lists_every_verb() -> None:
    from tofe_export.cli.app import app

    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for verb in ("doctor", "demo", "train", "onnx", "trt", "verify", "bench", "predict", "inspect", "report"):
        assert verb in shown.output
    assert "--show-completion" not in shown.output


_HEAVY = """
import sys
sys.argv = ["tofe-export", "--help"]
from tofe_export.cli.main import main
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "numpy", "onnx", "timm", "onnxruntime", "matplotlib", "sklearn", "PIL"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", _HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
