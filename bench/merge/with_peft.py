"""The same merge with PEFT, at its fastest honest setting: bfloat16 as stored, no optional checks, one file per 50 GB."""

import os
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main(base: str, adapter: str, output: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, low_cpu_mem_usage=True)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(output)
    for path in Path(output).iterdir():
        # The others bring their result to the disk as well.
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
