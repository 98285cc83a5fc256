"""How several processes hold one network: each a whole copy (DDP), or each a part of every weight (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.training.processes import Processes
from tofe_export.training.torchrun import local_rank

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shared(module: nn.Module, model: ToFe, processes: Processes, device: torch.device, shard: bool) -> nn.Module:
    """`module`, whose forward pass runs `model` or its backbone, as several processes train it."""
    if processes.size == 1:
        return module
    if shard:
        mesh = init_device_mesh(device.type, (processes.size,))
        for block in model.vit.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)  # in place
        return module
    on_gpu = device.type == "cuda"
    if on_gpu:  # there is none for a CPU, where each process takes the statistics of its own images
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return DistributedDataParallel(module, device_ids=[local_rank()] if on_gpu else None, gradient_as_bucket_view=True)


def is_sharded(module: nn.Module) -> bool:
    """Whether this process holds a part of the weights only."""
    return any(isinstance(one, DTensor) for one in module.parameters())


def whole_weights(model: ToFe) -> Mapping[str, Tensor]:
    """All weights; where they are sharded the first process has them, on the CPU. Every process must call it."""
    if not is_sharded(model):
        return model.state_dict()
    weights: Mapping[str, Any] = get_model_state_dict(model, options=_WHOLE)
    return weights


def whole_copy(model: ToFe, device: torch.device) -> ToFe:
    """`model` itself, or where it is sharded a whole one with the same weights. Every process must call it."""
    if not is_sharded(model):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    whole = build_tofe(model.config).to(device)
    whole.load_state_dict(weights)
    return whole


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer, shard: bool) -> dict[str, Any]:
    """Its whole state. Every process must call it.

    Of a run that shards by the names of the weights, so that any number of processes can go on with it.
    """
    return get_optimizer_state_dict(module, optimizer, options=_WHOLE) if shard else optimizer.state_dict()


def load_optimizer_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], shard: bool
) -> None:
    """The inverse of `optimizer_state`."""
    if shard:
        set_optimizer_state_dict(module, optimizer, state, options=_WHOLE)
    else:
        optimizer.load_state_dict(state)


def add_to(parameter: nn.Parameter, change: Tensor) -> None:
    """Adds `change` in place, of the shape of the whole parameter."""
    with torch.no_grad():
        if isinstance(parameter, DTensor):
            change = distribute_tensor(change, parameter.device_mesh, parameter.placements)
        parameter.add_(change)
