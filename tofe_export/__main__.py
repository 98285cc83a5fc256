"""`python -m tofe_export` is `tofe-export`."""

from tofe_export.cli.main import main

main()
