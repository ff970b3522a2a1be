"""The commands about releases: make, check, compare, restore, import, score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common.groups import SomeId
from pipeline.cli.common.options import (
    COUNT,
    PATH,
    cli,
    in_workspace,
    open_workspace,
    place_option,
    set_option,
    settings_typed,
    template_option,
)
from pipeline.cli.common.output import Failed, output
from pipeline.cli.common.running import freeze, listed
from pipeline.words import counted

if TYPE_CHECKING:
    from pipeline.release.document import Document
    from pipeline.workspace.workspace import Workspace


@cli.command()
@click.option("--version", "release", metavar="V", help="Make the release of this version.")
@click.option("--unverified", is_flag=True, help="Take what no person has verified, and say so.")
@click.option("--ids-only", is_flag=True, help="Leave clips and frames out.")
@click.option("--verify", metavar="DIR", help="Check a release instead of making one.")
@click.option(
    "--leaks",
    type=PATH,
    multiple=True,
    metavar="LIST",
    help="A training list to hold the release against; the card tells the overlap. Repeatable.",
)
@place_option
@set_option
def export(
    workspace: str,
    settings: tuple[str, ...],
    release: str | None,
    unverified: bool,
    ids_only: bool,
    verify: str | None,
    leaks: tuple[Path, ...],
) -> None:
    """Freeze the tables into a release, or verify one.

    A release with a video that was taken down does not verify: takedowns are read from the
    workspace it lies in and from --workspace.

    \b
        avatar-build export --version 0.1 --unverified
        avatar-build export --version 0.2 --unverified --leaks vggss_144k.csv
        avatar-build export --verify releases/0.1
    """
    if verify:
        _verify(verify, workspace, leaks)
        return
    if not release:
        raise click.UsageError("name a version with --version, or a release with --verify DIR.")
    from pipeline.arrow import spare_pandas

    spare_pandas()
    opened = open_workspace(workspace, settings)
    summary = freeze(opened, release, unverified=unverified, ids_only=ids_only, leak_lists=leaks)
    output().tell(summary.as_dict(), summary.sentence())


def _verify(place: str, workspace: str, lists: Sequence[Path]) -> None:
    from pipeline.release.remote import local_release

    with local_release(place) as folder:
        _verify_folder(folder, place, workspace, lists)


def _verify_folder(folder: Path, place: str, workspace: str, lists: Sequence[Path]) -> None:
    from exports.release.leak_audit import audit
    from exports.verify.verify_release import verified
    from pipeline.arrow import spare_pandas
    from pipeline.release.read import read_document
    from pipeline.release.remote import is_remote, workspace_of
    from pipeline.workspace.storage import Storage
    from pipeline.workspace.takedowns import read_takedowns

    spare_pandas()
    takedowns = read_takedowns(Storage(workspace))
    if is_remote(place) and (around := workspace_of(place)):
        takedowns += read_takedowns(around)
    with verified(folder, takedowns) as (document, findings):
        leaks = [audit(document or read_document(folder), path) for path in lists]
        note = _not_checked(document, folder) if document and not findings else ""
    said = output()
    said.tell(
        {
            "findings": [finding.__dict__ for finding in findings],
            "leaks": [leak.model_dump(mode="json") for leak in leaks],
        }
    )
    for leak in leaks:
        shared = f"{counted(len(leak.videos), 'video')} and {counted(leak.clips, 'clip')}"
        said.say(f"{leak.list_name}: {counted(leak.list_ids, 'video')}; {shared} are here too.")
        if leak.unsure or leak.unread:
            said.say(
                f"{leak.list_name}: {counted(leak.unsure, 'more video', 'more videos')} may be"
                f" here, as names do not tell; lines that name no video: {leak.unread}."
            )
    for finding in findings[:20] if not said.json else []:
        click.echo(f"{finding}", err=True)
    if findings:
        raise Failed(f"{place}: {counted(len(findings), 'finding')}.")
    said.say(f"{place}: no findings.{note}")


def _not_checked(document: Document, folder: Path) -> str:
    """Return what a release without findings leaves open, a sentence each."""
    from exports.verify.checks import unmeasured

    images, note = document.images, ""
    if not document.info.verified:
        note += " The release itself is unverified: people did not check it all."
    if bare := sum(not image.recorded_sha256 for image in images):
        note += f" {bare} of {len(images)} images not compared: their tables had no digest."
    if bare := unmeasured(document, folder):
        note += f" {counted(bare, 'clip')} not compared: nothing says what was measured of them."
    return note


@cli.command("fetch-media")
@click.argument("folder", type=PATH, metavar="DIR")
@template_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A download setting.")
def fetch_media(folder: Path, settings: tuple[str, ...]) -> None:
    """Restore clips and frames of a release that ships without media, and list what is gone.

    Frames are held against the release's fingerprints. attrition.csv in DIR keeps, with dates,
    which videos are gone, private, blocked or changed. Run again, it goes on with what is missing.

    \b
        avatar-build fetch-media releases/0.1
    """
    import tempfile
    from collections import Counter
    from datetime import UTC, datetime

    from exports.restore import fetch_media as restore
    from pipeline.config import load_config
    from stages.download.refetch import refetch

    config = load_config("", settings_typed(settings)).download
    said = output()
    restored = said.result["videos"] = []
    with tempfile.TemporaryDirectory(prefix="fetch-media-") as scratch:
        done = restore(
            folder,
            lambda videos: refetch(config, Path(scratch), videos),
            today=datetime.now(UTC).date(),
        )
        for row in done:
            restored.append(row.__dict__)
            said.say(f"{row.video_id} {row.status} {row.detail}".rstrip())
    statuses = Counter(video["status"] for video in restored)
    said.say(f"{listed(statuses.most_common()) or 'nothing was missing'}. {folder}")


@cli.command("import-release")
@click.argument("source", type=PATH, metavar="DIR")
@click.option(
    "--to", "target", type=PATH, required=True, metavar="NEW", help="The release to write."
)
@click.option("--format", "form", default="", metavar="F", help="Default: found out. See above.")
def import_release(source: Path, target: Path, form: str) -> None:
    """Read a foreign release, a folder or ZIP as downloaded, and write it in our form.

    Formats: avatar (the authors' layout), vggss (vggss.json), is3 (IS3_annotation.json), avsbench
    (gt_masks), flickr (XML of Flickr-SoundNet). Pictures, clips and sounds named like the samples
    come along, and the pairs of the extended sets (*_plus_silent.csv). What cannot be used is
    listed, with reasons, in NEW/statistics.json.

    \b
        avatar-build import-release AVATAR --to releases/avatar-official
    """
    from exports.importers.import_release import import_release as importing

    summary = importing(source, target, form)
    output().tell(summary.as_dict(), summary.sentence())


@cli.group()
def release() -> None:
    """Compare releases."""


@release.command()
@click.argument("old", type=PATH, metavar="OLD")
@click.argument("new", type=PATH, metavar="NEW")
@click.option("--rows", type=COUNT, default=40, show_default=True, help="Rows listed at most.")
def diff(old: Path, new: Path, rows: int) -> None:
    """Say which rows of two releases were added, removed or changed.

    \b
        avatar-build release diff releases/0.1 releases/0.2
    """
    from exports.diff import as_json, as_lines
    from pipeline.release.read import read_document

    documents = (read_document(old), read_document(new))
    output().tell(as_json(*documents), *as_lines(*documents, rows))


@cli.command()
@click.argument("video_id", metavar="ID", type=SomeId())
@click.option("--reason", default="", help="Kept beside the takedown, in no release.")
@in_workspace
def takedown(workspace: Workspace, video_id: str, reason: str) -> None:
    """Keep a video out of every release from now on.

    \b
        avatar-build takedown --workspace ws -1pRmoJIGQc
    """
    from exports.release.takedown import releases_with
    from pipeline.workspace.takedowns import record_takedown

    storage = workspace.storage
    takedown = record_takedown(storage, video_id, reason)
    older = releases_with(storage, video_id)
    said = output()
    said.tell(
        {**takedown.model_dump(mode="json"), "still_in": older},
        f"{video_id}: taken down on {takedown.date}. The next release will not have it.",
    )
    if older:
        said.say(f"Still in {', '.join(older)}: export a new version and withdraw these.")
