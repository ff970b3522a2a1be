"""Fetch videos, as the site lets us: identities take turns, waits are kept, what fails is told.

A batch's rows are transferred by threads: the site's patience, not this machine, sets the pace. A
rate limit, a bot check, or many rows in succession refused without a reason rest the identity and
are not counted against the rows; when no identity is left, the run stops and its rows stay pending.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pipeline.config import DownloadConfig
from pipeline.errors import InputError, MediaError, StopRun
from pipeline.files import sha256_of
from pipeline.media import PROBE_VERSION, probe
from pipeline.records.schema import Source, Video, check_video_id
from pipeline.run.stage import Drop, Fail, Ok, Outcome, WorkerContext
from pipeline.words import size
from stages.download.archive import Sidecar, VideoArchive, video_path
from stages.download.candidates import Rejection, license_detail, matches_license, rejections
from stages.download.failure_kinds import KINDS, SiteFailure
from stages.download.fetching import Redactor, Refused, Site, Watch
from stages.download.identity import Identity, IdentityPool, Pace, parse_identities

_STATE = "media/identities.json"
_VAGUE = frozenset(name for name, kind in KINDS.items() if kind.vague)
_FULL_BELOW_BYTES = 50_000_000
"""A disk with less than this is full, however low min_free_bytes is set."""


class Fetcher:
    """Fetch, verify and filter videos, several at once."""

    def __init__(self, config: DownloadConfig, ctx: WorkerContext, site: Site | None) -> None:
        """Find the identities and the site.

        Args:
            config: see there.
            ctx: the workspace the videos are written to.
            site: where they come from, in place of what ``config`` names.

        Raises:
            UsageError: an identity or an option that cannot be used.
        """
        self.config = config
        self._stop = threading.Event()
        self._was_blocked = False
        self._watch = Watch(ctx.heartbeat, self._stop)
        identities = parse_identities(config.identities)
        proxies = [identity.proxy for identity in identities if identity.proxy]
        self._redact = Redactor(config.options, [*proxies, config.source_template])
        self._storage = ctx.storage
        self._archive = VideoArchive(ctx.storage, ctx.scratch)
        state = ctx.storage.local_path(_STATE) or ctx.scratch / "identities.json"
        self._disk = state.parent
        self._pool = IdentityPool(
            identities, pace_of(config), state, beat=self._watch.beat, stop=self._stop
        )
        self._site = site or _site_of(config, identities, self._watch, self._archive.parts)

    def outcomes(self, rows: Sequence[Source]) -> Iterator[Outcome]:
        """Answer every row; several are under way at once.

        A row refused without a reason is answered last: when an identity turns out to have been
        blocked meanwhile, it is asked for again.
        """
        while rows:
            refused: dict[str, Outcome] = {}
            self._was_blocked = False
            for outcome in self._answers(rows):
                if isinstance(outcome, Fail) and outcome.kind in _VAGUE:
                    refused[outcome.id] = outcome
                else:
                    yield outcome
            if not self._was_blocked:
                yield from refused.values()
                return
            rows = [row for row in rows if row.video_id in refused]

    def _answers(self, rows: Sequence[Source]) -> Iterator[Outcome]:
        with ThreadPoolExecutor(self.config.concurrency) as threads:
            answers = [threads.submit(self._answer, row) for row in rows]
            try:
                for answer in as_completed(answers):
                    yield answer.result()
            except BaseException:
                self._stop.set()  # ends the waits and transfers of the other rows
                threads.shutdown(cancel_futures=True)
                self._stop.clear()
                raise

    def close(self) -> None:
        """Close the site's connections."""
        if close := getattr(self._site, "close", None):
            close()

    def _answer(self, row: Source) -> Outcome:
        try:
            check_video_id(row.video_id)
            sidecar = self._known(row) or self._fetch(row)
            return self._decide(row, sidecar)
        except Refused as refused:
            self._archive.forget_part(row.video_id)
            return Drop(row.video_id, refused.reason, refused.detail)
        except SiteFailure as error:
            self._archive.tidy_part(row.video_id)
            return Fail(row.video_id, error.kind, self._redact(error.detail), error.retryable)
        except InputError as error:
            return Fail(row.video_id, error.kind, self._redact(error.detail), error.retryable)

    def _known(self, row: Source) -> Sidecar | None:
        """Return the outcome by what an earlier run knows, if that is enough to decide."""
        sidecar = self._archive.recall(row.video_id, self.config.format)
        if sidecar is None:
            return None
        if sidecar.probe_version != PROBE_VERSION:
            return self._probed_again(sidecar)
        if self._rejections(sidecar) or self._archive.is_whole(sidecar):
            return sidecar
        return None

    def _probed_again(self, sidecar: Sidecar) -> Sidecar | None:
        """Return the facts of a file by today's reading of it; none when it is no longer there."""
        if not self._archive.is_whole(sidecar):
            return None
        with self._storage.as_local(sidecar.path) as file:
            facts = {"media": probe(file), "probe_version": PROBE_VERSION}
        again = sidecar.model_copy(update=facts)
        self._archive.keep(again, None)
        return again

    def _decide(self, row: Source, sidecar: Sidecar) -> Outcome:
        found = self._rejections(sidecar)
        if not found:
            return Ok(row.video_id, [video_record(row, sidecar)])
        if not self.config.keep_rejected:
            self._archive.remove(sidecar)
        return Drop(row.video_id, found[0].reason, "; ".join(one.detail for one in found))

    def _rejections(self, sidecar: Sidecar) -> list[Rejection]:
        return rejections(sidecar.media, sidecar.site.license, self.config)

    def _fetch(self, row: Source) -> Sidecar:
        """Try until it is there, or it is clear that it will not be."""
        attempts = unfit = stale = alone = 0
        rested_until = float("inf")
        while True:
            self._need_disk()
            identity = self._pool.start()
            try:
                return self._fetch_once(row, identity)
            except MediaError:
                unfit += 1
                self._archive.forget_part(row.video_id)
                if unfit > 1:
                    raise
            except SiteFailure as failure:
                if failure.meaning.pause:
                    # A site that serves others after each pause means this one video.
                    alone += self._pool.has_served_since(rested_until)
                    if alone > self.config.max_pauses:
                        raise
                    rested_until = self._pool.block(identity, failure.kind)
                    continue
                if failure.meaning.vague and self._pool.refused(
                    identity, row.video_id, failure.kind
                ):
                    self._was_blocked = True
                    attempts = 0
                    continue
                if failure.kind == "local_disk":
                    self._need_disk()
                if failure.kind == "stale_partial":
                    self._archive.forget_part(row.video_id)
                    stale += 1
                    if stale == 1:
                        continue
                attempts += 1
                if not failure.meaning.again or attempts >= self.config.retries:
                    if not failure.retryable:
                        self._archive.forget_part(row.video_id)
                    raise
                self._pool.wait(backoff_s(row.video_id, attempts, failure, self.config))

    def _fetch_once(self, row: Source, identity: Identity) -> Sidecar:
        folder = self._archive.part_folder(row.video_id)
        fetched = self._site.fetch(row.video_id, folder, identity)
        self._pool.succeeded(identity)
        media = probe(fetched.file)
        if media.duration_s > self.config.max_duration_s:
            longest_s = self.config.max_duration_s
            raise Refused("too_long", f"{media.duration_s:.0f} s, over {longest_s:.0f}")
        sidecar = Sidecar(
            video_id=row.video_id,
            selection=self.config.format,
            path=video_path(row.video_id, fetched.file.suffix),
            sha256=sha256_of(fetched.file),
            size_bytes=fetched.file.stat().st_size,
            media=media,
            probe_version=PROBE_VERSION,
            site=fetched.facts,
        )
        wanted = self.config.keep_rejected or not self._rejections(sidecar)
        self._archive.keep(sidecar, fetched.file if wanted else None)
        return sidecar

    def _need_disk(self) -> None:
        free = shutil.disk_usage(self._disk).free
        least = max(self.config.min_free_bytes, _FULL_BELOW_BYTES)
        if free < least:
            raise StopRun(
                f"download: {size(free)} free on the disk, under the {size(least)} that"
                " download.min_free_bytes keeps free. Make room and run again: nothing is lost."
            )


def pace_of(config: DownloadConfig) -> Pace:
    """Return YouTube's pace, or a mirror's own, which has no hourly bound."""
    if config.source_template:
        return Pace(config.mirror_sleep_s, None)
    return Pace(
        config.sleep_s, config.max_per_hour, config.pause_s, config.max_pauses, config.max_refusals
    )


def _site_of(
    config: DownloadConfig, identities: Sequence[Identity], watch: Watch, parts: Path
) -> Site:
    if config.source_template and not config.source_template.startswith(("http://", "https://")):
        from stages.download.local_files import LocalFiles

        return LocalFiles(config.source_template, config.max_bytes)
    from stages.download.ytdlp import YtDlp

    def wanted(license_text: str) -> None:
        if not matches_license(license_text, config.require_license):
            raise Refused("license", license_detail(license_text, config.require_license))

    return YtDlp(config, identities, watch, wanted, parts / ".cache")


def backoff_s(video_id: str, attempt: int, failure: SiteFailure, config: DownloadConfig) -> float:
    """Return the wait after the ``attempt``-th failure: doubling, jittered by id, or as asked."""
    digest = hashlib.sha256(f"{video_id} {attempt}".encode()).digest()
    jitter = 1 + 0.5 * int.from_bytes(digest[:4]) / 2**32
    seconds = config.backoff_s * 2.0 ** (attempt - 1) * jitter
    return min(max(seconds, failure.retry_after_s or 0.0), config.backoff_max_s)


def video_record(row: Source, sidecar: Sidecar) -> Video:
    """Return the row of ``videos`` for a file that passed the filter."""
    media = sidecar.media
    return Video(
        video_id=row.video_id,
        label=row.label,
        split=row.split,
        path=sidecar.path,
        sha256=sidecar.sha256,
        size_bytes=sidecar.size_bytes,
        width=media.width,
        height=media.height,
        fps=media.fps,
        frame_count=media.frame_count,
        duration_s=media.duration_s,
        bitrate_bps=media.bitrate_bps,
        video_codec=media.video_codec,
        audio_codec=media.audio_codec or "",
        sample_rate_hz=media.sample_rate_hz,
        channels=media.channels,
        video_stream=media.video_stream,
        audio_stream=media.audio_stream,
        **sidecar.site.model_dump(),
    )
