"""`python -m bench.merge`: lora-job merge against copying the base, and against PEFT."""
