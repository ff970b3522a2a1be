"""``evaluate``: any model's scores on a release; ``evaluate-images`` is its earlier name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.cli.common.options import COUNT, PATH, POSITIVE, cli
from pipeline.cli.common.output import output

if TYPE_CHECKING:
    from tavlo.evaluation.evaluate import Scores
    from tavlo.evaluation.evaluation_set import EvaluationSet
    from tavlo.evaluation.image_models import ImagePredictor
    from tavlo.evaluation.open_predictor import ClipPredictor
    from tavlo.evaluation.predictions import Predictions

    Model = ImagePredictor | ClipPredictor


@dataclass(frozen=True)
class Asked:
    """The options of ``evaluate`` as typed."""

    release: Path
    predictions: Path | None
    checkpoint: str
    model: str
    prior: str
    object_prior: str
    variant: str
    windows: tuple[float, ...]
    cache: Path | None
    device: str
    allow_overlap: bool
    avatar_tables: bool
    retrieval: bool
    gt: Literal["mask", "box"]
    max_missing: int
    seed: int
    sensitivity_clips: int
    train_lists: tuple[Path, ...]
    out: Path | None
    gallery: bool
    clips: tuple[str, ...]


def _folder(name: str, help: str, *, required: bool = False) -> click.Option:
    return click.Option([name], type=PATH, metavar="DIR", required=required, help=help)


def _text(name: str, metavar: str, help: str) -> click.Option:
    return click.Option([name], default="", metavar=metavar, help=help)


def _switch(name: str, help: str) -> click.Option:
    return click.Option([name], is_flag=True, help=help)


_OPTIONS = (
    _folder(
        "--release",
        "A release, or an imported VGG-SS, Flickr-SoundNet, IS3 or AVSBench.",
        required=True,
    ),
    _folder(
        "--predictions",
        "Heatmaps: <clip_id>.npz (or .parquet) with frame_index (n,) and heatmap (n, y, x),"
        " any resolution.",
    ),
    _text(
        "--checkpoint",
        "FILE",
        "Compute a model's heatmaps first, into --predictions or OUT/predictions: of train-tavlo,"
        " or with --model of its authors; a file or a registered name.",
    ),
    _text("--model", "NAME", "ezvsl, slavc, ssltie, lvs, sslalignment, ..."),
    _text("--prior", "FILE", "Mix in the object prior: ImageNet's ResNet-18."),
    _text(
        "--object-prior",
        "FILE",
        "Score the object prior too, beside the model's numbers: ImageNet's ResNet-18, a file or a"
        " registered name. Its heatmaps go to OUT/object-prior.",
    ),
    _text("--variant", "V", "Another of the authors' post-processings."),
    click.Option(
        ["--window", "windows"],
        type=POSITIVE,
        multiple=True,
        metavar="S",
        help="Seconds of sound around each frame, for models of one picture; results go to"
        " OUT/window-S. Repeatable. Default: 10, in OUT.",
    ),
    _folder("--cache", "Keep TAVLO's small copies of the clips for a next checkpoint."),
    click.Option(
        ["--device"],
        default="auto",
        show_default=True,
        metavar="D",
        help="auto, cpu, cuda or cuda:N.",
    ),
    _switch("--allow-overlap", "Score a model on videos it was trained on."),
    _switch("--avatar-tables", "AVATAR's tables on an older benchmark, not its own."),
    _switch("--retrieval", "Also R@1, 5, 10 between pictures and sounds."),
    click.Option(["--gt"], type=click.Choice(["mask", "box"]), default="mask", show_default=True),
    click.Option(
        ["--max-missing", "--max-failed", "max_missing"],
        type=COUNT,
        default=0,
        metavar="N",
        help="Frames that may lack a heatmap, or the picture or sound for one.",
    ),
    click.Option(["--seed"], type=COUNT, default=0, show_default=True, help="Of the bootstrap."),
    click.Option(
        ["--sensitivity-clips"],
        type=COUNT,
        default=64,
        show_default=True,
        metavar="N",
        help="Clips that tell without labels whether a model hears: each is asked about again, with"
        " another clip's sound.",
    ),
    click.Option(
        ["--train-list", "train_lists"],
        type=PATH,
        multiple=True,
        metavar="FILE",
        help="What the model was trained on: tell how much of it is scored. Repeatable.",
    ),
    _folder(
        "--out", "Write scores.md, .tex, .csv, .json and frames.csv there, over earlier results."
    ),
    _switch("--gallery", "Write gallery.html to --out: frames per scenario."),
    click.Option(
        ["--clip", "clips"],
        multiple=True,
        metavar="ID",
        help="Write overlays/ to --out: this clip's labelled frames and a film, and where"
        " TAVLO attends if --checkpoint is one. Repeatable.",
    ),
)


@cli.command(params=[*_OPTIONS])
def evaluate(**typed: Any) -> None:
    """Score any model on a release with the AVATAR paper's tables, or on an older set with its own.

    Heatmaps come from files, or are computed from a checkpoint on the release's own pictures,
    sounds and clips. A window of sound that would leave the clip is moved inside it; older sets
    give the whole sound. Frames without picture or sound are listed, never replaced.

    \b
        avatar-build evaluate --release ws/releases/0.1 --predictions heat --out scores --gallery
        avatar-build evaluate --release ws/releases/0.1 --checkpoint runs/a/best.pt --out scores
        avatar-build evaluate --release ws/releases/0.1 --model ezvsl \
--checkpoint vggsound_144k.pth --window 10 --window 5 --window 2 --window 1 --out ezvsl
        avatar-build evaluate --release releases/vggss --model ssltie \
--checkpoint vggsound144k.pth.tar --retrieval --train-list vggss_144k.txt --out ssltie
    """
    _evaluate(Asked(**typed))


@cli.command("evaluate-images", params=[*_OPTIONS])
def evaluate_images(**typed: Any) -> None:
    """Do what ``evaluate`` does, by its earlier name for models of one picture and one sound.

    Without --window, results go to OUT/window-10; on older sets heatmaps go to OUT/heatmaps.

    \b
        avatar-build evaluate-images --release ws/releases/0.1 --model ezvsl \
--checkpoint vggsound_144k.pth --window 10 --window 1 --out ezvsl
    """
    click.echo("evaluate-images: an earlier name of 'evaluate'.", err=True)
    _evaluate(Asked(**typed), earlier_name=True)


def _evaluate(asked: Asked, *, earlier_name: bool = False) -> None:
    from tavlo.evaluation.evaluate import FORMATS
    from tavlo.evaluation.evaluation_set import read_release
    from tavlo.evaluation.predictions import Predictions
    from tavlo.evaluation.training_overlap import refuse_seen

    data = read_release(asked.release)
    of_avatar = not data.imported_from or data.imported_from.startswith("AVATAR")
    older = not (of_avatar or asked.avatar_tables)
    _check_usage(asked, older=older)
    if older:
        from tavlo.evaluation.older_benchmarks import select_test_split

        data = select_test_split(data)
    model: Model | None = None
    prior: Model | None = None
    if asked.checkpoint or asked.object_prior:
        from tavlo.evaluation.open_predictor import open_predictor
    if asked.object_prior:
        prior, _ = open_predictor(
            asked.object_prior, data, model="object-prior", device=asked.device
        )
    if asked.checkpoint:
        model, doubt = open_predictor(
            asked.checkpoint,
            data,
            model=asked.model,
            prior=asked.prior,
            variant=asked.variant,
            device=asked.device,
            cache=asked.cache,
            allow_overlap=asked.allow_overlap,
        )
        if doubt:
            click.echo(f"{asked.checkpoint}: {doubt}", err=True)
    of_images = model is not None and model.of_images
    if (asked.windows or asked.retrieval) and not of_images:
        raise click.UsageError("--window and --retrieval ask a model of one picture and one sound.")
    windows: tuple[float | None, ...] = (None,)
    if of_images and not older:
        windows = asked.windows or (10.0,)
    by_window = bool(asked.windows) or (earlier_name and windows != (None,))
    # Without --out, heatmaps of a folder are scored and nothing is written.
    out = asked.out or Path()
    places = {at: out / f"window-{at:g}" if by_window else out for at in windows}
    found: Mapping[float | None, Predictions]
    if model is None:
        assert asked.predictions is not None
        found = {None: Predictions(asked.predictions)}
        if not asked.allow_overlap:
            refuse_seen(found[None].about(), str(asked.predictions))
        _remove_earlier(asked, [out])
    else:
        _remove_earlier(asked, places.values(), model.about if by_window else None)
        name = "heatmaps" if by_window or earlier_name else "predictions"
        chosen = None if by_window else asked.predictions
        targets = {at: chosen or place / name for at, place in places.items()}
        found = _predict(asked, data, model, targets)
    floors = _score_prior(asked, data, prior) if prior else {}
    if older:
        _score_older(asked, data, model, found[None], floors)
        return
    scores = {
        at: _score(asked, data, model, found[at], place, floors) for at, place in places.items()
    }
    if by_window and model is not None:
        _tell_windows(str(model.about["name"]), scores, out)
    else:
        (told,) = scores.values()
        output().tell(told.as_dict(), FORMATS["md"](told).rstrip("\n"))


def _check_usage(asked: Asked, *, older: bool) -> None:
    """Refuse options that do not go together, before anything is read or removed."""
    if (asked.gallery or asked.clips or asked.object_prior) and not asked.out:
        raise click.UsageError(
            "--gallery, --clip and --object-prior write files: name a folder with --out."
        )
    if not (asked.checkpoint and asked.out) and (asked.model or not asked.predictions):
        raise click.UsageError(
            "name --predictions, or --checkpoint and --out; --model and --checkpoint for a file of"
            " the model's authors."
        )
    if older and asked.windows:
        raise click.UsageError("--window: the model gets the whole sound of an imported set.")
    if older and (asked.gallery or asked.clips):
        raise click.UsageError("--gallery and --clip go with --avatar-tables on an imported set.")
    if asked.retrieval and not older:
        raise click.UsageError("--retrieval is between the samples of an imported set.")


def _remove_earlier(
    asked: Asked, places: Iterable[Path], windows_of: Mapping[str, Any] | None = None
) -> None:
    """Remove an earlier evaluation's files from ``--out``."""
    from tavlo.evaluation.evaluate import remove_results
    from tavlo.published.published_tables import remove_windows

    if not asked.out:
        return
    out, again = asked.out, set(places)
    if windows_of is not None:
        remove_windows(out, windows_of, again)
    if any([remove_results(folder) for folder in {out, *again}]):
        click.echo(f"{out}: the results of an earlier evaluation were removed.", err=True)


def _score_prior(asked: Asked, data: EvaluationSet, prior: Model) -> dict[str, Predictions]:
    """Compute the object prior's heatmaps of the same frames, to stand beside the model's."""
    from tavlo.evaluation.floors import OBJECT_PRIOR

    # It hears nothing: other sounds and other windows of sound are the same to it.
    quiet = replace(asked, clips=(), sensitivity_clips=0)
    found = _predict(quiet, data, prior, {None: (asked.out or Path()) / "object-prior"})
    return {OBJECT_PRIOR: found[None]}


def _predict(
    asked: Asked, data: EvaluationSet, model: Model, targets: Mapping[float | None, Path]
) -> dict[float | None, Predictions]:
    from pipeline.progress import counting
    from tavlo.evaluation.predictions import predict

    clips = len({frame.clip_id for frame in data.frames})
    with counting("predict", clips, of="clips", shown=output().shown) as show:
        found, notes = predict(
            model,
            data,
            targets,
            max_missing=asked.max_missing,
            every_frame_of=asked.clips,
            sensitivity_clips=asked.sensitivity_clips,
            seed=asked.seed,
            show=show,
        )
    missing = [f"{frame}: no heatmap: {why}" for frame, why in notes.failed.items()]
    for sentence in (*notes.said, *missing):
        click.echo(sentence, err=True)
    return found


def _score(
    asked: Asked,
    data: EvaluationSet,
    model: Model | None,
    found: Predictions,
    place: Path,
    floors: Mapping[str, Predictions],
) -> Scores:
    """Fill AVATAR's tables; write them and draw what is asked for."""
    from pipeline.progress import counting
    from tavlo.evaluation.evaluate import PASSES, evaluate, write_scores

    with counting("score", PASSES * len(data.frames), shown=output().shown) as show:
        scores = evaluate(
            data,
            found,
            asked.gt,
            max_missing=asked.max_missing,
            seed=asked.seed,
            train_lists=asked.train_lists,
            sensitivity_clips=asked.sensitivity_clips,
            floors=floors,
            show=show,
        )
    if asked.out:
        write_scores(scores, place)
    if asked.gallery:
        from tavlo.evaluation.gallery import write_gallery

        click.echo(f"{write_gallery(data, found, scores, place / 'gallery.html')}", err=True)
    for clip in asked.clips:
        from tavlo.evaluation.overlay import write_overlays

        folder = place / "overlays"
        written = write_overlays(data, found, clip, scores.threshold, folder)
        if model is not None:
            from tavlo.evaluation.attention import write_attention

            written += write_attention(model, data, clip, folder / f"{clip}.attention.png")
        click.echo(f"{clip}: {len(written)} files in {folder}", err=True)
    return scores


def _score_older(
    asked: Asked,
    data: EvaluationSet,
    model: Model | None,
    found: Predictions,
    floors: Mapping[str, Predictions],
) -> None:
    """Score an older benchmark as its own papers do."""
    from tavlo.evaluation.image_models import ImagePredictor
    from tavlo.evaluation.older_benchmarks import (
        benchmark_table,
        evaluate_benchmark,
        retrieve,
        write_benchmark_scores,
    )
    from tavlo.published.result_table import to_markdown

    scores = evaluate_benchmark(
        data,
        found,
        max_missing=asked.max_missing,
        train_lists=asked.train_lists,
        sensitivity_clips=asked.sensitivity_clips,
        seed=asked.seed,
        floors=floors,
    )
    if asked.retrieval and isinstance(model, ImagePredictor):
        rows, failed = retrieve(data, model.model, max_missing=asked.max_missing)
        scores.rows |= rows
        scores.left_out |= failed
    if asked.out:
        write_benchmark_scores(scores, asked.out)
    output().tell(asdict(scores), to_markdown([benchmark_table(scores)]).rstrip("\n"))


def _tell_windows(name: str, scores: Mapping[float | None, Scores], out: Path) -> None:
    """Tell each window's scores, and draw several beside one another."""
    from tavlo.evaluation.evaluate import FORMATS
    from tavlo.published.published_tables import draw_windows, read_windows, window_table
    from tavlo.published.result_table import to_markdown

    windowed = {at: found for at, found in scores.items() if at is not None}
    told = {f"{at:g}": found.as_dict() for at, found in windowed.items()}
    output().tell({"windows": told}, FORMATS["md"](windowed[max(windowed)]))
    if len(windowed) > 1:
        runs = read_windows([f"{name}={out}/window-{at:g}/scores.json" for at in windowed])
        table = to_markdown([window_table(runs)])
        (out / "windows.md").write_text(table, encoding="utf-8")
        draw_windows(runs, out / "windows.png")
        output().say(table)
        click.echo(f"{out / 'windows.png'}", err=True)
