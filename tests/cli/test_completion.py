"""What bash completes, through the script that --show-completion prints."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_WRAPPER = f"""#!/bin/bash
exec {shlex.quote(sys.executable)} -P -m tofe_export "$@"
"""
_COMPLETE = """
source <(tofe-export --show-completion) || exit 1
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_tofe_export_completion tofe-export
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "tofe-export"
    program.write_text(_WRAPPER)
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "SHELL": "/bin/bash"}


def completed(environment: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    typed = ["tofe-export", *words]
    done = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", *typed], check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ver"], ["verify"]),
        (["onnx", "--keep-"], ["--keep-from", "--keep-quantile", "--keep-samples", "--keep-rate"]),
        (["onnx", "c.pth", "--data", "d"], ["digits"]),
        (["quantize", "m.onnx", "--recipe", ""], ["conservative", "digits", "imagenet", "matmuls"]),
        (["train", "--backbone", "lvvit_"], ["lvvit_t", "lvvit_s", "lvvit_m", "lvvit_l"]),
        (["train", "--data", "./"], []),  # bash itself completes files
    ],
)
def test_what_bash_offers(environment: dict[str, str], words: list[str], offered: list[str]) -> None:
    assert completed(environment, *words) == offered


def test_installing_it(environment: dict[str, str], tmp_path: Path) -> None:
    def bash(script: str) -> str:
        done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True, env=environment)
        return done.stdout

    assert "bash completion installed" in bash("tofe-export --install-completion; true")
    assert (
        bash("source ~/.bashrc && complete -p tofe-export").strip()
        == "complete -o default -F _tofe_export_completion tofe-export"
    )


_HEAVY = """
import sys
sys.argv = ["tofe-export"]
from tofe_export.cli.main import main
try:
    main()
except SystemExit:
    pass
print("HEAVY", sorted({"torch", "numpy", "onnx", "timm", "onnxruntime", "PIL"} & set(sys.modules)))
"""


def test_completing_imports_nothing_heavy() -> None:
    asked = {
        "_TOFE_EXPORT_COMPLETE": "complete_bash",
        "COMP_WORDS": "tofe-export quantize m --recipe ",
        "COMP_CWORD": "4",
    }
    done = subprocess.run(
        [sys.executable, "-c", _HEAVY], capture_output=True, text=True, check=True, env={**os.environ, **asked}
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "imagenet" in done.stdout
