"""What a file does around its network, put there and tried: it prepares images, and names classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from PIL import Image

from tofe_export.artifacts.artifact import Artifact, open_openvino
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches, pixels_of
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.manifest import OnnxManifest, Output
from tofe_export.documents.onnx_options import Input
from tofe_export.errors import CheckFailedError, InputError, brief
from tofe_export.extremes import largest
from tofe_export.graph.export import INPUT
from tofe_export.graph.passes.ends import CLASSES, PROBABILITIES, name_classes, take_pixels
from tofe_export.graph.stored import fits, read_onnx, serialize
from tofe_export.runners.base import LOGITS, Array, Runner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner

IMAGES = 8
_LEVEL = 1 / 255
_BATCHED = 1e-3  # of what two images give together and alone: kernels round otherwise, images do not mix
_CLOSE = 1e-5  # of probabilities, which the file computes in float32
_SIZES = ((1, 1), (0.4, 0.7), (2.3, 1.1), (1.0, 3.0))  # of pictures beside the user's, in sides of the input
_REPORT = "Please report this model."


Returned = Literal["logits", "features", "classes"]
"""What a file can be asked to return; classes take the place of logits."""


@dataclass(frozen=True)
class Ends:
    """What a file does around its network; `OnnxOptions` has the same fields."""

    input: Input = "tensor"
    top: int = 0

    @classmethod
    def of(cls, input_: str, outputs: Sequence[str], top: int) -> Self:
        """Of what a user asks for.

        Raises:
            InputError: there is no such input, no class is requested, or logits and classes.
        """
        if input_ not in ("tensor", "image"):
            raise InputError(f"`input` is {brief(input_)}.", 'Give "tensor" or "image".', code="unknown-input")
        taken: Input = "image" if input_ == "image" else "tensor"
        if CLASSES not in outputs:
            return cls(taken)
        if LOGITS in outputs:
            raise InputError(
                "Both logits and classes are requested, and classes take the place of logits.",
                "Name one of them.",
                code="logits-and-classes",
            )
        if top < 1:
            problem = f"`top` is {top}, but at least one class is needed."
            raise InputError(problem, "Give 1 or more.", code="too-few-classes")
        return cls(taken, top)

    def asked_of_network(self, outputs: Sequence[Returned]) -> list[Output]:
        """What the network returns inside the file."""
        return list(dict.fromkeys("logits" if name == "classes" else name for name in outputs))

    def attached(self, model: ir.Model, preprocessing: Preprocessing) -> Self:
        """Puts them around the network, in place; what came of them where the network has fewer classes.

        Raises:
            InputError: the model is above 2 GB, or see `prepare_function`.
        """
        if self == Ends():
            return self
        if not fits(model):
            raise InputError(
                "The model is above 2 GB; such a file takes normalized images and returns logits here.",
                "Leave `input` and `outputs` as they are.",
                code="ends-too-large",
            )
        most = 0
        if self.top:
            [logits] = [value for value in model.graph.outputs if value.name == LOGITS]
            assert logits.shape is not None
            classes = logits.shape[1]
            assert isinstance(classes, int)
            most = min(self.top, classes)
            name_classes(model, most)
        if self.input == "image":
            take_pixels(model, preprocessing)
        return replace(self, top=most)


@dataclass(frozen=True)
class EndsAgreement:
    """How a file agreed with timm's transform and with the answers of its own network.

    Attributes:
        samples: pictures.
        differing: share of pixel values that differ from the transform's.
        levels: by how many of 255 levels at most.
        probability: the largest difference between a probability and that of the network's logits; 0 without classes.
        failures: sentences; empty where the file does what it should.
    """

    samples: int
    differing: float
    levels: float
    probability: float
    failures: tuple[str, ...]


def check_ends(artifact: Artifact, source: ImageSource, log: ImageLog, provider: str = CPU) -> EndsAgreement:
    """Runs the whole file on pictures of several sizes, and its network on what timm's transform makes of them.

    Args:
        artifact: an ONNX file; its manifest says which ends it has.
        source: where the first pictures come from; some of noise, of other sizes, follow.
        log: told which were read.
        provider: where ONNX Runtime computes.

    Raises:
        InputError, MissingError: see `Artifact.open`.
        CheckFailedError: the file does not run.
    """
    manifest, network = artifact.manifest, artifact.open(provider)
    assert isinstance(manifest, OnnxManifest)
    preprocessing, options = Preprocessing.of(manifest.preprocessing), manifest.options
    if manifest.runtime == "openvino":
        runner: Runner = open_openvino(_showing_input(artifact.path), manifest)
        found = _Found(preprocessing, allowed_levels=1.01, allowed_share=0.01)
    else:
        runner = OnnxRuntimeRunner(_showing_input(artifact.path), precision=manifest.precision, provider=provider)
        found = _Found(preprocessing)
    for pixels in _pictures(source, preprocessing, log):
        found.samples += 1
        prepared = preprocessing(Image.fromarray(pixels))[None].numpy()
        given: Array = pixels[None] if options.input == "image" else prepared
        outputs = runner.run(given)
        if options.input == "image":
            found.add_images(outputs[INPUT], prepared)
        if options.top:
            found.add_classes(outputs, network.run(outputs.get(INPUT, prepared))[LOGITS])
    found.batch_differs = _differs_in_a_batch(runner, preprocessing, options.input)
    return found.agreement()


def _differs_in_a_batch(runner: Runner, preprocessing: Preprocessing, taken: Input) -> str:
    """The first thing around the network that two images have otherwise together than each alone, or ""."""
    noise = np.random.default_rng(1)
    shape = (2, preprocessing.height, preprocessing.width, 3)
    pixels: Array = noise.integers(0, 256, shape, dtype=np.uint8)
    if taken == "tensor":
        pixels = noise.standard_normal((2, 3, *shape[1:3]), dtype=np.float32)
    together, alone = runner.run(pixels), [runner.run(pixels[place : place + 1]) for place in range(2)]
    for name in sorted({INPUT, PROBABILITIES, CLASSES} & together.keys()):
        value = together[name]
        singles = np.concatenate([one[name] for one in alone])
        # The same classes in another order are a matter of probabilities, and these are compared.
        if value.shape != singles.shape or (name != CLASSES and not np.allclose(value, singles, rtol=0, atol=_BATCHED)):
            return name
    return ""


def require_ends(artifact: Artifact, source: ImageSource, log: ImageLog) -> EndsAgreement | None:
    """See `check_ends`; None for a file without ends. Raises CheckFailedError for one that does something else."""
    if not (isinstance(artifact.manifest, OnnxManifest) and artifact.manifest.has_ends):
        return None
    agreement = check_ends(artifact, source, log)
    if agreement.failures:
        raise CheckFailedError(" ".join(agreement.failures), _REPORT, code="ends")
    return agreement


def _showing_input(path: Path) -> Any:
    """The file with the images that it prepares as another output."""
    model = read_onnx(path)
    prepared = [value for node in model.graph for value in node.outputs if value.name == INPUT]
    model.graph.outputs.extend(prepared)
    return serialize(model)


def _pictures(source: ImageSource, preprocessing: Preprocessing, log: ImageLog) -> Iterator[NDArray[np.uint8]]:
    for batch in batches(source, pixels_of, 1, limit=IMAGES, log=log):
        yield batch.images[0].numpy()
    noise = np.random.default_rng(0)
    for high, wide in _SIZES:
        shape = (max(1, round(high * preprocessing.height)), max(1, round(wide * preprocessing.width)), 3)
        yield noise.integers(0, 256, shape, dtype=np.uint8)


@dataclass
class _Found:
    """Differences so far."""

    preprocessing: Preprocessing
    allowed_levels: float = 0.0
    allowed_share: float = 0.0  # OpenVINO has no float64, see `graph/preparing.py`
    samples: int = 0
    values: int = 0
    differing: int = 0
    levels: float = 0.0
    probability: float = 0.0
    wrong_classes: int = 0
    batch_differs: str = ""

    def add_images(self, own: Array, prepared: Array) -> None:
        """Compares in levels of pixel values, for std differs from channel to channel."""
        apart = np.abs(own - prepared) * np.reshape(self.preprocessing.std, (3, 1, 1)) / _LEVEL
        self.values += apart.size
        self.differing += int((~(apart <= 0.5)).sum())
        self.levels = largest(self.levels, float(apart.max()))

    def add_classes(self, outputs: dict[str, Array], logits: Array) -> None:
        """Compares with a softmax in float64. Classes may change places where their probabilities are as good as
        equal."""
        expected = torch.from_numpy(logits).double().softmax(dim=1)
        classes, probabilities = torch.from_numpy(outputs[CLASSES]), torch.from_numpy(outputs[PROBABILITIES]).double()
        best = expected.sort(dim=1, descending=True, stable=True).values[:, : classes.shape[1]]
        self.probability = largest(self.probability, float((probabilities - expected.gather(1, classes)).abs().max()))
        self.wrong_classes += int((~((best - expected.gather(1, classes)).abs() <= _CLOSE)).sum())

    def agreement(self) -> EndsAgreement:
        """With a sentence for each thing that is wrong."""
        failures = []
        share = self.differing / self.values if self.values else 0.0
        if share > self.allowed_share or (self.differing and not self.levels <= self.allowed_levels):
            failures.append(
                f"{share:.2%} of the pixels that the file prepares differ from timm's, by up to "
                f"{self.levels:.0f} levels of 255."
            )
        if self.wrong_classes or not self.probability <= _CLOSE:
            failures.append(
                f"The file names {self.wrong_classes} other classes than its logits do, and its probabilities differ "
                f"by up to {self.probability:.1e}."
            )
        if self.batch_differs:
            failures.append(f"In a batch of two images the file gives other {self.batch_differs} than for each alone.")
        return EndsAgreement(self.samples, share, self.levels, self.probability, tuple(failures))
