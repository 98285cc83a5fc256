"""Whether a run may begin in a folder, or go on in it, and with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tofe_export.data.images import ImageSource
from tofe_export.documents.history import DENSE
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import InputError, brief
from tofe_export.files.names import CHECKPOINT, STATE
from tofe_export.model.config import ToFeConfig
from tofe_export.training.recipe import values_by_key
from tofe_export.training.run import RunOptions
from tofe_export.training.state import RunState, damaged, load_state

_DECIDES_NOTHING = ("run.checkpointing", "run.compile", "run.channels_last")


def require_free(folder: Path, resume: bool) -> None:
    """Raises InputError where the folder holds a run that is not to be resumed, or a finished one without its state."""
    if resume and (folder / STATE).is_file():
        return
    if not resume and (folder / STATE).exists():
        raise InputError(
            f"{folder} already holds a run.",
            "Continue it with `resume`, or choose another folder.",
            code="run-exists",
            path=folder,
        )
    if (folder / CHECKPOINT).exists():  # a new run's log would lie beside it until it is replaced
        raise InputError(
            f"{folder} holds the {CHECKPOINT} of a finished run, and no {STATE} to continue from.",
            "Choose another folder.",
            code="run-finished",
            path=folder,
        )


def saved_state(
    folder: Path,
    resume: bool,
    recipe: TrainingRecipe,
    options: RunOptions,
    config: ToFeConfig,
    source: ImageSource,
) -> RunState | None:
    """Where the run in `folder` stands; None where it is to begin.

    Raises:
        InputError: one of another recipe, start, network or images; more epochs are allowed. A state that is damaged.
    """
    state = load_state(folder) if resume else None
    if state is None:
        return None
    changed = [
        *_differences(_settings(state.recipe), _settings(recipe.to_dict()), _later_epochs(state)),
        *_differences(state.start, start_of(options)),
        *_differences(_config(state, folder), vars(config)),
        *_differences(state.data, data_of(source)),
    ]
    if changed:
        raise InputError(
            f"The run in {folder} was started with other settings: {'; '.join(changed)}.",
            "Resume with the same settings, or start another run in another folder.",
            code="resumed-with-other-settings",
            path=folder,
            changes=tuple(changed),
        )
    return state


def require_same(places: Sequence[tuple[str, int, int] | None], folder: Path) -> None:
    """Raises InputError where the processes of a run would not begin at one place; see `RunState.place`."""
    if len(set(places)) > 1:
        raise InputError(
            f"Not every process of this run finds the same state in {folder}.",
            "Put the run on a disk that all of its machines share.",
            code="states-differ",
            path=folder,
        )


def start_of(options: RunOptions) -> dict[str, Any]:
    """The weights that a run starts from, as its state says it."""
    return {"pretrained": options.pretrained, "init": None if options.init is None else str(options.init)}


def data_of(source: ImageSource) -> dict[str, Any]:
    """The images that a run trains on, as its state says it; they may have moved, but must be the same."""
    return {"classes": list(source.classes), "training images": len(source)}


def _later_epochs(state: RunState) -> dict[str, int]:
    """Keys that may grow, with the least value that makes sense: what was done stays done."""
    done = {"dense.epochs": 0, "tofe.epochs": 0}
    done["dense.epochs" if state.phase == DENSE else "tofe.epochs"] = state.epochs_done
    if state.phase != DENSE:
        del done["dense.epochs"]
    return done


def _settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Its values by dotted key, without the network, which is compared itself, and without what only changes how fast a
    step is and how much memory it takes."""
    return {
        key: value
        for key, value in values_by_key(recipe).items()
        if not key.startswith("network.") and key not in _DECIDES_NOTHING
    }


def _config(state: RunState, folder: Path) -> Mapping[str, Any]:
    try:
        return vars(ToFeConfig.from_dict(state.config))
    except (TypeError, AttributeError) as error:
        raise damaged(folder) from error


def _differences(
    saved: Mapping[str, Any], now: Mapping[str, Any], growing: Mapping[str, int] | None = None
) -> list[str]:
    """What a saved run was started with and this one is not, as phrases."""
    different = []
    for name in sorted({*saved, *now}, key=str):
        before, after = saved.get(name), now.get(name)
        if before == after or (name == "stage_starts" and not after):  # empty, they were filled in
            continue
        if growing and name in growing and isinstance(after, int) and after >= max(growing[name], before or 0):
            continue
        different.append(f"{name} was {brief(before)} and is now {brief(after)}")
    return different
