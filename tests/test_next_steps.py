"""What the program says to type next can be typed: commands parse, and options exist where they are said."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from tests.helpers import small_tofe
from tests.source import OF_OTHERS, PACKAGE, Text, arguments, texts
from tests.test_documented_commands import PROGRAM, USAGE_ERROR, parse
from tofe_export.api.doctor import doctor
from tofe_export.api.load import load, require_onnx_name
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.cli.app import app
from tofe_export.cli.failures import explain
from tofe_export.cli.next_steps import STEPS
from tofe_export.cli.options import options
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import TofeError

VERBS: dict[str, typer.core.TyperCommand] = PROGRAM.commands  # type: ignore[attr-defined]
EVERY = tuple(VERBS)
# Where the messages of a room can come up; a room that is not named serves every verb.
ROOMS: dict[str, tuple[str, ...]] = {
    **{f"cli/{verb}.py": (verb,) for verb in EVERY},
    "training/": ("train", "demo"),
    "engine/": ("trt",),
    "precision/": ("quantize", "trt"),
    "timing/": ("bench", "onnx"),  # what it cannot time may be exported first
    "page/": ("report",),
    "tuning/": ("onnx", "tune"),
    "api/bench.py": ("bench",),
    "api/build.py": ("trt",),
    "api/export.py": ("onnx", "train"),
    "api/predict.py": ("predict", "onnx", "train"),  # what lacks an output is made again
    "data/named.py": ("predict",),
    "artifacts/deployed.py": ("predict", "verify", "trt"),
    "api/quantize.py": ("quantize", "onnx"),  # what lacks an output is exported again
    "api/train.py": ("train",),
    "api/verify.py": ("verify",),
    "parity/": ("verify", "trt"),
    "cli/hints.py": ("onnx", "inspect"),
}
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+|-[a-z])(?![\w-])")
_COMMAND = re.compile(r"tofe-export (?:" + "|".join(EVERY) + r")\b[^;:]*")
_OF_THE_PROGRAM = {"-c", "--help", *(option for param in PROGRAM.params for option in param.opts)}
HOSTILE = Path("two words' $HOME.pth")


def commands_in(text: str) -> list[str]:
    """The commands of a sentence; one with neither option nor file behind the verb only names it."""
    commands = []
    for match in _COMMAND.finditer(text):
        command = re.split(r"[.,]? or |, (?!\d)|\. |\.$|   |\)| \(", match[0])[0].strip()
        words = command.split()[2:]
        if words and not (words[0].isalpha() and words[0].islower()):  # "what tofe-export onnx wrote"
            commands.append(command.replace("…", "").replace(" ... ", " "))
    return commands


TEXTS: list[Text] = list(texts())
COMMANDS = [(text.place, command) for text in TEXTS for command in commands_in(text.text)]


def _verbs_of(room: str) -> tuple[str, ...]:
    return next((ROOMS[start] for start in sorted(ROOMS, key=len, reverse=True) if room.startswith(start)), EVERY)


def _verbs_in(text: Text) -> tuple[str, ...]:
    """The verbs that a sentence names."""
    return tuple(verb for verb in EVERY if re.search(rf"\b{verb}\b", text.text, re.IGNORECASE))


def _options_of(verbs: tuple[str, ...]) -> set[str]:
    return {option for verb in verbs for param in VERBS[verb].params for option in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize(("place", "command"), COMMANDS, ids=[f"{place} {command}" for place, command in COMMANDS])
def test_the_program_takes_it(place: str, command: str) -> None:
    if place.startswith("cli/demo.py"):
        return  # "train --data digits ... -o": says what is left out
    parse(command)


def test_the_source_is_really_read() -> None:
    assert len(COMMANDS) >= 12
    assert len(STEPS) >= 18
    verbs = {command.split()[1] for _, command in COMMANDS}
    assert verbs >= {"train", "onnx", "verify", "bench", "trt", "report", "demo"}
    assert commands_in("Fine-tune it: tofe-export train --init X, or do not.") == ["tofe-export train --init X"]
    assert commands_in("Start from the file that tofe-export onnx wrote.") == []
    with pytest.raises(USAGE_ERROR):
        parse("tofe-export train --init X")


@pytest.mark.parametrize("room", sorted({text.room for text in TEXTS}))
def test_an_option_in_a_sentence_is_one_of_a_verb_that_says_it(room: str) -> None:
    theirs = _options_of(_verbs_of(room))
    for text in TEXTS:
        if text.room != room or not text.text[:1].isupper() or text.text.startswith("X --"):
            continue  # a sentence begins with a capital; X is a command from elsewhere
        own = OF_OTHERS.sub("", text.text)
        unknown = set(_OPTION.findall(own)) - theirs - _options_of(_verbs_in(text)) - _OF_THE_PROGRAM
        assert not unknown, text


def test_what_pip_is_told_to_install_exists() -> None:
    extras = set(re.findall(r"^(\w+) = \[", (PACKAGE.parent / "pyproject.toml").read_text(), re.MULTILINE))
    steps = [text.text for text in TEXTS if "pip install" in text.text] + [row.next_step for row in doctor().rows]
    for text in steps:
        assert set(re.findall(r"tofe-export\[(\w+)\]", text)) <= extras, text


@pytest.mark.parametrize("room", sorted({text.room for text in TEXTS}))
def test_an_argument_in_a_message_is_an_option_of_a_verb_that_says_it(room: str) -> None:
    theirs = _options_of(_verbs_of(room))
    for text in TEXTS:
        if text.room == room:
            named = {options()[name].on for name in arguments(text) if name in options()}
            assert not named - theirs - _options_of(_verbs_in(text)), text


@pytest.mark.parametrize("code", STEPS)
@pytest.mark.parametrize("details", [{}, {"path": HOSTILE, "backbone": "deit_tiny_patch16_224"}], ids=["bare", "full"])
def test_steps_of_codes_can_be_typed(code: str, details: dict[str, object]) -> None:
    step = STEPS[code](details)
    assert set(_OPTION.findall(step)) <= _options_of(EVERY)
    for command in commands_in(step):
        parse(command)


def report_of(folder: Path) -> Path:
    """Its page."""
    from tofe_export.page.build import build_report

    return build_report(folder, images=1)


def _plain(path: Path) -> Path:
    torch.save(small_tofe().vit.state_dict(), path)
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize(
    ("name", "written"),
    [("ckpt.pth", "ckpt.onnx"), ("model.v2", "model.v2.onnx"), ("folder", "folder/model.onnx")],
)
def test_a_better_name_is_proposed_for_an_onnx_file(name: str, written: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TofeError) as caught:
        require_onnx_name(tmp_path / name)
    assert explain(caught.value)[1] == f"Write -o {tmp_path / written}"


@pytest.mark.parametrize(
    ("refuse", "command"),
    [
        (lambda folder: load(folder / "gone.pth"), "demo"),
        (lambda folder: load(_plain(folder / HOSTILE), backbone="vit_tiny_patch16_224", keep_rate=0.5), "train"),
        (lambda folder: load(_plain(folder / HOSTILE), backbone="vit_tiny_patch16_224", selector="mlp"), "train"),
        (lambda folder: report_of(folder / "gone"), "demo"),
        (lambda folder: load(_empty(folder / "m.onnx")), "inspect"),
        (lambda folder: open_artifact(_empty(folder / HOSTILE)), "onnx"),
    ],
    ids=["no file", "keep rate", "selector", "no folder", "a model as a checkpoint", "a checkpoint as a model"],
)
def test_steps_of_errors_are_commands(refuse: Callable[[Path], object], command: str, tmp_path: Path) -> None:
    with pytest.raises(TofeError) as caught:
        refuse(tmp_path)
    _, step, _ = explain(caught.value)
    (typed,) = commands_in(step)
    assert shlex.split(typed)[1] == command
    parse(typed)
    assert "`" not in step


@pytest.mark.slow
def test_the_page_leads_on_until_nothing_is_missing(tmp_path: Path) -> None:
    """Each command that the page offers is typed, page after page."""
    model = small_tofe()
    folder = tmp_path / "my run"
    save(folder / "ckpt.pth", Checkpoint(model, (0.5, 0.4, 0.4), Preprocessing.of_backbone(model.vit), {}, "digits"))
    typed = []
    while True:
        page = report_of(folder).read_text()
        offered = re.findall(r'<p class="missing">[^<]*<code>(.*?)</code>', page)
        if not offered:
            break
        command = offered[0].replace("&#39;", "'")
        assert command not in typed, "it did not lead on"
        typed.append(command)
        extra = {"verify": ["--samples", "8"], "bench": ["--batch", "1", "--rounds", "2", "--processes", "1"]}
        words = shlex.split(command)[1:]
        app([*words, *extra.get(words[0], [])], standalone_mode=False)
    assert [shlex.split(command)[1] for command in typed] == ["onnx", "bench", "verify"]
