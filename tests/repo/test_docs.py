"""The pages speak of what is there: every command line names a verb and options that exist, every example is run or checked.

What runs the examples: tests/client/loractl/test_docs.py (docs/loractl.md), tests/client/test_docs.py (docs/sdk.md, docs/migration.md).
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from lora_operator.settings import parse_settings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README*.md", "docs/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
RUN = {("docs/loractl.md", "console"), ("docs/sdk.md", "python"), ("docs/migration.md", "python")}
"""Blocks whose lines a test runs as they stand."""
CHECKED = "yaml"
PICTURES = ("", "text")
"""Blocks without a language: pictures, output, and forms of commands, whose words are looked up below."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\s*(?:\$ )?(loractl|kubectl lora|lora-job|devcluster|python -m [\w.]+|make)\s+(\S.*)$")
OPTION = re.compile(r"(?<![\w-])(--[a-z][\w-]*|-[a-zA-Z])(?![\w-])")
KINDS = {"LoRAAdapter": "loraadapters", "LoRADeployment": "loradeployments"}
LEAST: Mapping[str, Any] = {"adapterRef": {"name": "a"}, "runtime": {"profile": "vllm"}, "traffic": {"service": {}}}
Words = frozenset[str]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return BLOCK.findall(read(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_in_a_language_is_run_or_checked_by_a_test(page: str) -> None:
    forgotten = {
        language for language, _ in blocks(page) if language not in {*PICTURES, CHECKED} and (page, language) not in RUN
    }
    assert not forgotten, (
        f"{page}: nothing runs its {', '.join(sorted(forgotten))} blocks; let a test do it, and name it in RUN"
    )


def test_every_page_that_is_said_to_be_run_has_such_blocks() -> None:
    assert [one for one in RUN if one[1] not in {language for language, _ in blocks(one[0])}] == []


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Program and the rest of the line: in blocks, and in code within sentences."""
    text = read(page)
    inline = re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    for code in [*(block for _, block in blocks(page)), *inline]:
        for line in code.replace("\\\n", " ").splitlines():
            found = COMMAND.match(line)
            if found:
                yield "loractl" if found[1] == "kubectl lora" else found[1], found[2]


@cache
def words_of(program: str) -> dict[str, Words]:
    """Options by verb; verb "" is the program itself."""
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", read_makefile(), flags=re.MULTILINE)
        return {target: frozenset() for target in targets}
    if program.startswith("python -m"):
        return {"": _options_of_module(program.removeprefix("python -m "))}
    group = get_command(_typer_app(program))
    verbs = {
        name: frozenset(word for one in verb.params for word in (*one.opts, *one.secondary_opts))
        for name, verb in group.commands.items()  # type: ignore[attr-defined]
    }
    return verbs | {"": frozenset(word for one in group.params for word in one.opts) | {"--help"}}


def read_makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def _typer_app(program: str) -> Any:
    from devcluster.cli import app as devcluster  # noqa: PLC0415 - three command lines, each a package of its own
    from lora_job.cli import app as lora_job  # noqa: PLC0415
    from loractl.cli import app as loractl  # noqa: PLC0415

    return {"loractl": loractl, "lora-job": lora_job, "devcluster": devcluster}[program]


def _options_of_module(module: str) -> Words:
    """Written out for argparse, or as names of typer's parameters."""
    first, *rest = module.split(".")
    base = (ROOT if (ROOT / first).is_dir() else ROOT / "client") / Path(first, *rest)
    files = base.glob("*.py") if base.is_dir() else [base.with_suffix(".py")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    parameters = (f"--{name.replace('_', '-')}" for name in re.findall(r"(\w+): Annotated\[", text))
    return frozenset({*re.findall(r'"(--[a-z][\w-]*)"', text), *parameters, "--help"})


LOCAL = ("merge", "validate", "inspect", "benchmark")  # loractl passes them on


def wrong_words(program: str, rest: str) -> list[str]:
    """What the program does not know of a line."""
    known = words_of(program)
    head = re.split(r"\s", rest)[0]
    verbs = [] if "" in known and (head.startswith("-") or len(known) == 1) else head.split("|")
    if program == "devcluster":
        verbs += re.findall(r"(?<=\| )[a-z][a-z-]+", rest)  # the page lists several verbs a line
    unknown = [verb for verb in verbs if verb not in known]
    if unknown or program == "make":
        return unknown
    own = [verb for verb in verbs if not (program == "loractl" and verb in LOCAL)]
    passed = [words_of("lora-job")[verb] for verb in verbs if verb not in own]
    options = frozenset().union(known.get("", frozenset()), *(known[verb] for verb in own), *passed)
    return [word for word in OPTION.findall(rest) if word not in options | {"--help", "-h"}]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_line_names_verbs_and_options_that_exist(page: str) -> None:
    wrong = {f"{program} {rest}": found for program, rest in commands(page) if (found := wrong_words(program, rest))}
    assert wrong == {}


@pytest.mark.parametrize(
    ("program", "rest"),
    [
        pytest.param("loractl", "explode NAME", id="a verb"),
        pytest.param("loractl", "status NAME --wacth", id="an option"),
        pytest.param("lora-job", "merge --base DIR --adaptor DIR", id="an option of the engine"),
        pytest.param("loractl", "merge --base DIR --adaptor DIR", id="an option that is passed on"),
        pytest.param("devcluster", "up | fly", id="one verb of several"),
        pytest.param("python -m lora_integration_tools", "--actions merge", id="an option of a module"),
        pytest.param("make", "everything", id="a target"),
    ],
)
def test_the_rule_sees_a_wrong(program: str, rest: str) -> None:
    assert len(wrong_words(program, rest)) == 1


def strict(schema: Any) -> Any:
    """The CRD's schema as JSON Schema that refuses unknown fields, as the API server does with strict validation."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items() if not key.startswith("x-")}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


@cache
def spec_schema(kind: str) -> Any:
    crd = yaml.safe_load(next((ROOT / "crds").glob(f"*{KINDS[kind]}*.yaml")).read_text(encoding="utf-8"))
    return strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])


SETTINGS = "settings"


def manifests(page: str) -> Iterator[tuple[str, Any]]:
    """Kind and spec; a fragment is part of the operator's settings, or of a LoRADeployment's spec."""
    for language, text in blocks(page):
        for document in yaml.safe_load_all(text) if language == CHECKED else ():
            if "kind" in document:
                yield document["kind"], document["spec"]
            elif "routers" in document or "profiles" in document:
                yield SETTINGS, document
            else:
                yield "LoRADeployment", {**LEAST, **document}


def check(kind: str, content: Any) -> None:
    """As the operator reads it, or the API server."""
    if kind == SETTINGS:
        parse_settings(content, operator_image="o", job_image="j", image_pull_policy="IfNotPresent")
    else:
        # OpenAPI 3.0, which CRDs are written in, has JSON Schema's older exclusiveMinimum.
        jsonschema.validate(content, spec_schema(kind), cls=jsonschema.Draft4Validator)


@pytest.mark.parametrize("page", [page for page in PAGES if CHECKED in {language for language, _ in blocks(page)}])
def test_every_manifest_of_a_page_is_one_that_is_taken(page: str) -> None:
    found = list(manifests(page))
    assert found
    for kind, content in found:
        check(kind, content)


def test_the_check_of_manifests_sees_a_wrong_field() -> None:
    with pytest.raises(jsonschema.ValidationError, match="setWeigth"):
        jsonschema.validate(
            {**LEAST, "strategy": {"type": "Canary", "canary": {"steps": [{"setWeigth": 5}]}}},
            spec_schema("LoRADeployment"),
        )


HELM_SET = re.compile(r"--set ([\w.]+)=")


def test_every_value_that_install_sets_is_one_of_the_charts() -> None:
    values = yaml.safe_load((ROOT / "charts/lora-operator/values.yaml").read_text(encoding="utf-8"))
    named = [path for page in PAGES for path in HELM_SET.findall(read(page))]
    assert named
    for path in named:
        value: Any = values
        for part in path.split("."):
            assert part in value, f"--set {path}: the chart has no such value"
            value = value[part]
