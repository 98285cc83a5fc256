"""ONNX files, their manifests and engines: damaged, lying, stale, or somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.case import ANY, FINE, NOT_HERE, REFUSED, Case
from tests.hostile.commands import basic
from tests.hostile.kit import restamp

_RUNS = FINE | REFUSED
_READERS = ("inspect", "verify", "bench", "predict", "optimize", "quantize", "trt")
Spoil = Callable[[Path], object]


def _bytes(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _model(change: Callable[[Any], object]) -> Spoil:
    """Changes the ModelProto."""

    def spoil(path: Path) -> None:
        import onnx

        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())

    return spoil


def _flip(path: Path) -> None:
    import random

    content = bytearray(path.read_bytes())
    for place in random.Random(1).sample(range(len(content)), 40):
        content[place] ^= 1 << (place % 8)
    path.write_bytes(content)


def _foreign(
    opset: int = 20, inputs: int = 1, name: str = "images", shape: tuple[object, ...] = ("b", 3, 32, 32)
) -> Spoil:
    """Another program's model: a mean over the image and a product."""

    def write(path: Path) -> None:
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        values = [helper.make_tensor_value_info(name + "x" * i, TensorProto.FLOAT, shape) for i in range(inputs)]
        nodes = [
            helper.make_node("GlobalAveragePool", [name], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ]
        out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("b", 2))
        weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
        graph = helper.make_graph(nodes, "other", values, [out], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        path.write_bytes(onnx._serialize(model) if hasattr(onnx, "_serialize") else model.SerializeToString())

    return write


def _external(location: str) -> Spoil:
    def change(model: Any) -> None:
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.ClearField("raw_data")
        weight.data_location = 1
        for key, value in (("location", location), ("offset", "0"), ("length", "99999999999")):
            weight.external_data.add(key=key, value=value)

    return _model(change)


def _set(change: Callable[[Any], object]) -> Spoil:
    return _model(change)


def _cycle(model: Any) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def _no_functions(model: Any) -> None:
    del model.functions[:]


def _recursive_function(model: Any) -> None:
    function = model.functions[0]
    del function.node[:]
    function.node.add(
        op_type=function.name, domain=function.domain, input=list(function.input), output=list(function.output)
    )


def _rename_output(model: Any) -> None:
    model.graph.output[0].name = "nothing"


def _garbage_weight(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = b"\xff" * 3


def _negative_dimension(model: Any) -> None:
    model.graph.initializer[0].dims[0] = -(2**40)


def _keep_attribute(value: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "keep":
                    attribute.i = value

    return change


MODELS: dict[str, Spoil] = {
    "an empty file": _bytes(lambda _: b""),
    "text": _bytes(lambda _: b"hello"),
    "cut in half": _bytes(lambda content: content[: len(content) // 2]),
    "40 bits flipped": _flip,
    "zeros": _bytes(lambda content: bytes(len(content))),
    "itself twice": _bytes(lambda content: content + content),
    "somebody else's": _foreign(),
    "somebody else's with two inputs": _foreign(inputs=2),
    "somebody else's with another input": _foreign(name="x"),
    "somebody else's with a fixed batch": _foreign(shape=(1, 3, 32, 32)),
    "somebody else's without a shape": _foreign(shape=("a", "b", "c", "d")),
    "somebody else's of opset 1": _foreign(opset=1),
    "somebody else's of opset 999": _foreign(opset=999),
    "an empty graph": _set(lambda model: model.graph.Clear()),
    "no inputs": _set(lambda model: model.graph.ClearField("input")),
    "no outputs": _set(lambda model: model.graph.ClearField("output")),
    "no opsets": _set(lambda model: model.ClearField("opset_import")),
    "an output nobody computes": _set(_rename_output),
    "a loop in its graph": _set(_cycle),
    "operators without bodies": _set(_no_functions),
    "a function that calls itself": _set(_recursive_function),
    "a weight of three bytes": _set(_garbage_weight),
    "a weight of a negative size": _set(_negative_dimension),
    "external data that is not there": _external("weights.bin"),
    "external data in /etc": _external("/etc/passwd"),
    "external data above": _external("../../../../../../etc/passwd"),
    "an operator nobody knows": _set(lambda model: setattr(model.graph.node[0], "op_type", "Frobnicate")),
    "a keep count of zero": _set(_keep_attribute(0)),
    "a keep count of 10^12": _set(_keep_attribute(10**12)),
    "a negative keep count": _set(_keep_attribute(-3)),
    "names of markup": _set(lambda model: setattr(model.graph.node[0], "name", "[red]x[/]")),
    "10,000 letters in a name": _set(lambda model: setattr(model.graph.node[3], "name", "n" * 10_000)),
    "an ir_version of the future": _set(lambda model: setattr(model, "ir_version", 9999)),
}
_FOR_ALL = (
    *("cut in half", "40 bits flipped", "somebody else's", "somebody else's with two inputs", "an empty graph"),
    *("somebody else's with another input", "operators without bodies", "a loop in its graph", "a keep count of 10^12"),
    *("external data in /etc", "external data that is not there", "an operator nobody knows", "no outputs"),
    *("somebody else's of opset 999", "a weight of a negative size", "a function that calls itself"),
    *("a weight of three bytes", "somebody else's with a fixed batch"),
)

_REWRITTEN = (
    *("somebody else's", "operators without bodies", "a function that calls itself", "a loop in its graph"),
    *("a keep count of 10^12", "an operator nobody knows", "10,000 letters in a name", "names of markup"),
    *("an output nobody computes", "40 bits flipped", "a weight of a negative size", "a weight of three bytes"),
)
"""What each target and the 8-bit weights are tried on."""


def cases() -> Iterator[Case]:
    """All of this family."""
    for verb in _READERS:
        for what, spoil in MODELS.items():
            if verb == "inspect" or what in _FOR_ALL:
                yield _case(verb, what, spoil)
                if what in ("somebody else's", "an empty graph", "operators without bodies") and verb != "inspect":
                    yield _case(verb, f"{what}, without a manifest", spoil, remove=True)
    for what in _REWRITTEN:
        for more in (("--for", "any"), ("--for", "openvino"), ("--weights", "int8")):
            yield _case("optimize", f"{what}, {' '.join(more)}", MODELS[what], more=more)
    for verb in ("verify", "bench"):
        for file in ("vino.onnx", "fast.onnx"):
            for what in _FOR_ALL if file == "vino.onnx" else _REWRITTEN:
                if file == "vino.onnx" and what == "a function that calls itself":
                    continue  # it has no functions
                yield _case(verb, f"{what}, in {file}", MODELS[what], file=file)
    yield from _engines()


def _case(
    verb: str, what: str, spoil: Spoil, remove: bool = False, more: tuple[str, ...] = (), file: str = "model.onnx"
) -> Case:
    """A model with a manifest that fits its bytes, so that it is the model itself that is looked at."""

    def prepare(work: Path) -> None:
        spoil(work / file)
        if remove:
            (work / f"{file}.json").unlink()
        else:
            restamp(work / file)

    return basic(
        "models", verb, what, *more, prepare=prepare, codes=ANY if verb == "trt" else _RUNS | NOT_HERE,
        instead={} if file == "model.onnx" else {"model.onnx": file},
        kit=() if file == "model.onnx" else (file, f"{file}.json"),
    )  # fmt: skip


def _engines() -> Iterator[Case]:
    changes: dict[str, Callable[[Path], object]] = {
        "text with a manifest that fits": lambda work: _engine_of(work, b"hello"),
        "empty with a manifest that fits": lambda work: _engine_of(work, b""),
        "cut in half with a manifest that fits": lambda work: _engine_of(work, None),
        "changed after it was built": lambda work: (work / "model.engine").write_bytes(b"hello"),
        "without a manifest": lambda work: (work / "model.engine.json").unlink(),
        "with the manifest of the ONNX file": lambda work: _copy(work / "model.onnx.json", work / "model.engine.json"),
        "with a network that is null": lambda work: restamp(work / "model.engine", network=None),
        "with layers that are a list": lambda work: restamp(work / "model.engine", network={"layers": [1]}),
        "with a backend that is null": lambda work: restamp(work / "model.engine", backend=None),
        "with a backend nobody knows": lambda work: restamp(work / "model.engine", backend={"name": "x", "version": 1}),
        "with options that are empty": lambda work: restamp(work / "model.engine", options={}),
        "with a batch that is text": lambda work: restamp(work / "model.engine", options={"batch": "many"}),
        "that is a folder": lambda work: ((work / "model.engine").unlink(), (work / "model.engine").mkdir()),
    }
    for what, change in changes.items():
        for verb in ("inspect", "verify", "bench", "predict"):
            yield basic(
                "models", verb, f"an engine {what}", instead={"model.onnx": "model.engine"},
                kit=("model.engine", "model.engine.json"), prepare=change, codes=frozenset({0, 2, 3}),
            )  # fmt: skip


def _engine_of(work: Path, content: bytes | None) -> None:
    engine = work / "model.engine"
    engine.write_bytes(engine.read_bytes()[: engine.stat().st_size // 2] if content is None else content)
    restamp(engine)


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
