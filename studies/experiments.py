"""What is compared: sets of images, arms (ways to save), and experiments (questions and the arms that answer them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Selection = Literal["learned", "counted", "random", "fused"]
"""How an arm chooses: by a threshold that is trained to a budget, or a given number of tokens: those with the highest
scores, random ones, or those that the CLS token attends to most."""
LEARNED: Selection = "learned"
COUNTED: Selection = "counted"
RANDOM: Selection = "random"
FUSED: Selection = "fused"


@dataclass(frozen=True)
class ImageSet:
    """Images, and the network that learns from them.

    Attributes:
        name: of the set.
        recipe: the shipped recipe that the study's own begins with.
        changes: of its keys.
        stored: pixels of the squares that crops are cut out of.
        seeds: how many an arm is repeated with.
        experiments: those that two cores have the time for; others are run when they are named.
    """

    name: str
    recipe: str
    changes: Mapping[str, object]
    stored: int
    seeds: int
    experiments: tuple[str, ...] = ()


_NARROW = {"network.backbone_args.embed_dim": 64, "network.backbone_args.num_heads": 2}
"""So that two cores are done with everything in twelve hours, as estimated from the first arms; not yet measured."""

SETS = {
    one.name: one
    for one in (
        ImageSet("clothing10", "small", {**_NARROW, "tofe.epochs": 8}, stored=96, seeds=3),
        ImageSet(
            "cifar10",
            "cifar10",
            {**_NARROW, "run.batch_size": 128, "dense.epochs": 3, "tofe.epochs": 1},
            stored=32,
            seeds=5,
            experiments=("approximation",),
        ),
        ImageSet(
            "digits",  # for a smoke run: nothing is learned from it
            "digits",
            {
                **_NARROW,
                "network.selector": "mlp",
                "network.backbone_args.depth": 12,
                "network.backbone_args.img_size": 28,
                "network.backbone_args.patch_size": 7,
                "dense.epochs": 1,
                "tofe.epochs": 1,
                "run.limit_batches": 6,
            },
            stored=0,
            seeds=1,
        ),
    )
}


@dataclass(frozen=True)
class Arm:
    """One way to save: every arm starts with the same dense teacher and makes the same number of steps.

    Attributes:
        name: of the arm.
        selection: how tokens are chosen.
        changes: of the recipe's keys.
        shape: how given counts stand to each other: `geometric` (r, r^2, r^3 of the tokens, as DynamicViT and EViT),
            `uniform` (the same in every stage, up to a token), `all` (nothing is frozen), `half` (half of them in the
            first stage, all in the second); but for the last two, those that cost nearest to the budget.
        selector: a selector of the study's own instead of the recipe's, see `networks`.
        fitted_alone: what estimates miss is for the approximators alone to learn from, see `paths.FittedAlone`.
    """

    name: str
    selection: Selection = LEARNED
    changes: Mapping[str, object] = field(default_factory=dict)
    shape: str = "geometric"
    selector: str = ""
    fitted_alone: bool = False


def _with_budgets(name: str, budgets: tuple[float, ...], selection: Selection, **parts: str) -> list[Arm]:
    network = {f"network.{part}": value for part, value in parts.items()}
    return [Arm(f"{name}-{budget * 100:.0f}", selection, {**network, "tofe.budget": budget}) for budget in budgets]


_BUDGETS = (0.7, 0.5, 0.35)
_KINDS = ("bottleneck", "discard", "dynamicvit", "evit")
"""Ways to save that are compared over all budgets."""
_PARTS = ("bottleneck", "identity")
"""Approximators that are compared over all depths."""
DEPTHS = (2, 4, 6, 9)
REFERENCE, ALONE, DENSE, TEACHER = "bottleneck-50", "bottleneck-alone-50", "dense", "teacher"
"""ToFe with its defaults; the same, but its approximators' loss leaves the backbone alone; the dense network trained as
much longer; and the network that all begin with."""

_ARMS = [
    *_with_budgets("bottleneck", _BUDGETS, LEARNED),
    Arm(ALONE, fitted_alone=True),
    *_with_budgets("identity", (0.5,), LEARNED, approximator="identity"),
    *_with_budgets("block", (0.5,), LEARNED, approximator="block"),
    *_with_budgets("discard", _BUDGETS, LEARNED, approximator="discard"),
    *_with_budgets("evit", _BUDGETS, FUSED, approximator="fuse", selector="cls-attention"),
    *_with_budgets("dynamicvit", _BUDGETS, COUNTED, approximator="discard"),
    Arm(DENSE, COUNTED, shape="all"),
    Arm("learned-counts-50", changes={"tofe.count_rate": 0.01}),
    Arm("linear-50", changes={"network.selector": "linear"}),
    Arm("attention-50", changes={"network.selector": "attention"}),
    Arm("narrow-50", selector="narrow"),
    Arm("shared-50", selector="shared"),
    Arm("uniform-50", COUNTED, shape="uniform"),
    Arm("random-50", RANDOM, shape="uniform"),
    *_with_budgets("cls-discard", (0.5,), FUSED, approximator="discard", selector="cls-attention"),
    *(
        Arm(
            f"{kind}-{blocks}-blocks",
            COUNTED,
            {"network.approximator": kind, "network.stages": (1, 1 + blocks)},
            "half",
            fitted_alone=kind == "bottleneck",
        )
        for blocks in DEPTHS
        for kind in _PARTS
    ),
]
ARMS = {arm.name: arm for arm in _ARMS}


@dataclass(frozen=True)
class Experiment:
    """A question, and the arms that answer it.

    Attributes:
        name: of the experiment.
        question: in a sentence.
        arms: their names.
        against: arm -> the one that it is compared with, where that is not the first.
        compared: what arms are compared with, in words, where that is not one arm.
    """

    name: str
    question: str
    arms: tuple[str, ...]
    against: Mapping[str, str] = field(default_factory=dict)
    compared: str = ""

    def reference(self, arm: str) -> str:
        """The arm that this one is compared with; itself where the others are compared with it."""
        return self.against.get(arm, self.arms[0])


EXPERIMENTS = {
    one.name: one
    for one in (
        Experiment(
            "approximation",
            "Does the estimate of frozen tokens pay for itself?",
            (REFERENCE, ALONE, "identity-50", "block-50", "discard-50", "evit-50", DENSE),
            {"identity-50": ALONE},
            f"`{REFERENCE}` (`identity`: to `{ALONE}`)",
        ),
        Experiment(
            "budget",
            "How does accuracy fall with cost, beside pruning that is trained alike?",
            tuple(f"{kind}-{b * 100:.0f}" for b in _BUDGETS for kind in _KINDS),
            {f"{kind}-{b * 100:.0f}": f"bottleneck-{b * 100:.0f}" for b in _BUDGETS for kind in _KINDS},
            "`bottleneck` with the same budget",
        ),
        Experiment(
            "selector",
            "What does learning the counts bring, and what may a selector cost?",
            (
                *(REFERENCE, "uniform-50", "learned-counts-50", "random-50", "linear-50", "narrow-50", "shared-50"),
                *("attention-50", "cls-discard-50", "dynamicvit-50"),
            ),
            {"random-50": "uniform-50", **dict.fromkeys(("cls-discard-50", "dynamicvit-50"), "dynamicvit-50")},
            f"`{REFERENCE}` (`random`: to `uniform`; `cls-discard`: to `dynamicvit`)",
        ),
        Experiment(
            "depth",
            "Over how many blocks can one small network estimate what they would have done?",
            tuple(f"{kind}-{blocks}-blocks" for blocks in DEPTHS for kind in _PARTS),
            {f"{kind}-{blocks}-blocks": f"identity-{blocks}-blocks" for blocks in DEPTHS for kind in _PARTS},
            "`identity` over as many blocks",
        ),
        Experiment("attention", "Do estimates bring reused tokens closer to the teacher?", (REFERENCE, "block-50")),
        Experiment("counts", "What do fixed numbers of tokens cost?", ("bottleneck-70", REFERENCE, "bottleneck-35")),
        Experiment(
            "reuse", "How many tokens return, and what if they may not?", (REFERENCE, "identity-50", "discard-50")
        ),
    )
}


def arms_of(experiments: tuple[str, ...]) -> list[Arm]:
    """Those of some experiments, in their order, each once."""
    return [ARMS[name] for name in dict.fromkeys(name for one in experiments for name in EXPERIMENTS[one].arms)]
