"""Print the lower bound of every dependency in setup.cfg as a pip constraint: `name==version` lines.

Usage: python tools/oldest_versions.py > constraints-oldest.txt
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

SETUP = Path(__file__).resolve().parents[1] / "setup.cfg"
BOUND = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*(?:>=|==)\s*([0-9][0-9A-Za-z.]*)$")


def lower_bounds(text: str) -> dict[str, str]:
    """Return the lower bound of each requirement in the text of a setup.cfg, by package name.

    A package that stands in several extras gets the highest of its bounds.
    """
    config = configparser.ConfigParser()
    config.read_string(text)
    lines = config["options"]["install_requires"].splitlines()
    for extra in config["options.extras_require"].values():
        lines += extra.splitlines()
    bounds: dict[str, str] = {}
    for match in filter(None, (BOUND.match(line.strip()) for line in lines)):
        name, version = match[1].lower().replace("_", "-"), match[2]
        bounds[name] = max(bounds.get(name, "0"), version, key=lambda v: [int(n) for n in re.findall(r"\d+", v)])
    return bounds


if __name__ == "__main__":
    for package, version in sorted(lower_bounds(SETUP.read_text(encoding="utf-8")).items()):
        print(f"{package}=={version}")
