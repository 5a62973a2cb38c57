"""Rows of experiments that tests measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.suite.api import Case, Row


def measured_row(experiment: Any, case: Case, folder: Path) -> Row:
    """Measure a case and return its row as JSON gives it back."""
    numbers = experiment.measure(case, folder)
    return Row(Case(**json.loads(json.dumps(case.to_dict()))), json.loads(json.dumps(numbers)), 1.0)
