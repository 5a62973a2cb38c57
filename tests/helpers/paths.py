"""Folders of the checkout that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
HELPERS = ROOT / "tests" / "helpers"
SHARED_DATA = ROOT.parent / "shared" / "data"
SAMPLES = SHARED_DATA / "sample_logs"
TRACES = SHARED_DATA / "traces"
