"""MkDocs hooks: generate the pages that are made from code and records, and the tables inside written pages.

A written page asks for a table by a line of its own, for example::

    <!-- options: QMIX -->
    <!-- settings: mpc.MPCSettings -->
    <!-- switches: AWRQMixerV2 -->
"""

from __future__ import annotations

import re
from typing import Any

from docs_algorithms import options_table, settings_table, switches_table
from docs_environments import environment_pages
from docs_reference import api_page, cli_page
from docs_results import result_pages
from mkdocs.structure.files import File, Files

from benchmarks.suite import reference

REQUEST = re.compile(r"^<!-- (options|settings|switches): (\S+) -->$", re.M)
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code)")
"""A reStructuredText role in a docstring, after Markdown has made code of its argument."""
TABLES = {"options": options_table, "settings": settings_table, "switches": switches_table}


def on_config(config: Any) -> Any:
    """List a page of results for each experiment that has reference records."""
    pages = ["results/index.md", *(f"results/{name}.md" for name in reference.reference_names())]
    results = next(section for section in config.nav if "Results" in section)
    results["Results"] = pages
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the generated pages to the site."""
    pages = {"reference/cli.md": cli_page(), "reference/api.md": api_page(), **environment_pages()}
    for path, content in {**pages, **result_pages()}.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the requests for tables by the tables."""
    return REQUEST.sub(lambda match: TABLES[match[1]](match[2]), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles of docstrings; their arguments stay as code."""
    return ROLE.sub("", html)
