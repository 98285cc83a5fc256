"""Which parameters of ONNX Runtime's session are fastest for a model on this machine."""

from __future__ import annotations

from itertools import product

from tofe_export.documents.onnx_options import SessionSettings
from tofe_export.model.backbones import image_shape
from tofe_export.progress import Progress
from tofe_export.timing.intervals import speedup
from tofe_export.timing.processes import time_in_processes
from tofe_export.timing.subjects import OnnxFile
from tofe_export.tuning.probes import Keep, Probes

_TASK = "Trying session parameters"


def tune_session(probes: Probes, keep: Keep, progress: Progress) -> SessionSettings | None:
    """The fastest of all combinations of threads (one, half, all), spinning and arena; None for other runtimes.

    What the program takes by itself stays unless another combination is surely faster: its whole interval lies above 1.
    """
    file, settings = probes.file(keep), probes.settings
    if not isinstance(file, OnnxFile):
        return None
    threads = sorted({1, max(1, settings.threads // 2), settings.threads})
    combinations = [
        SessionSettings(threads=count, spinning=spinning, arena=arena)
        for count, spinning, arena in product(threads, (True, False), (True, False))
    ]
    subjects = [file, *(file.replaced(session=one, threads=one.threads) for one in combinations)]
    shape = image_shape(probes.model.vit)
    measured = time_in_processes(
        subjects, shape, [settings.batch], settings.rounds, settings.processes, progress=progress, task=_TASK
    )
    usual, best, fastest = measured.of(0, settings.batch), SessionSettings(), 1.0
    for place, combination in enumerate(combinations, start=1):
        ratio = speedup(usual, measured.of(place, settings.batch))
        if ratio.value > fastest and (ratio.low or 0.0) > 1:
            best, fastest = combination, ratio.value
    return best
