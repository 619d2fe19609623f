"""Evaluation: zero-shot classification, retrieval, metrics and plots."""
