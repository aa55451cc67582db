"""How Sphinx builds these pages; ``make docs`` runs it."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pykka-imagestore"
copyright = "the pykka-imagestore authors; Apache-2.0"
release = version = installed_version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_source"]
exclude_patterns = ["_ext"]

# Links between pages name headings as GitHub does, so that they work there too.
myst_heading_anchors = 3

# In an annotation, ``bytes`` is Python's, and not one of our values' attributes of that name.
suppress_warnings = ["ref.python"]

autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 160
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Spec", "Source"]

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
