"""A pull that was refused for room is insisted on by starting it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core import downloads
from app.core.downloads import Downloads
from models.catalog import Source
from models.pull import PullFailed, PullJob


class Recorded:
    """A pull that does nothing."""

    jobs: list[PullJob]

    def __init__(self, job: PullJob, report: object) -> None:
        self.jobs.append(job)

    def start(self) -> None:
        """Nothing."""


def test_the_same_pull_again_insists_and_another_one_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Recorded.jobs = []
    monkeypatch.setattr(downloads, "Pull", Recorded)
    pulls = Downloads(lambda number, event: None)
    for number, (name, reason) in enumerate(
        (("a", "room"), ("b", "room"), ("b", "network"), ("b", "network")), start=1
    ):
        pulls.start(name, [Source(repo="me/tiny-it")], tmp_path)
        assert pulls.hear(number, PullFailed(reason, "why."))  # type: ignore[arg-type]
    assert [job.is_insisting for job in Recorded.jobs] == [False, False, True, False]
