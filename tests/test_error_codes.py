"""Every error has a code, and names arguments: options and commands are the command line's business."""

import re

import pytest

from tests.source import OF_OTHERS, arguments, errors, texts
from tofe_export.cli.next_steps import STEPS
from tofe_export.cli.options import as_options, options
from tofe_export.data import image_file
from tofe_export.errors import TofeError

assert issubclass(image_file.UnreadableImage, TofeError)  # `errors` finds subclasses that are imported
_ABOVE = ("cli/", "page/")  # rooms that know options and commands
RAISED = errors()
BELOW = [text for text in texts() if not text.room.startswith(_ABOVE)]
ARGUMENTS = [(text.place, name) for text in BELOW for name in arguments(text)]
_GIVEN = {text.text for text in BELOW if re.fullmatch(r"[a-z]+(-[a-z]+)+", text.text)}  # to a function that raises
_OPTION = re.compile(r"(?<![\w-])--[a-z]|(?<![\w-])-[a-z](?![\w-])")
_VERBS = "doctor|demo|train|tune|onnx|optimize|quantize|trt|verify|bench|predict|package|inspect|report"
# Arguments of the package that no verb has, so that the terminal shows their bare names.
_WITHOUT_OPTION = {"models", "model", "checkpoint", "precision", "top"}


def test_each_has_a_code() -> None:
    kebab = r"[a-zX]+(-[a-z0-9X]+)*"  # X: filled in
    passed_on = ("code", "error.code")
    without = [raised for raised in RAISED if not re.fullmatch(kebab, raised.code) and raised.code not in passed_on]
    assert not without


def test_errors_are_really_found() -> None:
    assert len(RAISED) > 200
    assert {raised.room.split("/")[0] for raised in RAISED} >= {"model", "data", "engine", "precision", "api", "parity"}
    assert {raised.code for raised in RAISED} >= {"unreadable-image", "keep-range", "manifest-hash"}


def test_a_next_step_belongs_to_a_code_that_exists() -> None:
    assert not set(STEPS) - {raised.code for raised in RAISED} - _GIVEN


def test_no_option_and_no_command_below_the_command_line() -> None:
    for text in BELOW:
        plain = re.sub(OF_OTHERS, "", text.text)
        assert not re.search(rf"tofe-export ({_VERBS}) ", plain), text
        assert not _OPTION.search(plain), text


def test_an_argument_in_a_message_has_an_option() -> None:
    without = [(place, name) for place, name in ARGUMENTS if name not in options() and name not in _WITHOUT_OPTION]
    assert not without
    assert len(ARGUMENTS) > 80


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`keep` and `keep_from` were both given.", "--keep and --keep-from were both given."),
        ("`model` is not known.", "model is not known."),
        ("Give `keep=(8, 5, 3)`.", "Give --keep 8,5,3."),
        ("Give `stages=(3,)`.", "Give --stages 3."),
        ("Give `image_size=(48, 32)`.", "Give --img-size 48x32."),
        ("Give `fuse_token=False`.", "Give --no-fuse-token."),
        ("Give `threshold=True`.", "Give --threshold."),
        ('Give `selector="two words"`.', "Give --selector 'two words'."),
        ('Give `precision="int8"`.', "Give --int8."),
        ("Give `keep=K1,K2`.", "Give --keep K1,K2."),
        ("Nothing here.", "Nothing here."),
        ("An odd ` alone.", "An odd ` alone."),
    ],
)
def test_arguments_become_options(text: str, shown: str) -> None:
    assert as_options(text) == shown


def test_a_users_own_name_stays_as_it_is() -> None:
    name = "a `keep` b/$HOME `x`.onnx"
    assert as_options(f"{name} does not fit `keep`.", [name, 3]) == f"{name} does not fit --keep."


def test_every_kind_of_error_has_an_exit_code() -> None:
    assert {kind.exit_code for kind in TofeError.__subclasses__()} == {1, 2, 3, 130}
    assert str(TofeError("It is so.", "Do this.")) == "It is so. Do this."
