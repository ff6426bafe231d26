"""Asks candidate pods the recorded questions, off the reconcile path; answers are observations keyed by pod uid.

Lost on restart on purpose: a new process asks again, which is harmless.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from lora_operator.core.plan import ProbePod
from lora_operator.runtime.queue import Key

__all__ = ["PodVerdict", "Verifier"]

PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class PodVerdict:
    """`passed` None: still asking. `final` False with passed False: it may yet come (not reachable so far)."""

    passed: bool | None
    detail: str
    wrong: bool = False  # it answered, but not as the validated model does


class Verifier:
    """`wake` is called with the key that asked when a verdict is there."""

    def __init__(self, *, wake: Callable[[Key], None]) -> None:
        self._wake = wake
        self._verdicts: dict[str, PodVerdict] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def verdict(self, uid: str) -> PodVerdict | None:
        """What is known of a pod; None: never asked."""
        return self._verdicts.get(uid)

    def start(self, probe: ProbePod, *, key: Key) -> None:
        """Begins asking unless it was asked already."""
        if probe.uid in self._verdicts:
            return
        self._verdicts[probe.uid] = PodVerdict(passed=None, detail="asking")
        task = asyncio.create_task(self._ask(probe, key=key))
        self._tasks[probe.uid] = task
        task.add_done_callback(lambda _: self._tasks.pop(probe.uid, None))

    def forget(self, uid: str) -> None:
        """The pod is gone, or shall be asked again."""
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()
        self._verdicts.pop(uid, None)

    async def _ask(self, probe: ProbePod, *, key: Key) -> None:
        verdict = PodVerdict(passed=False, detail="never reached")
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=probe.timeout_seconds)) as session:
            for attempt in range(probe.retries):
                if attempt:
                    await asyncio.sleep(PAUSE_SECONDS)
                try:
                    verdict = await _answers(session, probe)
                except TimeoutError:
                    verdict = PodVerdict(passed=False, detail=_of_silence(probe))
                except (aiohttp.ClientError, ValueError, KeyError, IndexError, TypeError) as error:
                    verdict = PodVerdict(passed=False, detail=f"{type(error).__name__}: {error}"[:300])
                if verdict.passed:
                    break
        self._verdicts[probe.uid] = verdict
        self._wake(key)


def _of_silence(probe: ProbePod) -> str:
    return (
        f"no answer within {probe.timeout_seconds} s, asked {probe.retries} times; give the pod more processor or a GPU, "
        "or raise healthCheck.timeoutSeconds"
    )


async def _answers(session: aiohttp.ClientSession, probe: ProbePod) -> PodVerdict:
    for question in probe.probes:
        found = await _complete(session, probe, prompt=str(question["prompt"]), tokens=1)
        if found.strip() != str(question["answer"]).strip():
            detail = (
                f"asked {question['prompt']!r}: found {found!r}, the validated model answers {question['answer']!r}"
            )
            return PodVerdict(passed=False, detail=detail[:300], wrong=True)
    if not probe.probes and not (await _complete(session, probe, prompt="Hello", tokens=4)).strip():
        return PodVerdict(passed=False, detail="the completion is empty")
    return PodVerdict(passed=True, detail=f"{len(probe.probes) or 1} question(s) answered as validated")


async def _complete(session: aiohttp.ClientSession, probe: ProbePod, *, prompt: str, tokens: int) -> str:
    body: Mapping[str, Any] = {
        "model": probe.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    async with session.post(f"{probe.address}/v1/chat/completions", json=body) as reply:
        text = await reply.text()
        if reply.status != 200:
            raise ValueError(f"HTTP {reply.status}: {text[:200]}")
        return str((await reply.json())["choices"][0]["message"]["content"] or "")
