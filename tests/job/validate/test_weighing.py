"""Log-likelihoods of continuations against one forward pass per request over the whole vocabulary."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lora_job.validate.weighing import ROWS, Request, weigh

pytestmark = pytest.mark.engine
LONGEST = 40


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
    )
    return LlamaForCausalLM(config).eval()


def plainly(model: Any, request: Request) -> float:
    whole = torch.tensor([request.context + request.continuation])
    with torch.inference_mode():
        likelihoods = torch.log_softmax(model(whole[:, -(LONGEST + 1) :][:, :-1]).logits[0].float(), dim=-1)
    rest = torch.tensor(request.continuation)
    return float(likelihoods[-len(rest) :].gather(1, rest[:, None]).sum())


def drawn(seed: int, *, context: int, continuation: int) -> Request:
    tokens = torch.randint(97, (context + continuation,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Request(context=tuple(tokens[:context]), continuation=tuple(tokens[context:]))


REQUESTS = {
    "one token": [drawn(1, context=5, continuation=1)],
    "many lengths, more than a batch": [
        drawn(place, context=1 + place * 3 % 17, continuation=1 + place % 5) for place in range(3 * ROWS + 1)
    ],
    "letters of one question": [Request(context=(4, 5, 6), continuation=(letter,)) for letter in (7, 8, 9, 10)],
    "two continuations of one context": [
        Request(context=(4, 5, 6), continuation=(1, 2)), Request(context=(4, 5, 6), continuation=(3, 4, 5, 6, 7))
    ],
    "too long, cut from the left": [drawn(2, context=60, continuation=6), drawn(3, context=2, continuation=2)],
}  # fmt: skip


@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS)
def test_likelihoods_are_those_of_one_plain_pass_each(model: Any, requests: list[Request]) -> None:
    found = weigh(model, requests, longest=LONGEST, tick=lambda _: None)
    assert found == pytest.approx([plainly(model, request) for request in requests], abs=1e-4)


def test_requests_that_need_the_same_input_share_a_row(model: Any) -> None:
    rows: list[int] = []
    weigh(model, REQUESTS["letters of one question"], longest=LONGEST, tick=rows.append)
    assert rows == [1]


def test_the_same_requests_give_the_same_numbers_in_any_order(model: Any) -> None:
    requests = REQUESTS["many lengths, more than a batch"]
    forward = weigh(model, requests, longest=LONGEST, tick=lambda _: None)
    assert weigh(model, requests[::-1], longest=LONGEST, tick=lambda _: None)[::-1] == forward
