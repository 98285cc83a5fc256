"""The head of the page: a few large numbers, and what the model is."""

from __future__ import annotations

from dataclasses import dataclass

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.errors import count
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.page.folder import RunFolder
from tofe_export.page.headline import distinguishing_name, quoted_row
from tofe_export.page.labels import short
from tofe_export.page.parity_tables import largest_difference
from tofe_export.page.wording import digits, interval, percent, times

_FORMS = {"plugin": "ScatterRearrange operator", "elide": "elided"}


@dataclass(frozen=True)
class KeyNumber:
    """One large number: what it is, the number, and what to compare it with."""

    label: str
    value: str
    note: str


def key_numbers(run: RunFolder) -> list[KeyNumber]:
    """Speed-up, cost, agreement, accuracy: those that have been measured."""
    numbers = _speed(run), _cost(run), _agreement(run), _accuracy(run)
    return [number for number in numbers if number is not None]


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """(term, value) pairs that say what the model is; only the exported model's own where it exists."""
    pairs = _of_network(run.checkpoint) if run.checkpoint else []
    keep, manifest = run.keep_counts(), run.manifest
    if keep:
        tokens = run.checkpoint.model.tokens if run.checkpoint else manifest.tokens if manifest else 0
        source = manifest.options.keep_source if manifest else "learned"
        pairs.append(("Keep counts", f"{', '.join(map(str, keep))} of {tokens}" + (f" ({source})" if source else "")))
    if manifest is not None:
        pairs += [("Rearrange", _FORMS[manifest.rearrange]), ("Precision", manifest.precision)]
    if run.checkpoint is not None and run.checkpoint.data:
        pairs.append(("Trained on", run.checkpoint.data))
    return pairs


def _of_network(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    model, size = checkpoint.model, checkpoint.preprocessing
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    pairs = [("Input", f"{size.height} × {size.width} pixels, {model.tokens} patch tokens, {model.prefix} prefix")]
    if len(model.stages):
        blocks = ", ".join(_blocks(part) for part in model.stage_blocks)
        pairs += [
            ("Stages", f"{len(model.stages)}: blocks {blocks} of 0–{len(model.vit.blocks) - 1}"),
            ("Token selector", model.config.selector),
            ("Token approximator", model.config.approximator),
        ]
    else:
        pairs.append(("Stages", "none: it is dense and keeps every token"))
    return [*pairs, ("Parameters", f"{millions:.{1 if millions >= 0.1 else 2}f} million")]


def _blocks(part: range) -> str:
    return f"{part.start}–{part.stop - 1}" if len(part) > 1 else str(part.start)


def _speed(run: RunFolder) -> KeyNumber | None:
    row = quoted_row(run.verifications, run.benchmark)
    if row is None:
        return None
    name = distinguishing_name(run.verifications, run.benchmark, row)
    spread = f", 95\u202f% interval {interval(row)}" if interval(row) else ""
    return KeyNumber("Speed-up", times(row.speedup), f"{name} at batch {row.batch}{spread}".strip())


def _cost(run: RunFolder) -> KeyNumber | None:
    if run.manifest is not None:
        gmacs, dense = run.manifest.gmacs, run.manifest.dense_gmacs
    elif run.checkpoint is not None and run.checkpoint.keep_ratios:
        counts = [float(count) for count in run.checkpoint.keep_counts()]
        gmacs, dense = tofe_macs(run.checkpoint.model, counts) / 1e9, dense_macs(run.checkpoint.model.vit) / 1e9
    else:
        return None
    return KeyNumber("Cost", percent(gmacs / dense), f"{digits(gmacs)} of {digits(dense)} GMACs per image")


def _agreement(run: RunFolder) -> KeyNumber | None:
    shown = run.verification
    if shown is None or shown.logits is None or shown.top1_agreement is None:
        return None
    images, worst = count(shown.samples, "image"), largest_difference(shown.logits)
    note = f"of {images}; logits differ by at most {worst}{_of_which(run)}"
    return KeyNumber("Same class as PyTorch", percent(shown.top1_agreement), note)


def _of_which(run: RunFolder) -> str:
    """Whose number it is, where several were compared."""
    several = run.verifications is not None and len(run.verifications.artifacts) > 1
    return f" ({short(run.verification.model)})" if several and run.verification else ""


def _accuracy(run: RunFolder) -> KeyNumber | None:
    if run.verification is not None and run.verification.accuracy is not None:
        # On the verified images PyTorch is the fair comparison; the training log counted all held-out ones.
        accuracy = run.verification.accuracy
        note = f"PyTorch {percent(accuracy.reference)} on the same images{_of_which(run)}"
        return KeyNumber("Accuracy, deployed", percent(accuracy.deployed), note)
    trained = run.history.final_accuracy(TOFE) if run.history else None
    dense = run.history.final_accuracy(DENSE) if run.history else None
    beside = f"dense backbone {percent(dense)} on all held-out images" if dense is not None else ""
    return KeyNumber("Accuracy, threshold path", percent(trained), beside) if trained is not None else None
