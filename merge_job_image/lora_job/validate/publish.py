"""Writing a report: each file complete under its name or not there at all, the JSON last."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_job.outcome import Infrastructure
from lora_job.validate.judge import Row
from lora_job.validate.page import render
from lora_job.validate.report import row_line


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where a report goes."""

    report: Path
    rows: Path
    html: Path


def files_for(report: Path, *, html: Path | None) -> Files:
    """Rows and page beside the report, unless the page is wanted elsewhere."""
    return Files(
        report=report,
        rows=report.with_suffix(".rows.jsonl"),
        html=html if html is not None else report.with_suffix(".html"),
    )


def write_whole(path: Path, text: str) -> None:
    """Write by rename; an interrupted run (SIGTERM too) leaves neither half a file nor the partial one."""
    partial = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        Path(partial).replace(path)
    except OSError as error:
        raise Infrastructure("ReportNotWritten", f"{path}: the report cannot be written: {error.strerror}") from None
    finally:
        if partial:
            Path(partial).unlink(missing_ok=True)


def publish(report: Mapping[str, Any], rows: Sequence[Row], *, files: Files) -> None:
    """Rows and page first: whoever sees the report finds them as well."""
    write_whole(files.rows, "".join(row_line(row) + "\n" for row in rows))
    write_whole(files.html, render(report))
    write_whole(files.report, json.dumps(report, ensure_ascii=False, indent=2) + "\n")
