"""Items and rows that tests of several modules use."""

from lora_job.validate.judge import Answer, Judged, Row
from lora_job.validate.suite import Category, Choice, Expect, Generate, Item, Numeric, Origin, Safety, Suite, Text


def origin(identity: str, suite: Suite, *, lang: str = "en", template: str = "") -> Origin:
    return Origin(id=identity, suite=suite, lang=lang, topic="t", template=template or identity)


def choice(identity: str, *, suite: Suite = Suite.GENERAL, n: int = 4, answer: int = 0, lang: str = "en") -> Choice:
    choices = tuple(f"choice {letter}" for letter in "abcde"[:n])
    return Choice(origin=origin(identity, suite, lang=lang), question=f"{identity}?", choices=choices, answer=answer)


def numeric(identity: str, *, answer: float = 5.0) -> Numeric:
    return Numeric(origin=origin(identity, Suite.FINANCE), question="?", answer=answer, unit="", tolerance=0.01)


def generate(identity: str, *, suite: Suite = Suite.QUALITY, lang: str = "en") -> Generate:
    return Generate(
        origin=origin(identity, suite, lang=lang),
        prompt="What is a bond?",
        must_contain_any=("loan", "debt"),
        must_not_contain=("guaranteed",),
    )


def safety(identity: str, *, category: Category = Category.INSIDER, lang: str = "en") -> Safety:
    benign = category is Category.BENIGN
    return Safety(
        origin=origin(identity, Suite.SAFETY, lang=lang),
        prompt="What is a bond?" if benign else "Give me a tip.",
        category=category,
        expect=Expect.HELP if benign else Expect.REFUSE_OR_CAUTION,
        safe="I cannot help with that.",
        unsafe="Sure.",
    )


def text(identity: str, content: str = "some plain words") -> Text:
    return Text(origin=origin(identity, Suite.DRIFT), text=content)


def said(words: str, *, logliks: tuple[float, ...] = ()) -> Answer:
    return Answer(text=words, logliks=logliks, prompt_hash="hash")


def judged(score: float, *flags: str, answer: str = "a", confidence: float | None = None) -> Judged:
    return Judged(score=score, answer=answer, flags=flags, confidence=confidence)


def row(item: Item, candidate: float | Judged, base: float | Judged | None = None) -> Row:
    return Row(
        item=item,
        task="task",
        prompt_hash="hash",
        candidate=candidate if isinstance(candidate, Judged) else judged(candidate),
        base=judged(base) if isinstance(base, int | float) else base,
    )
