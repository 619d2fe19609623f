"""The HTTP service: an interface of JSON for programs, and a page for people. For research; not a medical device."""

from __future__ import annotations

from deri.serving.app import create_app
from deri.serving.limits import Limits
from deri.serving.service import Service

__all__ = ["Limits", "Service", "create_app"]
