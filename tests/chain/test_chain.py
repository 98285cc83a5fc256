"""The whole chain on random configurations: a network, its export, ONNX Runtime, and verify's own judgement."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.chain.conftest import DEFAULT, PARTS
from tests.chain.strategies import Case, cases, traits
from tests.helpers import small_tofe
from tofe_export.data.images import Batch
from tofe_export.graph import export
from tofe_export.graph.passes.taps import hide_taps, tap_name
from tofe_export.model.tofe import ToFe
from tofe_export.verify.compare import compare
from tofe_export.verify.opened import OpenedOnnx

TOLERANCE = 1e-4
RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def images_of(case: Case) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(case.batch, 3, *case.size, generator=generator)


def check(case: Case) -> None:
    """Exports `case` and holds it against PyTorch; raises AssertionError where they part."""
    network = small_tofe(**case.network)
    model = export.export_tofe(network, case.keep, case.rearrange, case.taps, case.outputs)
    content = ir.to_proto(model)
    onnx.checker.check_model(content, full_check=True)
    shown = [value.name for value in content.graph.output]
    assert shown[: len(case.outputs)] == list(case.outputs)
    assert case.taps or len(shown) == len(case.outputs)
    runner, images = OpenedOnnx(content.SerializeToString()), images_of(case)
    found = compare(network, runner, case.keep, case.rearrange, [Batch(images, None, ("x",) * case.batch)])
    assert found.failures == [], f"{case}"
    assert found.samples == case.batch
    same_on_the_same_tokens(case, network, runner, images)


def same_on_the_same_tokens(case: Case, network: ToFe, runner: OpenedOnnx, images: torch.Tensor) -> None:
    """What verify says, without verify."""
    outputs = runner.run(images.numpy())
    chosen = {
        stage: torch.from_numpy(outputs[tap_name(stage, "perm")])
        for stage in range(len(case.keep))
        if tap_name(stage, "perm") in outputs
    }
    with torch.no_grad():
        expected = network.forward_fixed(images, case.keep, case.rearrange, chosen, "features" in case.outputs)
    assert set(chosen) == {trace.index for trace in expected.stages}
    for name in case.outputs:
        wanted = getattr(expected, name).numpy()
        np.testing.assert_allclose(outputs[name], wanted, rtol=TOLERANCE, atol=TOLERANCE, err_msg=f"{case}")


def test_random_configurations_export_run_and_match(part: int, examples: int | None) -> None:
    if examples is None:
        run = settings(max_examples=DEFAULT // PARTS, suppress_health_check=RELAXED, derandomize=False, database=None)
        seed(part)(run(given(cases())(check)))()
    else:  # new ones each time; what fails is printed with how to see it again
        explore = settings(max_examples=examples, suppress_health_check=RELAXED, derandomize=False, print_blob=True)
        explore(given(cases())(check))()


def drawn() -> list[Case]:
    """The default configurations, without exporting them."""
    found: list[Case] = []

    def keep(case: Case) -> None:
        found.append(case)

    for part in range(PARTS):
        run = settings(
            max_examples=DEFAULT // PARTS,
            suppress_health_check=RELAXED,
            derandomize=False,
            database=None,
            phases=[Phase.generate],
        )
        seed(part)(run(given(cases())(keep)))()
    return found


def test_the_configurations_cover_what_a_user_can_choose() -> None:
    every = drawn()
    assert len(every) >= DEFAULT
    assert len({repr(case) for case in every}) >= 0.9 * DEFAULT, "hardly any is drawn twice"
    count = Counter(trait for case in every for trait in traits(case))
    wanted = {
        *(f"selector {name}" for name in ("mlp", "linear", "attention", "cls-attention", "none")),
        *(f"approximator {name}" for name in ("bottleneck", "identity", "block", "discard", "fuse")),
        *(f"backbone {name}" for name in ("vit_tiny_patch16_224", "lvvit_t", "lvvit_s", "lvvit_l")),
        *(f"depth {depth}" for depth in (1, 2, 3, 4)),
        *(f"{stages} stages" for stages in (0, 1, 2)),
        *(f"batch {batch}" for batch in (1, 2, 3, 5)),
        *(f"outputs {names}" for names in ("logits", "features", "logits+features")),
        *("plugin", "elide", "taps", "no taps", "square", "not square", "pool avg", "pool token", "CLS", "no CLS"),
        *("registers 0", "registers 1", "registers 2", "dense output", "keeps one", "keeps all", "keeps some"),
    }
    rare = {trait: count[trait] for trait in wanted if count[trait] < 5}
    assert rare == {}


def one_more(partition: Callable[..., object]) -> Callable[..., object]:
    """A token more than was asked for, where there is one."""

    def wrong(x: torch.Tensor, scores: torch.Tensor, keep: int, prefix: int) -> object:
        return partition(x, scores, min(keep + 1, scores.shape[1] - 1), prefix)

    return wrong


def turned(partition: Callable[..., object]) -> Callable[..., object]:
    """The lowest scores first."""

    def wrong(x: torch.Tensor, scores: torch.Tensor, keep: int, prefix: int) -> object:
        return partition(x, -scores, keep, prefix)

    return wrong


@pytest.mark.parametrize("fault", [one_more, turned], ids=["one token more", "lowest first"])
def test_a_fault_in_the_exported_graph_is_found(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., object]) -> None:
    """The export of a spoilt partition, against the right one: the property must not hold."""
    from tofe_export.model import stage

    case = next(
        case
        for case in drawn()
        if case.network["selector"] == "mlp" and any(1 < count < case.tokens - 1 for count in case.keep)
    )
    trace, right = export._trace, stage.token_partition

    def spoilt(*arguments: object) -> ir.Model:
        monkeypatch.setattr(stage, "token_partition", fault(right))
        try:
            return trace(*arguments)  # type: ignore[arg-type]
        finally:
            monkeypatch.setattr(stage, "token_partition", right)

    check(case)
    monkeypatch.setattr(export, "_trace", spoilt)
    with pytest.raises(AssertionError):
        check(case)


def test_hidden_taps_leave_the_outputs() -> None:
    """The strategy's `taps` is what the file shows, nothing else."""
    model = export.export_tofe(small_tofe(depth=1, stage_starts=(0,)), (5,), True, taps=True)
    assert len(model.graph.outputs) == 4
    assert hide_taps(model)
    assert [output.name for output in model.graph.outputs] == ["logits"]
