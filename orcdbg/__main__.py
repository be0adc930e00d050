"""`python -m orcdbg`."""

from orcdbg.cli.main import main

main()
