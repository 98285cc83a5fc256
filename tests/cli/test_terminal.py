"""Streams, encodings, names and errors between the program and the user's terminal."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.cli.conftest import Run
from tests.cli.forked import CLOSED, CLOSED_PIPE
from tests.cli.test_refusals import refused
from tofe_export.cli import console, terminal
from tofe_export.documents.benchmark import Benchmark
from tofe_export.errors import MissingError
from tofe_export.files.commands import command
from tofe_export.training.loop import EpochMeans

HOSTILE = "m\udcff[v2] :cat: \x1b[31m\nx"  # bytes that are not UTF-8, markup, an escape sequence, two lines


def verify(model: Path, checkpoint: Path) -> list[object]:
    return ["verify", model, "--against", checkpoint, "--samples", 4, "--no-threshold"]


def test_documents_are_there_whatever_the_terminal_takes(exported: Path, checkpoint: Path, run: Run) -> None:
    files = ["--json", "v.json", "--junit", "v.xml"]
    named = exported.with_name(f"{HOSTILE}.onnx")
    for end in ("", ".json"):
        shutil.copy(f"{exported}{end}", f"{named}{end}")
    plain = run(*verify(named, checkpoint), *files, PYTHONIOENCODING="ascii")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.isascii()
    assert r"m\xff[v2] :cat: \x1b[31m\nx.onnx against" in plain.stdout.replace("\n", "")
    assert "PASSED" in plain.stdout
    assert json.loads((exported.parent / "v.json").read_text())["model"].startswith("m\\xff[v2]")
    for stdout in (CLOSED_PIPE, "/dev/full"):
        for name in ("v.json", "v.xml"):
            (exported.parent / name).unlink()
        done = run(*verify(exported, checkpoint), *files, stdout=stdout)
        # A reader that went away has seen what it wanted; a disk that is full has lost what somebody wants.
        assert done.returncode == (3 if stdout == "/dev/full" else 0), done.stderr
        assert ("could not be written: No space left" in done.stderr) == (stdout == "/dev/full")
        assert json.loads((exported.parent / "v.json").read_text())["passed"]
        assert ElementTree.parse(exported.parent / "v.xml").getroot().get("failures") == "0"


def test_a_closed_standard_output_is_no_failure(checkpoint: Path, run: Run) -> None:
    done = run("inspect", checkpoint, stdout=CLOSED)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dash_is_standard_output_alone(exported: Path, checkpoint: Path, run: Run) -> None:
    done = run(*verify(exported, checkpoint), "--json", "-")
    assert json.loads(done.stdout)["passed"]
    assert "PASSED" in done.stderr
    assert not (exported.parent / "-").exists()
    both = run(*verify(exported, checkpoint), "--json", "-", "--junit", "-")
    assert both.returncode == 2
    assert "mixed on standard output" in both.stderr


def test_a_result_that_cannot_be_written_is_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise MissingError("The disk is full: b.json was not written.", "Free some space.")

    numbers = {"p50_ms": 1.0, "p90_ms": 1.0, "p99_ms": 1.0, "images_per_s": 1.0, "gmacs": 1.0}
    ratios = {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1, "realised_fraction": 0.5, "dense": False}
    row = {"name": "model.onnx", "backend": "onnxruntime", "batch": 1, **numbers, **ratios}
    benchmark = Benchmark.model_validate({"settings": {"threads": 1, "rounds": 1}, "rows": [row]})
    monkeypatch.setattr("tofe_export.api.bench.bench", lambda *_, **__: benchmark)
    monkeypatch.setattr(console, "write_text", full)
    monkeypatch.chdir(tmp_path)
    code, text = refused(["bench", "model.onnx", "--json", "b.json"], monkeypatch, capsys)
    assert code == 3
    assert "1.90 to 2.10" in text
    assert "The disk is full" in text
    assert "Wrote" not in text


@pytest.mark.slow
def test_every_verb_takes_any_file_name(exported: Path, checkpoint: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    model, weights = folder / f"{HOSTILE}.onnx", folder / f"{HOSTILE}.pth"
    shutil.copy(checkpoint, weights)
    shutil.copy(checkpoint, folder / "ckpt.pth")
    for arguments in (
        ["onnx", weights, "-o", model, "--data", "photos"],
        ["onnx", weights, "-o", folder / "model.onnx"],
        [*verify(model, weights), "--json", folder / "verify.json", "--junit", folder / "v.xml"],
        ["bench", model, "--rounds", 2, "--processes", 1, "--batch", 1, "--json", folder / "bench.json"],
        ["inspect", model],
        ["inspect", model, "--json", "-"],
        [
            "quantize",
            model,
            "--recipe",
            "digits",
            "--samples",
            4,
            "--rounds",
            2,
            "--processes",
            1,
            "--json",
            folder / "q.json",
        ],
        ["report", folder, "--images", 0],
    ):
        done = run(*arguments)
        assert done.returncode in ((0, 1) if arguments[0] == "quantize" else (0,)), (arguments, done.stderr)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\\xff" in done.stdout
    assert json.loads((folder / "verify.json").read_text())["model"].startswith("m\\xff[v2]")
    assert "testsuite" in (folder / "v.xml").read_text()
    page = (folder / "report.html").read_text()
    assert "m\\xff[v2]" in page


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.say(f"Wrote {HOSTILE}")
    console.table(f"Title {HOSTILE}", ("", ""), [(HOSTILE, "[bold]")])
    shown = capsys.readouterr().out
    assert shown.count(r"m\xff[v2] :cat: \x1b[31m\nx") == 3
    assert "[bold]" in shown
    with console.progress() as report:
        report(f"Reading {HOSTILE}", 1, 1)
    assert r"m\xff[v2] :cat: \x1b[31m\nx" in capsys.readouterr().err.replace("\n", "")
    with console.training_progress() as (progress, watch):
        progress("epoch [v2]", 0, 2)
        watch(EpochMeans("epoch [v2]", 1.5, 0.25, (0.5, 0.25), 0.7, 0.5))
        progress("epoch [v2]", 1, 2)
    shown = " ".join(capsys.readouterr().err.split())
    assert "epoch [v2]" in shown
    assert "loss 1.500 accuracy 25.0% kept 0.50 0.25 MACs" in shown
    assert "0.70 (budget 0.5)" in shown


@pytest.mark.parametrize("width", [80, 150])
def test_the_pace_of_training_is_shown_on_a_narrow_terminal_too(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, seconds = io.StringIO(), 30 * 3600 + 125.2
    monkeypatch.setattr(console, "err", Console(file=terminal, width=width, force_terminal=True, color_system=None))
    with console.training_progress() as (progress, watch):
        for epoch in range(1, 31):
            progress(f"ToFe {epoch}/30", 0, 2)
            watch(EpochMeans(f"ToFe {epoch}/30", 1.5, 0.25, (0.5, 0.25), 0.7, 0.5, 1234.4, seconds))
            progress(f"ToFe {epoch}/30", 1, 2)
    last = terminal.getvalue().rpartition("\x1b[2K")[2]
    words = "loss 1.500 1234 images/s, 30:02:05 left in phase accuracy 25.0% kept 0.50 0.25 MACs 0.70 (budget 0.5)"
    shown = last[last.index("ToFe 30/30") :].split()
    assert " ".join(words.split()) == " ".join(word for word in shown if word in words.split())
    assert "ToFe 25/30" in terminal.getvalue()
    assert "ToFe 24/30" not in last, "the last ones are on the screen"


def test_what_the_encoding_lacks_looks_alike() -> None:
    terminal.prepare()
    assert "a – b × c ≥ 5 µs … │─┌ é".encode("ascii", "lookalikes") == rb"a - b x c >= 5 us ... |-+ \xe9"
    assert "m\udcff\ud800".encode("utf-8", "lookalikes") == rb"m\xff\ud800"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ZeroDivisionError("one over nothing"), 70, "ZeroDivisionError: one over nothing"),
        (EOFError("inside"), 70, "EOFError"),
        (BrokenPipeError(32, "Broken pipe"), 70, "BrokenPipeError"),
        (RuntimeError("can't start new thread"), 3, "does not start any more threads"),
        (KeyboardInterrupt(), 130, "Stopped."),
        (MemoryError(), 3, "too little memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 3, "too little memory"),
        (OSError(28, "No space left on device"), 3, "disk is full"),
        (PermissionError(13, "Permission denied", "secret.pth"), 2, "secret.pth: Permission denied"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 3, "The package x is not installed"),
    ],
)
def test_exit_codes_of_what_goes_wrong_inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tofe_export.api.inspect.inspect", broken)
    found, text = refused(["inspect", "x"], monkeypatch, capsys)
    assert (found, words in text) == (code, True), text


def test_an_error_that_cannot_be_shown_keeps_its_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unwilling(*_: object, **__: object) -> None:
        raise OSError("no terminal")

    monkeypatch.setattr(console.err, "print", unwilling)
    assert refused(["inspect", "missing"], monkeypatch, capsys)[0] == 2


def test_a_line_in_a_name_is_no_line_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tofe-export", "inspect", "x\nNext:  rm -r ."])
    with pytest.raises(SystemExit):
        from tofe_export.cli.main import main

        main()
    lines = capsys.readouterr().err.splitlines()
    (step,) = [line for line in lines if line.startswith("Next:")]
    assert step.startswith("Next:  Check the path")


def test_hostile_environments() -> None:
    """Real processes: what Python itself reads or does when it starts and ends."""
    broken = {"COLUMNS": "²", "LINES": "x", "TERMINAL_WIDTH": "wide", "TERM": "dumb", "LANG": "C"}
    environment = {**os.environ, **broken, "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "ascii"}
    program = f"{sys.executable} -m tofe_export --help"
    for shell in (f"{program} | head -1", f"{program} >&- 2>&- <&-", program):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", shell], check=False, capture_output=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
    assert done.stdout.isascii()
    assert b"quantize" in done.stdout


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    shell = f"mkdir gone && cd gone && rmdir ../gone && {sys.executable} -P -m tofe_export inspect x"
    environment = {**os.environ, "PYTHONPATH": str(Path(console.__file__).parents[2])}
    done = subprocess.run(
        ["bash", "-c", shell], check=False, cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert "The folder you are in is gone." in done.stderr


@pytest.mark.parametrize("name", ["plain", "two words", "it's", "-dash", "$HOME `x`", "\udcff\\'", "a\x1b\nb", "é"])
def test_commands_can_be_pasted(name: str) -> None:
    shell = command("inspect", Path(name), name).replace("tofe-export", "printf '%s\\0'", 1)
    said = subprocess.run(["bash", "-c", shell], capture_output=True, check=True).stdout.split(b"\0")
    path = os.fsencode(f"./{name}" if name.startswith("-") else name)
    assert said == [b"inspect", path, os.fsencode(name), b""]


_NOISE = """
import logging, sys, warnings
import tofe_export
if sys.argv[1:]:
    from tofe_export.cli import terminal
    terminal.prepare()
warnings.filterwarnings("always", category=DeprecationWarning)
warnings.warn("palette images with transparency", stacklevel=1)
warnings.warn("sklearn has changed", DeprecationWarning, stacklevel=1)
logging.getLogger("timm").warning("no pretrained weights")
"""


def test_libraries_talk_to_programmers_only() -> None:
    def said(*arguments: str) -> str:
        program = [sys.executable, "-c", _NOISE, *arguments]
        return subprocess.run(program, check=True, capture_output=True, text=True).stderr

    assert said("as a command") == ""
    for words in ("palette images", "sklearn has changed", "no pretrained weights"):
        assert words in said(), "what imports the package keeps its warnings"


_IMPORTS = """
import os, sys
import tofe_export
import onnxruntime
print(os.environ["ORT_DISABLE_TELEMETRY"], os.environ["HF_HUB_DISABLE_TELEMETRY"])
"""


def test_onnx_runtime_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    left_out = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | {"HOME": str(tmp_path)}

    def imported(**own: str) -> str:
        command = [sys.executable, "-c", _IMPORTS]
        return subprocess.run(command, env=environment | own, capture_output=True, text=True, check=True).stdout

    assert imported() == "1 1\n"
    assert not list(tmp_path.rglob("*"))
    assert imported(ORT_DISABLE_TELEMETRY="0") == "0 1\n", "what the user says stays"
