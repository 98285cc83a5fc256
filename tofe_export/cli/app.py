"""Wires the verbs. Each lives in its own file and imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tofe_export import __version__
from tofe_export.cli.bench import bench
from tofe_export.cli.demo import demo
from tofe_export.cli.doctor import doctor
from tofe_export.cli.failures import escaping
from tofe_export.cli.inspect import inspect
from tofe_export.cli.onnx import onnx
from tofe_export.cli.optimize import optimize
from tofe_export.cli.package import package
from tofe_export.cli.predict import predict
from tofe_export.cli.quantize import quantize
from tofe_export.cli.report import report
from tofe_export.cli.train import train
from tofe_export.cli.trt import trt
from tofe_export.cli.tune import tune
from tofe_export.cli.verb import Program, Verb
from tofe_export.cli.verify import verify

app = typer.Typer(
    cls=Program,
    help="From a trained ToFe vision transformer to a verified, benchmarked deployment.",
    epilog="Completion in your shell: tofe-export --install-completion",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for verb in (
    doctor,
    demo,
    train,
    tune,
    onnx,
    quantize,
    optimize,
    trt,
    verify,
    bench,
    predict,
    package,
    inspect,
    report,
):
    app.command(cls=Verb)(escaping(verb))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
