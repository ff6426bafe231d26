"""Result to bytes: one file per format. Rows of float32 go in, in order; pieces of the stored tensors come out.

    plan time    stored(name, shape, dtype)     names, shapes and dtypes: the header and the dry run know them
    write time   begin(step).feed(rows) … finish()     some rows at a time; at the end what only the whole tensor tells

Quantization starts from the float32 result and not from its rounding to 16 bits. Formats are those that transformers and vLLM load
without a setting of their own.
"""

from lora_job.merge.encode.choose import quantized_plan
from lora_job.merge.encode.encoder import Encoding, Piece
from lora_job.merge.encode.formats import begin

__all__ = ["Encoding", "Piece", "begin", "quantized_plan"]
