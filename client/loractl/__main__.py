"""`python -m loractl`."""

from loractl.cli import main

main()
