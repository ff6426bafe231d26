"""Which class is which format."""

from collections.abc import Callable, Iterable, Mapping

from lora_job.merge.encode.encoder import Encoder, Encoding, Plain
from lora_job.merge.encode.fp8 import Fp8, Fp8Encoding
from lora_job.merge.encode.int8 import Int8, Int8Encoding
from lora_job.merge.encode.nf4 import Nf4, Nf4Encoding
from lora_job.merge.encode.w4a16 import W4a16, W4a16Encoding
from lora_job.merge.plan import Step
from lora_job.merge.recipe import Quantization

__all__ = ["begin", "encoder_for"]

_ENCODINGS: Mapping[str, Callable[[Step], Encoding]] = {
    "": Plain,
    Quantization.BNB_NF4: Nf4Encoding,
    Quantization.BNB_INT8: Int8Encoding,
    Quantization.FP8_DYNAMIC: Fp8Encoding,
    Quantization.W4A16: W4a16Encoding,
}


def encoder_for(quantization: Quantization, *, widths: Iterable[int]) -> Encoder:
    """The format for a model whose quantized layers have these input widths."""
    match quantization:
        case Quantization.BNB_NF4:
            return Nf4()
        case Quantization.BNB_INT8:
            return Int8()
        case Quantization.FP8_DYNAMIC:
            return Fp8()
        case Quantization.W4A16:
            return W4a16(widths)
        case Quantization.NONE:
            raise AssertionError("none has no encoder: its tensors are stored as they are")


def begin(step: Step) -> Encoding:
    """Starts to write a tensor."""
    return _ENCODINGS[step.encoding](step)
