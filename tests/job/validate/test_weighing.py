"""Log-likelihoods and last logits against one forward pass per row over the whole vocabulary, with and without a start that rows share."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from lora_job.validate.shared_start import WORTH_IT, SharedStart, common_length
from lora_job.validate.weighing import ROWS, Request, last_logits, weigh

pytestmark = pytest.mark.engine
LONGEST = 40
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


@pytest.fixture(scope="module")
def model_with_windows() -> Any:
    """Its layers forget what is more than six tokens back."""
    torch.manual_seed(1)
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6)).eval()


def plainly(model: Any, request: Request) -> float:
    whole = torch.tensor([request.context + request.continuation])
    with torch.inference_mode():
        likelihoods = torch.log_softmax(model(whole[:, -(LONGEST + 1) :][:, :-1]).logits[0].float(), dim=-1)
    rest = torch.tensor(request.continuation)
    return float(likelihoods[-len(rest) :].gather(1, rest[:, None]).sum())


def drawn(seed: int, *, context: int, continuation: int) -> Request:
    tokens = torch.randint(97, (context + continuation,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Request(context=tuple(tokens[:context]), continuation=tuple(tokens[context:]))


START = tuple(range(20, 20 + WORTH_IT + 4))


def after_the_start(request: Request) -> Request:
    return Request(context=START + request.context, continuation=request.continuation)


REQUESTS = {
    "one token": [drawn(1, context=5, continuation=1)],
    "many lengths, more than a batch": [
        drawn(place, context=1 + place * 3 % 17, continuation=1 + place % 5) for place in range(3 * ROWS + 1)
    ],
    "letters of one question": [Request(context=(4, 5, 6), continuation=(letter,)) for letter in (7, 8, 9, 10)],
    "two continuations of one context": [
        Request(context=(4, 5, 6), continuation=(1, 2)), Request(context=(4, 5, 6), continuation=(3, 4, 5, 6, 7))
    ],
    "a start that all share": [
        after_the_start(drawn(place, context=1 + place * 3 % 11, continuation=1 + place % 5)) for place in range(2 * ROWS + 3)
    ],
    "contexts that are the start and nothing else": [
        Request(context=START, continuation=(1, 2, 3)), Request(context=START, continuation=(1, 2, 4, 5))
    ],
    "too long, cut from the left": [drawn(2, context=60, continuation=6), drawn(3, context=2, continuation=2)],
}  # fmt: skip


@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS)
def test_likelihoods_are_those_of_one_plain_pass_each(model: Any, requests: list[Request]) -> None:
    found = weigh(model, requests, longest=LONGEST, tick=lambda _: None)
    assert found == pytest.approx([plainly(model, request) for request in requests], abs=1e-4)


@pytest.mark.parametrize("requests", REQUESTS.values(), ids=REQUESTS)
def test_a_model_with_windows_calculates_every_row_whole(model_with_windows: Any, requests: list[Request]) -> None:
    assert SharedStart.of(model_with_windows, [(*START, 1), (*START, 2)], most=len(START)) is None
    found = weigh(model_with_windows, requests, longest=LONGEST, tick=lambda _: None)
    assert found == pytest.approx([plainly(model_with_windows, request) for request in requests], abs=1e-4)


def test_last_logits_are_those_of_one_plain_pass_each(model: Any) -> None:
    rows = [one.context + one.continuation for one in REQUESTS["a start that all share"]]
    for row, logits in zip(rows, last_logits(model, rows), strict=True):
        with torch.inference_mode():
            plain = model(torch.tensor([row])).logits[0, -1]
        assert torch.allclose(logits, plain, atol=1e-5)


def test_what_rows_begin_with_is_calculated_once(model: Any) -> None:
    requests = REQUESTS["a start that all share"]
    seen: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _model, _, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        weigh(model, requests, longest=LONGEST, tick=lambda _: None)
    finally:
        hook.remove()
    assert seen[0] == len(START)
    longest_rest = max(len(one.context + one.continuation) for one in requests) - 1 - len(START)
    assert sum(seen[1:]) <= len(requests) * longest_rest


@pytest.mark.parametrize(
    ("rows", "most", "length"),
    [
        pytest.param([(1, 2, 3), (1, 2, 4)], 9, 2, id="two tokens"),
        pytest.param([(1, 2, 3), (1, 2, 3)], 2, 2, id="no more than asked"),
        pytest.param([(1, 2), (1, 2, 3)], 9, 2, id="one is the beginning of the other"),
        pytest.param([(2, 1), (1, 2, 3), (1, 2, 4)], 9, 0, id="one differs at once"),
    ],
)
def test_the_common_length(rows: list[tuple[int, ...]], most: int, length: int) -> None:
    assert common_length(rows, most=most) == length


def test_requests_that_need_the_same_input_share_a_row(model: Any) -> None:
    rows: list[int] = []
    weigh(model, REQUESTS["letters of one question"], longest=LONGEST, tick=rows.append)
    assert rows == [1]


def test_the_same_requests_give_the_same_numbers_in_any_order(model: Any) -> None:
    requests = REQUESTS["many lengths, more than a batch"]
    forward = weigh(model, requests, longest=LONGEST, tick=lambda _: None)
    assert weigh(model, requests[::-1], longest=LONGEST, tick=lambda _: None)[::-1] == forward
