"""``evaluate-images``: models that take one picture and one sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.cli.options import cli
from pipeline.cli.output import output

if TYPE_CHECKING:
    from tavlo.baselines.interface import ImageModel
    from tavlo.evaluation.evaluation_set import EvaluationSet
    from tavlo.evaluation.predictions import Predictions


@cli.command("evaluate-images")
@click.option(
    "--release",
    required=True,
    metavar="DIR",
    help="What to score on: a release, or an imported VGG-SS, Flickr-SoundNet, IS3 or AVSBench.",
)
@click.option("--model", metavar="NAME", help="ezvsl, slavc, ssltie, lvs, sslalignment, ...")
@click.option("--checkpoint", metavar="FILE", help="Its weights: a file or a registered name.")
@click.option("--prior", metavar="FILE", help="Mix in the object prior: ImageNet's ResNet-18.")
@click.option("--variant", default="", metavar="V", help="Of the authors' post-processing.")
@click.option("--predictions", metavar="DIR", help="Score heatmaps of any model on a set instead.")
@click.option(
    "--window",
    "windows",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    metavar="S",
    help="Seconds of sound around each frame of a release. Repeatable. Default: 10.",
)
@click.option("--retrieval", is_flag=True, help="Also R@1, 5, 10 between pictures and sounds.")
@click.option(
    "--train-list",
    "train_lists",
    multiple=True,
    metavar="FILE",
    help="What the model was trained on: tell how much of it is scored. Repeatable.",
)
@click.option("--gt", type=click.Choice(["mask", "box"]), default="mask", show_default=True)
@click.option(
    "--max-failed",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Frames that may lack picture or sound.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap."
)
@click.option(
    "--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda or cuda:N."
)
@click.option("--out", required=True, metavar="DIR", help="Heatmaps, scores and plots go there.")
def evaluate_images(
    release: str,
    model: str | None,
    checkpoint: str | None,
    prior: str | None,
    variant: str,
    predictions: str | None,
    windows: tuple[float, ...],
    retrieval: bool,
    train_lists: tuple[str, ...],
    gt: Literal["mask", "box"],
    max_failed: int,
    seed: int,
    device: str,
    out: str,
) -> None:
    """Score an image-wise model: AVATAR's tables per window of sound, or a set as its field does.

    A window that would leave the clip is moved inside it. On imported sets the model gets the whole
    sound. Samples without picture or sound are listed, never replaced.

    \b
        avatar-build evaluate-images --release ws/releases/0.1 --model ezvsl \
--checkpoint vggsound_144k.pth --window 10 --window 5 --window 2 --window 1 --out ezvsl
        avatar-build evaluate-images --release releases/vggss --model ssltie \
--checkpoint vggsound144k.pth.tar --retrieval --train-list vggss_144k.txt --out ssltie
    """
    from tavlo.evaluation.evaluation_set import read_release

    data, target = read_release(Path(release)), Path(out)
    lists = [Path(name) for name in train_lists]
    if predictions is None and (model is None or checkpoint is None):
        raise click.UsageError(
            "name --model and --checkpoint, or --predictions of an imported set."
        )
    asked: ImageModel | None = None
    about: dict[str, Any] = {}
    if model is not None and checkpoint is not None:
        asked, about = _open(model, checkpoint, prior, variant, device)
    if data.imported_from and not data.imported_from.startswith("AVATAR"):
        if windows:
            raise click.UsageError("--window: the model gets the whole sound of an imported set.")
        _clear(target, about, ())
        _set(data, asked, about, predictions, retrieval, lists, max_failed, target)
        return
    if asked is None:
        raise click.UsageError("--predictions on a release: 'avatar-build evaluate' scores them.")
    if retrieval:
        raise click.UsageError("--retrieval is between the samples of an imported set.")
    from tavlo.evaluation.evaluate import FORMATS, evaluate, write_scores
    from tavlo.evaluation.windows import draw_windows, of_scores, window_table
    from tavlo.published.result_table import to_markdown

    seconds = windows or (10.0,)
    folders = {at: target / f"window-{at:g}" / "heatmaps" for at in seconds}
    _clear(target, about, [folder.parent for folder in folders.values()])
    found = _predict(data, asked, folders, about, max_failed)
    scores = {
        at: evaluate(data, found[at], gt, max_missing=max_failed, seed=seed, train_lists=lists)
        for at in seconds
    }
    for at, scored in scores.items():
        write_scores(scored, target / f"window-{at:g}")
    told = of_scores(asked.name, scores)
    windowed = {f"{at:g}": scored.as_dict() for at, scored in scores.items()}
    output().tell({"windows": windowed}, FORMATS["md"](scores[max(seconds)]))
    if len(seconds) > 1:
        table = to_markdown([window_table(told)])
        (target / "windows.md").write_text(table, encoding="utf-8")
        draw_windows(told, target / "windows.png")
        output().say(table)
        click.echo(f"{target / 'windows.png'}", err=True)


def _set(
    data: EvaluationSet,
    asked: ImageModel | None,
    about: dict[str, Any],
    predictions: str | None,
    retrieval: bool,
    lists: Sequence[Path],
    max_failed: int,
    target: Path,
) -> None:
    """Score on an imported set; there the model gets the whole sound of each sample."""
    from tavlo.evaluation.older_benchmarks import (
        evaluate_set,
        retrieve,
        scored_part,
        set_table,
        write_set_scores,
    )
    from tavlo.evaluation.predictions import Predictions
    from tavlo.published.result_table import to_markdown

    data = scored_part(data)
    if asked is not None:
        found = _predict(data, asked, {None: target / "heatmaps"}, about, max_failed)[None]
    else:
        found = Predictions(Path(str(predictions)))
    scores = evaluate_set(data, found, max_missing=max_failed, train_lists=lists)
    if retrieval:
        if asked is None:
            raise click.UsageError("--retrieval compares a model's vectors: name --model.")
        rows, failed = retrieve(data, asked, max_failed=max_failed)
        scores.rows |= rows
        scores.left_out |= failed
    write_set_scores(scores, target)
    output().tell(scores.as_dict(), to_markdown([set_table(scores)]).rstrip("\n"))


def _open(
    name: str, checkpoint: str, prior: str | None, variant: str, device: str
) -> tuple[ImageModel, dict[str, Any]]:
    """The model, and what tells its results from another's."""
    from pipeline.devices import choose_device
    from pipeline.files import sha256_of
    from tavlo.baselines.interface import checkpoint_path, open_model

    place = str(choose_device(device))
    path = checkpoint_path(checkpoint)
    saliency = checkpoint_path(prior) if prior is not None else None
    opened = open_model(name, path, prior=saliency, variant=variant, device=place)
    about: dict[str, Any] = {
        "name": opened.name,
        "checkpoint": path.name,
        "checkpoint_sha256": sha256_of(path),
        "variant": variant,
    }
    if saliency is not None:
        about["prior_sha256"] = sha256_of(saliency)
    return opened, about


def _clear(target: Path, about: dict[str, Any], asked: Sequence[Path]) -> None:
    """Remove earlier results that are made anew; those of another model may not stay beside."""
    from pipeline.errors import UsageError
    from tavlo.evaluation.evaluate import remove_results
    from tavlo.published.paper import read_model

    for path in sorted(target.glob("window-*/scores.json")):
        model = read_model(path)
        if path.parent not in asked and any(model.get(key) != about[key] for key in about):
            raise UsageError(
                f"{path.parent} holds the scores of another model"
                f" ({model.get('name')}, {model.get('checkpoint')}). Name another --out."
            )
    for name in ("windows.md", "windows.png"):
        (target / name).unlink(missing_ok=True)
    if any([remove_results(folder) for folder in (target, *asked)]):
        click.echo(f"{target}: the results of an earlier evaluation were removed.", err=True)


def _predict(
    data: EvaluationSet,
    model: ImageModel,
    folders: dict[Any, Path],
    about: dict[str, Any],
    max_failed: int,
) -> dict[float | None, Predictions]:
    from pipeline.progress import counting
    from tavlo.evaluation.image_models import predict_release

    with counting("frames", len(data.frames), shown=output().shown) as show:
        found, said = predict_release(
            data, model, folders, max_failed=max_failed, about=about, show=show
        )
    for sentence in said:
        click.echo(sentence, err=True)
    return found
