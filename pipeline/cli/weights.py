"""``models``: weights, fetched and checked by commands of their own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.common.options import cli
from pipeline.cli.common.output import Failed, output
from pipeline.extras import missing
from pipeline.flow import imported

if TYPE_CHECKING:
    from pipeline.models import ModelFile
    from pipeline.models.catalogue import Model


_OPENED_BY = {
    "cav-mae-": ("stages.backends.cav_mae.cav_mae_model:load_cav_mae", False),
    "efficientat-": ("stages.backends.efficientat.efficientat_model:load_efficientat", True),
    "yolox-": ("stages.backends.yolox:load_network", True),
    "dfine-": ("stages.backends.dfine:check_folder", True),
    "grounding-dino-": ("stages.backends.grounding_dino:load_parts", False),
    "mm-grounding-dino-": ("stages.backends.grounding_dino:load_parts", False),
    "edgetam": ("stages.backends.edgetam:load_edgetam", False),
    "sam2.1-": ("stages.backends.sam2:load_sam2", False),
}
"""How a model's name begins, to what opens its file or folder, and whether that takes the name."""


@cli.group()
def models() -> None:
    """Weights of the models: see, fetch and check them. No other command fetches any."""


@models.command("list")
def models_list() -> None:
    """List every model: role, size, licence, and whether it is here.

    \b
        avatar-build models list
    """
    from itertools import groupby

    from pipeline.columns import columns
    from pipeline.models.register import list_models

    found = list_models()
    rows = []
    for role, of_role in groupby(found, key=lambda row: row.model.role):
        rows += [[f"{role}s", "", "", "", ""], *(row.cells() for row in of_role)]
    said = output()
    lines = columns(["model", "size", "licence", "here", "note"], rows, right={"size"})
    said.tell({"models": [row.as_dict() for row in found]}, *lines)
    pages = {row.model.page: row.model.name.partition("-")[0] for row in found if row.model.page}
    for page, name in pages.items():
        said.say(f"By hand, from its authors' page: {name}: {page}")
    said.say("AGPL-3.0 asks for the source of programs that are combined with it: see README.md.")


@models.command("fetch")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--profile", metavar="P", help="All that a workspace of 'init --profile P' runs.")
@click.option("--dry-run", is_flag=True, help="Only say what would come: sizes and licences.")
def models_fetch(names: tuple[str, ...], profile: str | None, dry_run: bool) -> None:
    """Fetch weights from where their authors put them; goes on where it broke off.

    What is here already is hashed again and stays. Sizes and licences are said first.

    \b
        avatar-build models fetch sam-vit-h cav-mae-as-46.6
        avatar-build models fetch --profile light
    """
    from pipeline.columns import columns
    from pipeline.config import profile_backends
    from pipeline.errors import UsageError
    from pipeline.models.catalogue import MODELS
    from pipeline.models.fetch import fetch
    from pipeline.models.register import find_model, read_register, require, verify
    from pipeline.progress import transfers

    if not names and profile is None:
        raise UsageError("models fetch: name models, or a profile: --profile light.")
    of_profile = [name for name in profile_backends(profile) if name in MODELS] if profile else []
    chosen = [find_model(name) for name in dict.fromkeys([*names, *of_profile])]
    wrong = {model.name: read_register(model.name) and verify(model.name) for model in chosen}
    to_come = [model for model in chosen if wrong[model.name] != ""]
    rows = []
    for model in chosen:
        state = wrong[model.name]
        here = "is here" if state == "" else "to fetch" if state is None else f"again: {state}"
        rows.append([model.name, f"{model.about_mb:.0f} MB", model.licence, here])
    said = output()
    for line in columns(["model", "size", "licence", ""], rows, right={"size"}):
        said.say(line)
    said.say(f"To fetch: about {sum(model.about_mb for model in to_come):.0f} MB.")
    if dry_run:
        said.tell({"to_fetch": [model.name for model in to_come]})
        return
    for model in chosen:
        if model not in to_come:
            _say_model(require(model.name))
            continue
        with transfers(shown=said.shown) as show:
            got = fetch(model, show, check=None if missing(["torch"]) else partial(_open_as, model))
        _say_model(got)


@models.command("add")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--own", is_flag=True, help="It is a checkpoint of your own, not the documented one.")
def models_add(name: str, path: Path, own: bool) -> None:
    """Register weights you have: a file, or the folder of a model of several files.

    It stays where it is, and its SHA-256 is noted. It is opened first, as far as that runs no code
    of it. Loading an ultralytics file does run the code in it: add only what you trust.

    \b
        avatar-build models add sam-vit-b ~/sam_vit_b_01ec64.pth
    """
    from pipeline.models.opening import check_files
    from pipeline.models.register import add, brought, find_model

    model, path = find_model(name), path.expanduser()
    files = brought(model, path)
    unchecked = check_files(model, files)
    if not unchecked:
        _open_as(model, files)
    _say_model(add(name, path, own=own))
    if unchecked:
        output().say(f"{name}: {unchecked}")


def _open_as(model: Model, files: Mapping[str, Path]) -> None:
    """Load weights as their own model does, or what of it tells a foreign file.

    SAM's are known by their makers' digests, ultralytics' run code when loaded.

    Raises:
        UsageError: a tensor is missing, of another shape, or none of the model's.
    """
    path = next(iter(files.values()))
    path = path if len(files) == 1 else path.parent
    if model.role == "localiser":
        from tavlo.baselines.interface import open_model

        open_model(model.name.partition("-")[0], path)
    for start, (place, with_name) in _OPENED_BY.items():
        if model.name.startswith(start):
            imported(place)(path, *([model.name] if with_name else []))


def _say_model(got: ModelFile) -> None:
    found = {"name": got.name, "path": str(got.path), "sha256": got.sha256}
    said = output()
    said.result.setdefault("models", []).append(found | {"licence": got.licence})
    said.say(f"{got.name}: {got.path}, SHA-256 {got.sha256}, {got.licence}.")


@models.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME...]")
def models_verify(names: tuple[str, ...]) -> None:
    """Hash registered weights again; exit 1 when one is not what was registered.

    \b
        avatar-build models verify
    """
    from pipeline.models.register import list_models, verify

    chosen = names or [row.model.name for row in list_models() if row.path]
    found = {name: verify(name) for name in chosen}
    said = output()
    said.tell({"models": [{"name": name, "wrong": wrong} for name, wrong in found.items()]})
    for name, wrong in found.items():
        said.say(f"{name}: {wrong or 'as registered'}.")
    if not found:
        said.say("No model is registered on this machine.")
    if bad := [name for name, wrong in found.items() if wrong]:
        raise Failed(f"models verify: not as registered: {', '.join(bad)}.")


@models.command("path")
@click.argument("name")
def models_path(name: str) -> None:
    """Print where a model's weights are.

    \b
        avatar-build models path sam-vit-h
    """
    from pipeline.models import require

    path = str(require(name).path)
    output().tell({"path": path}, path)
