"""Reports: cleaning, and what each class looks like in a report (prompts)."""

from __future__ import annotations

from deri.reports.clean import MIN_WORDS, clean_report, count_words, join_report
from deri.reports.knowledge import TASKS, class_names, load_prompt_file, load_prompts, prompts_for

__all__ = [
    "MIN_WORDS",
    "TASKS",
    "class_names",
    "clean_report",
    "count_words",
    "join_report",
    "load_prompt_file",
    "load_prompts",
    "prompts_for",
]
