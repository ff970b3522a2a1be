"""Fetch the whole original video of each list row, and keep the candidates.

Reads ``sources``, writes ``videos`` (paper, section 3.1.1). ``fetcher`` says how they are fetched,
``candidates`` which are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pipeline.config import DownloadConfig
from pipeline.records.schema import Source
from pipeline.run.stage import Outcome, Stage, StageSpec, WorkerContext

if TYPE_CHECKING:
    from stages.download.fetching import Site


class FetchVideos(Stage[DownloadConfig]):
    """Fetch, verify and filter videos.

    Args:
        config: see there.
        site: where videos come from, in place of what ``config`` names.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="download",
        version=3,
        reads="sources",
        writes=("videos",),
        rows_per_unit=32,
        batch_size=32,
        row_timeout_s=180.0,
        max_workers=1,
    )

    def __init__(self, config: DownloadConfig, site: Site | None = None) -> None:
        self.config = config
        self._site = site

    def open(self, ctx: WorkerContext) -> None:
        """Load PyAV, and find the identities and the site.

        Raises:
            UsageError: an identity or an option that cannot be used.
        """
        from stages.download.fetcher import Fetcher

        self._fetcher = Fetcher(self.config, ctx, self._site)

    def process(self, rows: Sequence[Source]) -> Iterator[Outcome]:
        """Answer every row; several are under way at once."""
        return self._fetcher.outcomes(rows)

    def close(self) -> None:
        """Close the site's connections."""
        self._fetcher.close()
