"""What an ONNX file was exported and rewritten with, and how it is run: a part of its manifest."""

from __future__ import annotations

from typing import Literal

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Count, Flag, Target, Text, Threads

Input = Literal["tensor", "image"]


class SessionSettings(Part):
    """Parameters of ONNX Runtime that `tune` found fastest; None leaves what the program takes by itself.

    Attributes:
        threads: of one session; on a machine with fewer processors, as many as those.
        spinning: idle threads wait for work in a loop, which answers sooner and uses the processor.
        arena: memory is kept between calls.
    """

    threads: Threads | None = None
    spinning: Flag | None = None
    arena: Flag | None = None


class OnnxOptions(Part):
    """What an ONNX file was exported and rewritten with.

    Attributes:
        keep_source: where its keep counts come from, in words.
        target: what it was optimized for; None for a file with the two operators.
        passes: of that, name -> places that were rewritten.
        arithmetic: what OpenVINO computes float32 values in.
        session: what ONNX Runtime is opened with.
        input: "tensor" for normalized images, "image" for a file that prepares pixels itself.
        top: how many classes the file names in place of its logits; 0 where it returns these.
    """

    opset: Count = 0
    taps: Flag = False
    keep_source: Text = "given"
    target: Target | None = None
    passes: dict[Text, Count] = {}
    arithmetic: Literal["fp32", "bf16"] = "fp32"
    session: SessionSettings = SessionSettings()
    input: Input = "tensor"
    top: Count = 0
