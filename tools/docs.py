"""Builds the documentation site: gathers its pages, writes one for each command, and runs Sphinx, warnings as errors.

    python tools/docs.py build/docs

Nothing is fetched, and nothing is written outside the folder named and ``build/docs-pages``.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "docs-pages"
BESIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
"""Pages that lie beside ``docs/`` → their names on the site."""


def gather(pages: Path) -> None:
    """Copy ``docs/`` and the pages beside it to ``pages``, with links that hold there."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(ROOT / "docs", pages)
    for name, page in BESIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        (pages / page).write_text(text.replace("](docs/", "]("), encoding="utf-8")
    for file in pages.rglob("*.md"):
        text = file.read_text(encoding="utf-8")
        for name, page in BESIDE.items():
            text = text.replace(f"](../{name}", f"]({page}").replace(f"]({name}", f"]({page}")
        # Files of the repository that are no pages are named without a link.
        text = re.sub(r"\[([^\]]*)\]\((?:\.\./)+(?:src|examples|tests|benchmarks)/[^)]*\)", r"\1", text)
        text = re.sub(r"\]\(results\)", "](results/index.md)", text)
        file.write_text(text, encoding="utf-8")


def command_pages(folder: Path) -> None:
    """Write a page for each command of ``deri``, from its help, and an index of them."""
    folder.mkdir(parents=True)
    pages = dict(_commands())
    for name, text in pages.items():
        (folder / f"{name.replace(' ', '-')}.md").write_text(text, encoding="utf-8")
    entries = "\n".join(name.replace(" ", "-") for name in pages)
    index = "# Commands\n\nOne page a command, from its `--help`. `deri --debug …` shows the traceback of an error.\n\n"
    (folder / "overview.md").write_text(f"{index}```{{toctree}}\n{entries}\n```\n", encoding="utf-8")


def _commands() -> Iterator[tuple[str, str]]:
    from typer.main import get_command

    from deri.cli.main import app

    top = get_command(app)
    for name, command in top.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, _page(f"deri {name}", command)
        else:
            yield from ((f"{name} {verb}", _page(f"deri {name} {verb}", one)) for verb, one in inner.items())


def _page(name: str, command: object) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    rows = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    table = [f"| `{what}` | {_cell(text)} |" for what, text in filter(None, rows) if what != "--help"]
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f"# {name}",
        f"    {name} {usage}",
        command.help or "",
        "| option | meaning |\n|---|---|\n" + "\n".join(table),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main(out: Path) -> int:
    """Build the site; returns the exit code."""
    from sphinx.cmd.build import build_main

    gather(PAGES)
    command_pages(PAGES / "commands")
    return build_main(["-W", "--keep-going", "-q", "-b", "html", str(PAGES), str(out)])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
