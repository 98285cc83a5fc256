"""The head of the page: one line (does the model give the same answers, and is it faster?), large numbers, and facts.

Speed is that of what was compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.benchmark import Benchmark, BenchRow
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.documents.verification import Verification
from tofe_export.errors import count
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.page.folder import RunFolder
from tofe_export.page.labels import short
from tofe_export.page.wording import digits, interval, measured, percent, times

Tone = Literal["good", "bad", "open"]
"""Whether something holds, does not hold, or has not been checked."""
WORDS: dict[Tone, str] = {"good": "Passed", "bad": "Attention", "open": "Unfinished"}
_ROOM = 60  # characters of a name in the page's one line
_FORMS = {"plugin": "ScatterRearrange operator", "elide": "elided"}


class KeyNumber(NamedTuple):
    """One large number: what it is, the number, and what to compare it with."""

    label: str
    value: str
    note: str


def headline(artifacts: Sequence[Verification], benchmark: Benchmark | None) -> tuple[str, Tone]:
    """The line and its tone."""
    parity, parity_tone = _parity(artifacts)
    speed, speed_tone = _speed(artifacts, benchmark)
    tones: tuple[Tone, ...] = ("bad", "open", "good")
    return f"{parity} {speed}", next(tone for tone in tones if tone in (parity_tone, speed_tone))


def quoted_row(artifacts: Sequence[Verification], benchmark: Benchmark | None) -> BenchRow | None:
    """The row to quote, of a model that agrees with PyTorch where there is one.

    At the smallest batch, where token reduction has it hardest; the fastest model there.
    """
    rows = [row for row in benchmark.rows if not row.dense] if benchmark else []
    compared = [row for row in rows if row.name in _agreeing(artifacts)]
    return min(compared or rows, key=lambda row: (row.batch, -row.speedup), default=None)


def key_numbers(run: RunFolder) -> list[KeyNumber]:
    """Speed-up, cost, agreement, accuracy: those that have been measured."""
    numbers = _speed_up(run), _cost(run), _agreement(run), _accuracy(run)
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


def _agreeing(artifacts: Sequence[Verification]) -> set[str]:
    return {artifact.model for artifact in artifacts if artifact.passed}


def _distinguishing_name(artifacts: Sequence[Verification], benchmark: Benchmark, row: BenchRow) -> str:
    """The row's model, "" where there is no other it could be taken for."""
    timed = {other.name for other in benchmark.rows if not other.dense}
    return short(row.name, _ROOM) if len(timed | {artifact.model for artifact in artifacts}) > 1 else ""


def _parity(artifacts: Sequence[Verification]) -> tuple[str, Tone]:
    if not artifacts:
        return "Not yet compared with PyTorch.", "open"
    if len(artifacts) == 1:
        return _of_one(artifacts[0])
    failed = [artifact for artifact in artifacts if artifact.passed is False]
    if failed:
        return f"Not fit to deploy: {_names(failed)}. {_first_failure(failed[0])}".strip(), "bad"
    unchecked = [artifact for artifact in artifacts if artifact.passed is None]
    if unchecked:
        passed = len(artifacts) - len(unchecked)
        return f"{passed} of {len(artifacts)} artifacts agree with PyTorch; not checked: {_names(unchecked)}.", "open"
    if not all(artifact.samples for artifact in artifacts):
        return "At least one artifact was compared with PyTorch on no image at all.", "open"
    return f"All {len(artifacts)} artifacts agree with PyTorch.{_limits(artifacts)}", "good"


def _of_one(artifact: Verification) -> tuple[str, Tone]:
    if artifact.passed is None:
        return f"Not compared with PyTorch: {artifact.error.message if artifact.error else ''}", "open"
    if not artifact.passed:
        return f"Not fit to deploy: {_first_failure(artifact) or 'The comparison with PyTorch failed.'}", "bad"
    if not artifact.samples:
        return "Compared with PyTorch on no image at all.", "open"
    limits, images = _limits([artifact]), count(artifact.samples, "image")
    if artifact.top1_agreement is None:
        return f"Within the limits of PyTorch on {images}.{limits}", "good"
    if artifact.top1_agreement == 1:
        return f"Same class as PyTorch for {'all ' if artifact.samples > 1 else ''}{images}.{limits}", "good"
    return f"Same class as PyTorch for {percent(artifact.top1_agreement)} of {images}.{limits}", "good"


def _names(artifacts: Sequence[Verification]) -> str:
    return ", ".join(short(artifact.model, _ROOM) for artifact in artifacts)


def _first_failure(artifact: Verification) -> str:
    return next(iter(artifact.failures), artifact.error.message if artifact.error else "")


def _limits(artifacts: Sequence[Verification]) -> str:
    return " Some limits were set by hand." if any(artifact.overridden for artifact in artifacts) else ""


def _speed(artifacts: Sequence[Verification], benchmark: Benchmark | None) -> tuple[str, Tone]:
    row = quoted_row(artifacts, benchmark)
    if row is None or benchmark is None:
        return "Not yet timed.", "open"
    name = _distinguishing_name(artifacts, benchmark, row)
    sentence, tone = _of_row(row, name, benchmark.dense_of(row))
    slower = [other.batch for other in benchmark.rows if other.subject == row.subject and _surely_slower(other)]
    if tone == "good" and slower:
        sentence, tone = f"{sentence} Slower at batch {', '.join(map(str, slower))}.", "bad"
    gate = benchmark.baseline
    if gate is not None and not gate.passed:
        regressed = any(judged.verdict == "regressed" for judged in gate.rows)
        reason = f"Slower than {gate.file} allows." if regressed else f"Not every row of {gate.file} was timed."
        return f"{sentence} {reason}", "bad"
    if tone == "good" and _agreeing(artifacts) and row.name not in _agreeing(artifacts):
        return f"{sentence} The model that was timed is not the one that was compared.", "open"
    return sentence, tone


def _surely_slower(row: BenchRow) -> bool:
    """By its whole interval, where there is one."""
    return (row.speedup if row.speedup_high is None else row.speedup_high) < 1


def _of_row(row: BenchRow, name: str, dense: BenchRow | None) -> tuple[str, Tone]:
    backbone = "the dense backbone"
    if dense is not None and dense.precision and dense.precision != row.precision:
        backbone += f" in {dense.precision}"
    place = f"{name}, at batch {row.batch}" if name else f"At batch {row.batch}"
    if row.speedup_low is not None and row.speedup_high is not None and row.speedup_low <= 1 <= row.speedup_high:
        return f"{place}: not measurably faster or slower than {backbone}.", "bad"
    if row.speedup < 1:
        return f"{place}: slower than {backbone} ({times(row.speedup)} as fast).", "bad"
    return f"{place}: faster than {backbone} ({times(row.speedup)} as fast).", "good"


def _speed_up(run: RunFolder) -> KeyNumber | None:
    row = quoted_row(run.artifacts, run.benchmark)
    if row is None or run.benchmark is None:
        return None
    name = _distinguishing_name(run.artifacts, run.benchmark, row)
    spread = f", 95\u202f% interval {interval(row)}" if interval(row) else ""
    return KeyNumber("Speed-up", times(row.speedup), f"{name} at batch {row.batch}{spread}".strip())


def _cost(run: RunFolder) -> KeyNumber | None:
    if run.manifest is not None:
        gmacs, dense = run.manifest.gmacs, run.manifest.dense_gmacs
    elif run.checkpoint is not None and run.checkpoint.keep_ratios:
        model, keep = run.checkpoint.model, [float(kept) for kept in run.checkpoint.keep_counts()]
        gmacs, dense = tofe_macs(model, keep) / 1e9, dense_macs(model.vit) / 1e9
    else:
        return None
    return KeyNumber("Cost", percent(gmacs / dense), f"{digits(gmacs)} of {digits(dense)} GMACs per image")


def _agreement(run: RunFolder) -> KeyNumber | None:
    compared = run.verification
    if compared is None or compared.logits is None or compared.top1_agreement is None:
        return None
    images, worst = count(compared.samples, "image"), measured(compared.logits.max_abs)
    note = f"of {images}; logits differ by at most {worst}{_of_which(run)}"
    return KeyNumber("Same class as PyTorch", percent(compared.top1_agreement), note)


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


def _of_which(run: RunFolder) -> str:
    """Whose number it is, where several were compared."""
    return f" ({short(run.verification.model)})" if run.verification and len(run.artifacts) > 1 else ""


def _of_network(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    model, size = checkpoint.model, checkpoint.preprocessing
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    pairs = [("Input", f"{size.height} × {size.width} pixels, {model.tokens} patch tokens, {model.prefix} prefix")]
    if len(model.stages):
        blocks = ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in model.stage_blocks)
        pairs += [
            ("Stages", f"{len(model.stages)}: blocks {blocks} of 0–{len(model.vit.blocks) - 1}"),
            ("Token selector", model.config.selector),
            ("Token approximator", model.config.approximator),
        ]
    else:
        pairs.append(("Stages", "none: it is dense and keeps every token"))
    return [*pairs, ("Parameters", f"{millions:.{1 if millions >= 0.1 else 2}f} million")]
