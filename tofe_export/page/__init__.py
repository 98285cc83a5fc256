"""One HTML page that shows what a run folder holds: speed, parity, training, and where the tokens go."""

from tofe_export.page.build import build_report

__all__ = ["build_report"]
