"""Recipes from which networks are trained, and the options that replace their values."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.case import FINE, REFUSED, Case
from tests.hostile.commands import basic
from tests.hostile.documents import ANYTHING
from tests.hostile.kit import FEW

_RUNS = FINE | REFUSED
_HUGE = "9" * 30
_GOOD = "[tofe]\nepochs = 1\n"

RECIPES: dict[str, str | bytes] = {
    "not TOML": "{json: no}",
    "not UTF-8": b"[tofe]\nlr = 1e-3 # \xff\n",
    "UTF-16": _GOOD.encode("utf-16"),
    "its table twice": _GOOD + _GOOD,
    "a key twice": _GOOD + "epochs = 2\n",
    "a name of its own": 'name = "x"\n' + _GOOD,
    "a table nobody knows": _GOOD + "[oven]\nheat = 5\n",
    "a key nobody knows": _GOOD + "epoch = 5\n",
    "a recipe of calibration": FEW,
    "a table that is a list": "tofe = [1]\n",
    "a table that is a number": "run = 5\n",
    "tables in a list": "[[tofe]]\nepochs = 1\n",
    "a learning rate that is not a number": _GOOD + "lr = nan\n",
    "an infinite learning rate": _GOOD + "lr = inf\n",
    "a negative learning rate": _GOOD + "lr = -1.0\n",
    "a learning rate of 10^400": _GOOD + "lr = 1" + "0" * 400 + "\n",
    "a learning rate that is text": _GOOD + 'lr = "fast"\n',
    "a learning rate that is a date": _GOOD + "lr = 2024-01-01\n",
    "a budget of 2": _GOOD + "budget = 2.0\n",
    "a budget that cannot be met": _GOOD + "budget = 1e-9\n",
    "epochs of 10,000 digits": "[tofe]\nepochs = " + "9" * 10_000 + "\n",
    "epochs that are true": "[tofe]\nepochs = true\n",
    "a temperature of zero": _GOOD + "temperature_end = 0.0\n",
    "a temperature of 1e-300": _GOOD + "temperature_end = 1e-300\n",
    "a batch of 10^30": "[run]\nbatch_size = 1" + "0" * 30 + "\n",
    "parts that do not fit the batch": "[run]\nbatch_size = 4\naccumulate = 3\n",
    "a negative seed": "[run]\nseed = -1\n",
    "a precision nobody knows": '[run]\nprecision = "fp4"\n',
    "no held-out image": "[run]\nlimit_val = 0\n",
    "a crop the wrong way round": "[images]\nscale = [0.9, 0.1]\n",
    "a crop of three numbers": "[images]\nscale = [0.1, 0.2, 0.3]\n",
    "a crop that is not a number": "[images]\nscale = [nan, 1.0]\n",
    "an augmentation nobody knows": '[images]\nauto_augment = "magic"\n',
    "an augmentation of code": """[images]\nauto_augment = "__import__('os').system('touch CANARY')"\n""",
    "an odd batch to mix": "[images]\nmixup = 0.8\n[run]\nbatch_size = 3\n",
    "an optimizer nobody knows": '[optimizer]\nname = "abacus"\n',
    "an optimizer with an end of line": '[optimizer]\nname = """adamw\n"""\n',
    "betas of 1": "[optimizer]\nbetas = [1.0, 1.0]\n",
    "a backbone nobody knows": '[network]\nbackbone = "vit_tny"\n',
    "a backbone with NUL": '[network]\nbackbone = "a\\u0000b"\n',
    "arguments that are a list": "[network]\nbackbone_args = [1]\n",
    "arguments that read a file": '[network.backbone_args]\ncheckpoint_path = "images/dark/0.png"\n',
    "stages of text": '[network]\nstages = ["one"]\n',
    "stages of 10^30": "[network]\nstages = [1" + "0" * 30 + "]\n",
    "positions nobody knows": '[network]\npositions = "here"\n',
    "deep tables": "[" + ".".join("a" for _ in range(5_000)) + "]\nb = 1\n",
    "deep lists": "data = " + "[" * 100_000 + "\n",
}
_REPLACED = (
    *("a backbone nobody knows", "a backbone with NUL", "arguments that are a list", "arguments that read a file"),
    "stages of 10^30",  # another backbone leaves them out
)
_CHEAP = ("--set", "run.limit_batches=1")

_SETS = (
    *("", "=", ".", "x", "tofe", "tofe.budget", "tofe.budget=", ".=1", "tofe.=1", ".budget=1", "a.b=1", "name.x=1"),
    *("tofe.budget=NaN", "tofe.budget=Infinity", "tofe.budget=1e400", "tofe.budget=2", "tofe.budget=half"),
    *("tofe.budget=[0.5]", "tofe.budget={}", "tofe.budget=null", "tofe.budget.x=1", "tofe.lr=-1", f"run.seed={_HUGE}"),
    *("run.seed=-1", "run.seed=true", "run.precision=fp4", "run.batch_size=0", f"run.batch_size={_HUGE}"),
    *("run.accumulate=3", "run.limit_val=0", "images.scale=[0.9,0.1]", "images.scale=[NaN,1]", "images.scale=[0.5"),
    *("images.auto_augment=magic", "optimizer.name=abacus", "optimizer.betas=[1,1]", "network.stages=[3,2,1]"),
    *("network.backbone_args=7", "network.backbone_args.checkpoint_path=ck.pth", "network.backbone_args.__class__=1"),
    *("network.positions=here", "tofe.temperature_end=0", "__class__.x=1", f"tofe.lr={'[' * 9999}"),
    f"tofe.epochs={'9' * 5000}",
)
_OTHERS: dict[str, tuple[str, ...]] = {
    "--recipe": (
        "",
        "nothing",
        "imagenet",
        "nowhere.toml",
        ".toml",
        "images",
        "~nobody-of-that-name/x.toml",
        "/dev/null",
    ),
    "--save-minutes": ("-1", "nan", "inf", "1e400", "1e7", "soon"),
    "--log-to": ("", "abacus", "tensorboard,", ",", "Tensorboard", "tensorboard;wandb"),
}


def cases() -> Iterator[Case]:
    """All of this family."""
    for what, content in RECIPES.items():
        yield _recipe(what, content)
    for what in ("empty", "a folder", "a link to itself", "with a byte order mark"):
        spoil = ANYTHING[what]

        def prepare(work, spoil=spoil):
            (work / "mine.toml").write_text(_GOOD)
            spoil(work / "mine.toml")

        codes = REFUSED if what.startswith("a ") else _RUNS
        yield basic(
            "trainings", "train", f"a recipe: {what}", "--recipe", "mine.toml", *_CHEAP, prepare=prepare, codes=codes
        )
    for value in _SETS:
        yield basic("trainings", "train", f"--set {value[:50]}", "--set", value, codes=REFUSED)
    for option, values in _OTHERS.items():
        for value in values:
            yield basic("trainings", "train", f"{option} {value}", option, value, codes=REFUSED)
    for what, more in {
        "a value given twice": ("--set", "tofe.ramp=0.1", "--set", "tofe.ramp=0.2"),
        "a value and its option": ("--set", "tofe.budget=0.5", "--budget", "0.5"),
        "a log given twice": ("--log-to", "tensorboard,tensorboard"),
        "a run that is not there to go on": ("--resume",),
    }.items():
        codes = REFUSED if what.startswith("a value") else _RUNS
        writes = ("new/tensorboard", "new/tensorboard/*")
        yield basic("trainings", "train", what, *more, *_CHEAP, codes=codes, writes=writes)


def _recipe(what: str, content: str | bytes) -> Case:
    raw = content if isinstance(content, bytes) else content.encode()
    case = basic(
        "trainings", "train", f"a recipe: {what}", "--recipe", "mine.toml", *_CHEAP,
        prepare=lambda work: (work / "mine.toml").write_bytes(raw), codes=REFUSED,
    )  # fmt: skip
    return case.but(arguments=_without(case.arguments, what))


def _without(arguments: tuple[str | bytes, ...], what: str) -> tuple[str | bytes, ...]:
    """The call without the options that would replace what is wrong with the recipe."""
    dropped = {"--batch-size"} if "batch" in what else {"--epochs"} if "epochs" in what else set[str]()
    dropped |= {"--backbone", "--backbone-args"} if what in _REPLACED else set()
    kept: list[str | bytes] = []
    for place, word in enumerate(arguments):
        if word not in dropped and (place == 0 or arguments[place - 1] not in dropped):
            kept.append(word)
    return tuple(kept)
