"""tofe-export package"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, BadParameter, Option

from tofe_export.bounds import LARGEST_BATCH, MOST_THREADS
from tofe_export.cli import console
from tofe_export.files.commands import command, quoted
from tofe_export.files.names import CHECKPOINT


def package(
    model: Annotated[Path, Argument(help="ONNX file or engine, with its manifest.", metavar="MODEL")] = Path(
        "model.onnx"
    ),
    target: Annotated[
        Literal["triton", "kserve", "web", "executorch", "litert"],
        Option(
            "--for",
            help="Triton Inference Server, KServe on top of it, a page that runs it in browsers, or a program for "
            "phones.",
        ),
    ] = "triton",
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="The repository, to which the model is added, a new folder, or a program; default: repository, site, "
            "MODEL.pte or MODEL.tflite.",
            metavar="PATH",
        ),
    ] = None,
    name: Annotated[str | None, Option(help="Of the model in the repository; default: the file's.")] = None,
    version: Annotated[
        int | None, Option(help="A number above those that are there; default: the next one.", min=1)
    ] = None,
    python: Annotated[
        bool, Option("--python", help="Run it by Triton's Python backend and ONNX Runtime, on processors.")
    ] = False,
    instances: Annotated[int | None, Option(help="Copies that answer at the same time; default: 1.", min=1)] = None,
    threads: Annotated[
        int | None,
        Option(help="Of one instance; default: all of this machine, shared. Triton's is 1.", min=1, max=MOST_THREADS),
    ] = None,
    batch: Annotated[
        int | None,
        Option(help="The most images that requests are put together to; default: 8.", min=1, max=LARGEST_BATCH),
    ] = None,
    delay_us: Annotated[
        int | None, Option(help="How long a request waits for others, in microseconds; default: 100.", min=0)
    ] = None,
    gpu: Annotated[bool, Option("--gpu", help="Instances on GPUs; engines always are.")] = False,
    storage_uri: Annotated[
        str | None,
        Option(help="For KServe: where the repository will lie, such as s3://...", metavar="URI"),
    ] = None,
    runtime: Annotated[
        Path | None, Option(help="For a page: node_modules/onnxruntime-web/dist, from npm.", metavar="DIR")
    ] = None,
    webgpu: Annotated[
        bool, Option("--webgpu", help="For a page: compute on the visitor's GPU where there is one.")
    ] = False,
    checkpoint: Annotated[
        str | None,
        Option(help="For a phone: what the file was exported from; default: ckpt.pth.", metavar="CKPT"),
    ] = None,
    int8: Annotated[bool, Option("--int8", help="For a phone: weights in 8 bits.")] = False,
    taps: Annotated[
        bool, Option("--taps", help="For a phone: return what every stage does, for verify and token maps.")
    ] = False,
    data: Annotated[
        str | None,
        Option(
            help="For a phone: images of the check, as in onnx. For a page: images to offer visitors, at most 8.",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Write what a server, a browser or a phone loads."""
    if target == "executorch" or target == "litert":  # noqa: PLR1714 - one by one it narrows the type
        for_servers = (name, version, python, instances, threads, batch, delay_us, gpu, storage_uri, runtime, webgpu)
        if any(given is not None and given is not False for given in for_servers):
            raise BadParameter("A program for phones takes --checkpoint, --int8, --taps and --data alone.")
        _program(model, output, target, checkpoint or CHECKPOINT, int8, taps, data)
        return
    if checkpoint or int8 or taps:
        raise BadParameter("--checkpoint, --int8 and --taps are for executorch and litert.")
    if data and target != "web":
        raise BadParameter("--data is for web, executorch and litert.")
    if target == "web" and (gpu or any(given is not None for given in (instances, threads, batch, delay_us))):
        raise BadParameter("--instances, --threads, --batch, --delay-us and --gpu are for triton and kserve.")
    from tofe_export.api.package import package as package_model
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.packages.triton import TritonSettings

    require_unambiguous(data)
    settings = TritonSettings(instances or 1, threads, batch or 8, 100 if delay_us is None else delay_us, gpu)
    written = output or Path("site" if target == "web" else "repository")
    done = package_model(
        model,
        written,
        target=target,
        name=name,
        version=version,
        python=python,
        settings=None if settings == TritonSettings() else settings,
        storage_uri=storage_uri,
        runtime=runtime,
        data=data,
        webgpu=webgpu,
    )
    if done.images is not None:
        console.show_images(done.images)
    for path in done.files:
        console.say(f"Wrote {path}")
    if target == "kserve":
        console.say(f"Next:  copy {quoted(written)} to {storage_uri}; then kubectl apply -f {quoted(done.files[-2])}")
    elif target == "web":
        console.say(f"Next:  python -m http.server --directory {quoted(written)}")
    else:
        console.say(f"Next:  tritonserver --model-repository {quoted(written)}")


def _program(
    model: Path,
    output: Path | None,
    runtime: Literal["executorch", "litert"],
    checkpoint: str,
    int8: bool,
    taps: bool,
    data: str | None,
) -> None:
    from tofe_export.api.program import program
    from tofe_export.data.sources import require_unambiguous

    require_unambiguous(data)
    with console.progress() as progress:
        made = program(
            model, output, checkpoint=checkpoint, runtime=runtime, int8=int8, taps=taps, data=data, progress=progress
        )
    console.show_images(made.images)
    console.say(f"Wrote {made.path} and {made.path}.json")
    found = made.parity.logits or made.parity.features
    if found is not None and found.max_abs is not None:
        console.say(f"  run          {made.parity.samples} images, largest difference {found.max_abs:.2g}")
    console.warn(*made.parity.failures)
    console.say(f"Next:  {command('verify', made.path, '--against', checkpoint)}")
