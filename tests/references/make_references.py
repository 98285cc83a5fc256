"""Compute every case and write logits.json: `python -m tests.references.make_references`."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.references.numpy_vits import Run, run_case
from tests.references.weights import Case, make_images, make_weights

DESTINATION = Path(__file__).with_name("logits.json")

# A gap at the cut must be out of reach of float32's rounding, or a correct network could keep another token.
SMALLEST_MARGIN = 1e-5
SMALLEST_RELATIVE_MARGIN = 5e-3  # of the scores' standard deviation

# Of 40 images_seeds each selecting case has the one with the widest relative margins.
CASES = (
    Case("deit_tiny", "dense", "deit_tiny_patch16_224", 101, 1),
    Case("deit_small", "dense", "deit_small_patch16_224", 102, 1),
    Case("lvvit_t", "dense", "lvvit_t", 103, 1),
    Case("lvvit_s", "dense", "lvvit_s", 104, 1),
    Case("lvvit_m", "dense", "lvvit_m", 105, 1, images=1),
    Case("lvvit_l", "dense", "lvvit_l", 106, 1, images=1),
    Case("dynamicvit_deit_small_0.7", "dynamicvit", "deit_small_patch16_224", 201, 20, rate=0.7),
    Case("dynamicvit_deit_small_0.5", "dynamicvit", "deit_small_patch16_224", 202, 30, rate=0.5),
    Case("dynamicvit_deit_base_0.7", "dynamicvit", "deit_base_patch16_224", 203, 9, images=1, rate=0.7),
    Case("dynamicvit_lvvit_s_0.7", "dynamicvit", "lvvit_s", 204, 15, rate=0.7),
    Case("dynamicvit_lvvit_s_0.5", "dynamicvit", "lvvit_s", 205, 25, rate=0.5),
    Case("dynamicvit_lvvit_m_0.7", "dynamicvit", "lvvit_m", 206, 11, images=1, rate=0.7),
    Case("evit_deit_small_0.7_fused", "evit", "deit_small_patch16_224", 301, 2, rate=0.7, fuse=True),
    Case("evit_deit_small_0.7", "evit", "deit_small_patch16_224", 302, 34, rate=0.7, fuse=False),
    Case("evit_deit_small_0.5_fused", "evit", "deit_small_patch16_224", 303, 39, rate=0.5, fuse=True),
)


def compute(case: Case) -> Run:
    """Run one case from its seeds."""
    images = make_images(case.images_seed, case.images, case.image_size, case.image_size)
    return run_case(case, make_weights(case), images)


def relative_margins(run: Run) -> list[float]:
    """Margins in standard deviations of the scores."""
    return [margin / spread for margin, spread in zip(run.margins, run.spreads, strict=True)]


def require_margins(case: Case, run: Run) -> None:
    """Refuse a case whose selection a float32 network could not be held to."""
    smallest, smallest_relative = min(run.margins, default=1.0), min(relative_margins(run), default=1.0)
    if smallest < SMALLEST_MARGIN or smallest_relative < SMALLEST_RELATIVE_MARGIN:
        raise SystemExit(f"{case.name}: the margins {run.margins} are too small; take another images_seed")


def to_document(case: Case, run: Run) -> dict[str, Any]:
    """Describe a case and its results; JSON writes the shortest digits that give each number back exactly."""
    return {
        **asdict(case),
        "kept": run.kept,
        "margins": run.margins,
        "relative_margins": relative_margins(run),
        "logits": run.logits.tolist(),
    }


def main() -> None:
    """Compute all cases."""
    started = time.perf_counter()
    documents = []
    for case in CASES:
        run = compute(case)
        if (
            min(run.margins, default=1.0) < SMALLEST_MARGIN
            or min(relative_margins(run), default=1.0) < SMALLEST_RELATIVE_MARGIN
        ):
            raise SystemExit(f"{case.name}: the margins {run.margins} are too small; take another images_seed")
        documents.append(to_document(case, run))
        print(f"{case.name:28} kept {run.kept}  margins {[f'{margin:.1e}' for margin in run.margins]}")
    DESTINATION.write_text(json.dumps({"cases": documents}, indent=1) + "\n")
    print(f"{len(documents)} cases in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
