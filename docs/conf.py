"""
Sphinx's configuration.  C{make docs} builds the site into C{build/docs/html}.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import darner

project = "darner"
copyright = "The darner authors"
author = "The darner authors"
version = release = darner.__version__

extensions = [
    "sphinx.ext.extlinks",
    "sphinx_click",
    "docs.site.links",
    "docs.site.settings",
    "docs.site.metrics",
    "docs.site.http_api",
    "docs.site.alerts",
]
exclude_patterns = ["site"]
extlinks = {"api": ("../api/%s.html", "%s")}
nitpicky = True
highlight_language = "none"
smartquotes = False

html_theme = "furo"
html_title = "darner"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#7ab7f5", "color-brand-content": "#7ab7f5"},
    "navigation_with_keys": True,
}

linkcheck_ignore = [r"\.\./api/.*", r"https?://(localhost|127\.0\.0\.1|queues\.example\.org)\b.*"]
"""What pydoctor makes, this machine, and examples."""
linkcheck_timeout = 30
linkcheck_retries = 2
