"""What one request, one client and all of them together may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the service.

    Attributes:
        body_bytes: of a request.
        files: of a request.
        recordings: of a request; a file may hold several.
        duration_s: of the recordings of a request together.
        body_s: from the first byte of a request to its last.
        work_s: from then on to the answer.
        waiting: requests that are worked on or wait for it; the next one is sent away with 503.
        rate: requests per minute and client address; None: any number.
    """

    body_bytes: int = 64 * 2**20
    files: int = 32
    recordings: int = 64
    duration_s: float = 1800.0
    body_s: float = 30.0
    work_s: float = 60.0
    waiting: int = 256
    rate: float | None = None


MAX_LABELS, MAX_LABEL_CHARACTERS = 200, 500
