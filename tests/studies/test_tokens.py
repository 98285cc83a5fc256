"""What became of tokens, of networks in which that is known."""

import pytest
import torch
from torch import Tensor, nn

from studies import tokens
from tests.helpers import small_images, small_tofe
from tofe_export.model import backbones
from tofe_export.model.selector import Choose
from tofe_export.model.tofe import ToFe


def by_bits() -> Choose:
    """Token t is kept in stage s where bit s of t is set."""

    def choose(stage: int, logits: Tensor) -> Tensor:
        places = torch.arange(logits.shape[1])
        return ((places >> stage) & 1).float().expand(len(logits), -1)

    return choose


def test_every_history_is_counted() -> None:
    found = tokens.histories(small_tofe(), by_bits, small_images(3))
    assert found == dict.fromkeys(("FFF", "FFK", "FKF", "FKK", "KFF", "KFK", "KKF", "KKK"), 1 / 8)


def still(network: ToFe) -> ToFe:
    """Blocks that leave tokens as they are."""
    for block in network.vit.blocks:
        for part in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    return network


def test_the_error_is_what_the_approximator_adds() -> None:
    network = still(small_tofe(approximator="bottleneck"))
    first = network.stages[0].approximator
    for stage in network.stages:
        if stage.approximator is not None:
            nn.init.zeros_(stage.approximator.up.weight)
            nn.init.zeros_(stage.approximator.up.bias)
    nn.init.constant_(first.up.bias, 0.5)
    images = small_images(3)
    _, (dense,) = backbones.dense_tokens(network.vit, images, [network.stage_blocks[0].stop])
    found = tokens.errors(network, network.vit, by_bits, images)
    assert found[0]["stage"] == 0
    before, after = found[0]["all"]["before"], found[0]["all"]["after"]
    assert before == pytest.approx(0, abs=1e-6)
    assert after == pytest.approx(0.25 / float(dense[:, 1:].detach().square().mean()), rel=1e-4)
    assert found[0]["all"]["tokens"] == 3 * 8
    assert found[1]["for-1"]["tokens"] == 3 * 4  # frozen in the second stage alone
    assert found[1]["for-2"]["tokens"] == 3 * 4  # and in the first
    # Those that the first stage moved are off by as much still; those that it kept are not.
    assert found[1]["for-2"]["after"] == pytest.approx(after, rel=1e-4)
    assert found[1]["for-1"]["after"] == pytest.approx(0, abs=1e-6)


def test_object_border_and_background_share_the_tokens_out() -> None:
    network = small_tofe()
    kinds = tokens._kinds(network.vit, small_images(2))
    total = sum(one.int() for one in kinds.values())
    assert (total == 1).all()
    assert kinds["border"].sum(dim=1).tolist() == [12, 12]  # of 4 x 4
    assert kinds["object"].sum(dim=1).tolist() == kinds["background"].sum(dim=1).tolist() == [2, 2]
