"""How the files of a run are called; everybody takes the names from here."""

CHECKPOINT = "ckpt.pth"
STATE = "state.pt"
METRICS = "metrics.jsonl"
MODEL = "model.onnx"
VERIFY = "verify.json"
BENCH = "bench.json"
PAGE = "report.html"
