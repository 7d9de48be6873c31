"""`python -m sandbox.cli` is `sandbox`."""

from sandbox.cli.main import main

main()
