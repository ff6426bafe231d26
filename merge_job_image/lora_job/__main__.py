"""`python -m lora_job`."""

from lora_job.cli import main

main()
