"""Reports: cleaning, a labeller of their findings, single statements, and prompts of the classes of tasks."""

from __future__ import annotations

from deri.reports.clean import MIN_WORDS, clean_report, count_words, join_report, without_stamps
from deri.reports.prompts import TASKS, class_names, load_prompt_file, load_prompts, prompts_for

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
    "without_stamps",
]
