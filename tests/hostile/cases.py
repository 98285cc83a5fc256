"""Every case there is."""

from __future__ import annotations

from tests.hostile import (
    checkpoints,
    documents,
    environments,
    manifests,
    models,
    names,
    options,
    outputs,
    pictures,
    states,
    terminals,
    trainings,
    tunings,
)
from tests.hostile.case import FINE, VERBS, Case
from tests.hostile.commands import basic

_FAMILIES = (
    options,
    checkpoints,
    states,
    models,
    manifests,
    documents,
    trainings,
    tunings,
    pictures,
    names,
    outputs,
    environments,
    terminals,
)


def all_cases() -> list[Case]:
    """All of them, in an order that does not change; each verb once as it should be used, to see that it works."""
    control = [basic("control", verb, "as it should be", codes=FINE | {3}) for verb in VERBS if verb != "demo"]
    cases = [*control, *(case for family in _FAMILIES for case in family.cases())]
    called = [case.name for case in cases]
    assert len(set(called)) == len(called), [name for name in called if called.count(name) > 1]
    return cases


_CHEAP = {"ck.pth", "ck.safetensors", "small.pth", "model.onnx", "model.onnx.json", "images", "few.toml"}
_SAMPLE = 40


def sample() -> list[Case]:
    """Some that are refused before anything is computed, spread over all."""
    cheap = [
        case
        for case in all_cases()
        if case.codes <= {2, 3} and _CHEAP.issuperset(case.kit) and not case.real and case.verb != "train"
    ]
    return cheap[:: -(-len(cheap) // _SAMPLE)]
