"""Which texts and prompts the two models are compared on: taken from the run's own items, mixed over the suites."""

from collections.abc import Mapping, Sequence

from lora_job.validate import harness, logits
from lora_job.validate.harness import Subject
from lora_job.validate.prompts import letter_questions, numeric_prompt
from lora_job.validate.suite import Choice, Generate, Item, Numeric, Safety, Suite, Text

PROBE_CANDIDATES = 24


def texts_for(chosen: Mapping[str, Sequence[Item]], *, subject: Subject, use_template: bool, count: int) -> list[str]:
    """Texts for the logits: prompts with a continuation, and plain texts, spread over the suites."""
    found = []
    for item in _interleaved(chosen):
        match item:
            case Safety():
                prompt = harness.render_prompt(subject.tokenizer, item.prompt, use_template=use_template)
                found.append(prompt + item.safe)
            case Text():
                found.append(item.text)
            case Choice():
                asked = letter_questions(item)[0]
                prompt = harness.render_prompt(subject.tokenizer, asked.prompt, use_template=use_template)
                found.append(prompt + asked.letters[asked.gold])
            case Numeric() | Generate():
                continue
    return found[:count]


def _interleaved(chosen: Mapping[str, Sequence[Item]]) -> list[Item]:
    longest = max((len(items) for items in chosen.values()), default=0)
    return [items[place] for place in range(longest) for items in chosen.values() if place < len(items)]


def probe_prompts(chosen: Mapping[str, Sequence[Item]]) -> list[str]:
    """Short prompts that could tell the merged model from its base by the first token."""
    found = []
    for item in _interleaved({task: items for task, items in chosen.items() if task != Suite.SAFETY}):
        match item:
            case Choice():
                found.append(letter_questions(item)[0].prompt)
            case Numeric():
                found.append(numeric_prompt(item))
            case Generate():
                found.append(item.prompt)
            case Safety() | Text():
                continue
    short = [prompt for prompt in found if len(prompt.encode()) <= logits.MAX_PROBE_BYTES]
    return short[:PROBE_CANDIDATES]
