"""What the cloud says of jobs: each is asked for at most once a poll interval, whoever looks how often.

Not for: what follows from it (`core.servers.batches`), or how many reads there are in a second (`cce.reads`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.errors import CloudError, is_about_the_document
from nodepool_membership.cce.snapshots import SnapshotKey
from nodepool_membership.core.observed.observation import JobPhase, JobReport
from nodepool_membership.runtime.cloud import error_mapping
from nodepool_membership.runtime.cloud.error_mapping import TroubleError

_log = logging.getLogger(__name__)

_SHARE: Final = 0.9
"""Of a poll interval: the next poll of a key comes up to a tenth earlier."""
MAX_KEPT: Final = 20_000
"""Sub jobs of all reports that are kept: about 20 MB where each has the longest text."""


class Jobs:
    """Reports of jobs that were not over, until they may be asked for again. `poll` and `monotonic` are seconds.

    Where they are too many, the newest: the others are asked for again at each look.
    """

    def __init__(self, poll: float, *, monotonic: Callable[[], float]) -> None:
        self._keep = poll * _SHARE
        self._monotonic = monotonic
        self._kept: dict[tuple[SnapshotKey, str], tuple[float, JobReport]] = {}
        """The oldest first."""
        self._size = 0

    async def ask(self, client: CloudClient, key: SnapshotKey, job_ids: Iterable[str]) -> dict[str, JobReport]:
        """What is said of some jobs, all at once. One that cannot be read is on its way, as far as anybody knows.

        Raises:
            TroubleError: it did not answer for all, for a cause that is not the job.
        """
        self._drop_old()
        known = {i: self._kept[key, i][1] for i in job_ids if (key, i) in self._kept}
        unknown = [i for i in job_ids if i not in known]
        asked = dict(zip(unknown, await asyncio.gather(*(_report(client, i) for i in unknown)), strict=True))
        for job_id, report in asked.items():
            if not report.is_over:
                self._drop((key, job_id))
                self._kept[key, job_id] = (self._monotonic(), report)
                self._size += _size(report)
        self._drop_old()
        return known | asked

    def _drop_old(self) -> None:
        old = self._monotonic() - self._keep
        while self._kept:
            of, (at, _) = next(iter(self._kept.items()))
            if at > old and self._size <= MAX_KEPT:
                return
            self._drop(of)

    def _drop(self, of: tuple[SnapshotKey, str]) -> None:
        _, report = self._kept.pop(of, (0.0, None))
        self._size -= 0 if report is None else _size(report)


def _size(report: JobReport) -> int:
    return 1 + len(report.sub_jobs) + len(report.explanations)


async def _report(client: CloudClient, job_id: str) -> JobReport:
    try:
        return await client.get_job(job_id)
    except CloudError as error:
        if not is_about_the_document(error):
            raise TroubleError(error_mapping.of_read(error, "a job", client.clock_offset_seconds)) from None
        # Its servers are followed by their nodes; it must not keep the others from being looked at.
        _log.warning("a job cannot be read: %s", error_mapping.said(error), extra={"jobID": job_id})
        return JobReport(job_id, JobPhase.UNREADABLE)
