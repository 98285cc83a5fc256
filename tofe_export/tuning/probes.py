"""Networks with given keep counts as files that can be timed: exported, rewritten for the runtime, in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tofe_export.documents.fields import Target
from tofe_export.documents.tuning import TuneSettings
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.graph.targets import rewrite_for
from tofe_export.model.backbones import image_shape
from tofe_export.model.tofe import ToFe
from tofe_export.progress import Progress
from tofe_export.timing.dense import Place, write_model
from tofe_export.timing.processes import Measured, time_in_processes
from tofe_export.timing.subjects import AnyModel, OnnxFile, OpenVinoFile

Keep = tuple[int, ...]
DENSE: Keep = ()
"""Stands for the dense backbone, which has no keep counts."""


@dataclass
class Probes:
    """Makes each file once, and times several together.

    Attributes:
        model: the network.
        settings: with the runtime, batch size, threads, rounds and processes.
        place: where files lie.
    """

    model: ToFe
    settings: TuneSettings
    place: Place
    _files: dict[Keep, AnyModel] = field(default_factory=dict)

    def time(self, keeps: Sequence[Keep], task: str, progress: Progress) -> Measured:
        """The dense backbone first, then the network with each of the keep counts."""
        wanted = [DENSE, *keeps]
        for number, keep in enumerate(wanted):
            progress(f"{task}: exporting", number, len(wanted))
            self.file(keep)
        progress(f"{task}: exporting", len(wanted), len(wanted))
        settings = self.settings
        return time_in_processes(
            [self.file(keep) for keep in wanted],
            image_shape(self.model.vit),
            [settings.batch],
            settings.rounds,
            settings.processes,
            progress=progress,
            task=f"{task}: timing",
        )

    def file(self, keep: Keep) -> AnyModel:
        """The network with these keep counts, or the dense backbone, as it would be deployed."""
        if keep not in self._files:
            graph = export_dense(self.model) if keep == DENSE else export_tofe(self.model, keep, True, taps=False)
            rewrite_for(graph, self.settings.target)
            path = self.place.file(".onnx")
            write_model(graph, path)
            self._files[keep] = _subject(self.settings.target)(path=path, threads=self.settings.threads)
        return self._files[keep]


def _subject(target: Target) -> type[OnnxFile] | type[OpenVinoFile]:
    return OpenVinoFile if target == "openvino" else OnnxFile
