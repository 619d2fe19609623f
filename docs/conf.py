"""The documentation site. ``make docs`` gathers the pages (tools/docs.py) and builds them from there."""

from deri import __version__

project = "deri"
copyright = "the deri developers"
version = release = __version__
html_title = f"deri {__version__}"
html_theme = "furo"
myst_enable_extensions = ["deflist"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
