"""JSON Schemas of every document, from their classes: `python tools/schemas.py` writes them into docs/schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.diagnosis import Diagnosis
from tofe_export.documents.inspection import AnyInspection
from tofe_export.documents.manifest import AnyManifest
from tofe_export.documents.prediction import Predictions
from tofe_export.documents.quantization import Quantization, Sensitivity
from tofe_export.documents.tuning import Tuning
from tofe_export.documents.verification import Verification, Verifications


class _Plain(GenerateJsonSchema):
    """Without titles that only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """See `GenerateJsonSchema`."""
        return False


FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
DOCUMENTS: dict[str, Any] = {
    "bench": Benchmark,
    "doctor": Diagnosis,
    "inspect": AnyInspection,
    "manifest": AnyManifest,
    "predict": Predictions,
    "quantize": Quantization,
    "sensitivity": Sensitivity,
    "tune": Tuning,
    "verify": Verification,
    "verify-several": Verifications,
}


def schema_of(name: str) -> str:
    """The JSON Schema of a document as this version writes it; documents of older versions may lack some keys."""
    schema = TypeAdapter(DOCUMENTS[name]).json_schema(mode="serialization", schema_generator=_Plain)
    whole = {"$schema": GenerateJsonSchema.schema_dialect, **schema}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Writes every schema."""
    FOLDER.mkdir(exist_ok=True)
    for name in DOCUMENTS:
        (FOLDER / f"{name}.json").write_text(schema_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()
