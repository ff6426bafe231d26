"""The same question to the merged model (through the Gateway) and to its base (loaded here), both greedy."""

from pathlib import Path

import httpx

__all__ = ["ask_base", "ask_gateway"]

MAX_TOKENS = 48


def ask_gateway(*, url: str, host: str, model: str, question: str) -> str:
    """The served model's answer through the route that users use."""
    reply = httpx.post(
        f"{url}/v1/chat/completions",
        headers={"Host": host},
        json={
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        },
        timeout=180,
        trust_env=False,
    )
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["message"]["content"]).strip()


def ask_base(*, model: Path, questions: list[str]) -> list[str]:
    """The base model's answers, from its checkpoint on this machine's CPU."""
    # Imported here: torch takes seconds, and nothing else of the demo needs it.
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(model)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    answers = []
    for question in questions:
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            tokens = base.generate(**chat, max_new_tokens=MAX_TOKENS, do_sample=False)
        answers.append(str(tokenizer.decode(tokens[0][chat["input_ids"].shape[1] :], skip_special_tokens=True)).strip())
    return answers
