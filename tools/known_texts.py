"""Write what the text encoder of the built-in models makes of the package's prompts, so that they start without it.

    python tools/known_texts.py

Run it after a change of prompts: tests/models/test_installed_text.py compares the file with the encoder.
"""

from __future__ import annotations

from deri.models import load_model
from deri.models.builtin import DEFAULT_MODEL
from deri.models.installed_text import KNOWN_TEXTS, MINILM, save_known_texts


def main() -> None:
    """Write the file anew."""
    save_known_texts(MINILM.load(load_model(DEFAULT_MODEL).config.text))
    print(KNOWN_TEXTS, KNOWN_TEXTS.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
