"""The head of the page: a few large figures, and what the model is."""

from __future__ import annotations

from dataclasses import dataclass

from tofe_export.errors import count
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.report.folder import RunFolder
from tofe_export.report.history import DENSE, TOFE
from tofe_export.report.labels import short
from tofe_export.report.verdict import named, quoted
from tofe_export.report.wording import difference, gmacs, percent, span, times


@dataclass(frozen=True)
class Figure:
    """One large number: what it is, the number, and what to hold it against."""

    label: str
    value: str
    note: str


def figures(found: RunFolder) -> list[Figure]:
    """Speed-up, cost, agreement, accuracy: those that have been measured."""
    made = [_speed(found), _cost(found), _agreement(found), _accuracy(found)]
    return [figure for figure in made if figure is not None]


def facts(found: RunFolder) -> list[tuple[str, str]]:
    """(term, value) pairs that say what the model is; only the exported model's own where it exists."""
    made: list[tuple[str, str]] = []
    if found.checkpoint is not None:
        model = found.checkpoint.model
        blocks = ", ".join(_blocks(part) for part in model.stage_blocks)
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        size = found.checkpoint.preprocessing
        made += [
            ("Input", f"{size.height} × {size.width} pixels, {model.tokens} patch tokens, {model.prefix} prefix"),
        ]
        if len(model.stages):
            made += [
                ("Stages", f"{len(model.stages)}: blocks {blocks} of 0–{len(model.vit.blocks) - 1}"),
                ("Token selector", model.config.selector),
                ("Token approximator", model.config.approximator),
            ]
        else:
            made.append(("Stages", "none: it is dense and keeps every token"))
        made.append(("Parameters", f"{parameters:.1f} million" if parameters >= 0.1 else f"{parameters:.2f} million"))
    keep = found.keep_counts()
    if keep:
        tokens = found.checkpoint.model.tokens if found.checkpoint else (found.manifest or {}).get("tokens")
        of = f" of {tokens}" if tokens else ""
        made.append(("Keep counts", ", ".join(map(str, keep)) + of + _keep_source(found)))
    if found.manifest is not None:
        form = {"plugin": "ScatterRearrange operator", "elide": "elided"}
        how = str(found.manifest.get("rearrange", ""))
        made.append(("Rearrange", form.get(how, how)))
        made.append(("Precision", str(found.manifest.get("precision", "unknown"))))
    if found.checkpoint is not None and found.checkpoint.data:
        made.append(("Trained on", found.checkpoint.data))
    return [(term, value) for term, value in made if value]


def _blocks(part: range) -> str:
    return f"{part.start}–{part.stop - 1}" if len(part) > 1 else str(part.start)


def _keep_source(found: RunFolder) -> str:
    source = "learned" if found.manifest is None else str((found.manifest.get("options") or {}).get("keep_source", ""))
    return f" ({source})" if source else ""


def _speed(found: RunFolder) -> Figure | None:
    row = quoted(found.evidence, found.benchmark)
    if row is None:
        return None
    name = named(found.evidence, found.benchmark, row)
    interval = ""
    if row.speedup_low is not None and row.speedup_high is not None:
        interval = f", 95\u202f% interval {span(row.speedup_low, row.speedup_high)}"
    return Figure("Speed-up", times(row.speedup), f"{name} at batch {row.batch}{interval}".strip())


def _cost(found: RunFolder) -> Figure | None:
    if found.manifest is not None and {"gmacs", "dense_gmacs"} <= set(found.manifest):
        mine, dense = float(found.manifest["gmacs"]), float(found.manifest["dense_gmacs"])
    elif found.checkpoint is not None and found.checkpoint.keep_ratios:
        counts = [float(count) for count in found.checkpoint.keep_counts()]
        mine, dense = tofe_macs(found.checkpoint.model, counts) / 1e9, dense_macs(found.checkpoint.model.vit) / 1e9
    else:
        return None
    return Figure("Cost", percent(mine / dense), f"{gmacs(mine)} of {gmacs(dense)} GMACs an image")


def _agreement(found: RunFolder) -> Figure | None:
    if found.verification is None or found.verification.logits is None or found.verification.top1_agreement is None:
        return None
    worst = found.verification.logits.max_abs
    images = count(found.verification.samples, "image")
    note = f"of {images}; logits differ by at most {difference(worst)}{_of_which(found)}"
    return Figure("Same class as PyTorch", percent(found.verification.top1_agreement), note)


def _of_which(found: RunFolder) -> str:
    """Whose figure it is, where several were compared."""
    several = found.evidence is not None and len(found.evidence.artefacts) > 1
    return f" ({short(found.verification.model)})" if several and found.verification else ""


def _accuracy(found: RunFolder) -> Figure | None:
    dense = found.history.final_accuracy(DENSE) if found.history else None
    beside = f"dense backbone {percent(dense)} on all held-out images" if dense is not None else ""
    if found.verification is not None and found.verification.accuracy_deployed is not None:
        # On the verified images PyTorch is the fair comparison; the training log counted all held-out ones.
        reference = found.verification.accuracy_reference
        note = (f"PyTorch {percent(reference)} on the same images" if reference is not None else "") + _of_which(found)
        return Figure("Accuracy, deployed", percent(found.verification.accuracy_deployed), note)
    trained = found.history.final_accuracy(TOFE) if found.history else None
    return Figure("Accuracy, threshold path", percent(trained), beside) if trained is not None else None
