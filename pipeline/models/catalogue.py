"""Every set of weights a backend may ask for: what it is, where it is, on what terms.

Sizes and digests are those its publisher or several projects document; where nobody documents a
digest, the one of the first fetch is recorded and held from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Role = Literal["tagger", "detector", "segmenter", "backbone", "localiser"]
"""A backbone is where training starts, a localiser is scored beside TAVLO; the others work in the
stages."""

Loader = Literal["state-dict", "ultralytics", "transformers", "onnx"]
"""``state-dict``: tensors alone (``weights_only``). ``ultralytics``: a pickle that runs code when
loaded, so only a registered digest is. ``transformers``: a folder of settings and safetensors.
``onnx``: a graph of the standard's operators."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model, as its publisher documents it."""

    name: str
    url: str
    """Empty where only a page is documented, from which people fetch it by hand."""
    size: int | None = None
    """Bytes, where documented exactly."""
    sha256: str = ""
    """The digest, or its first digits where only these are documented; empty where nothing is."""

    def is_of(self, sha256: str) -> bool:
        """Say whether a digest agrees with the documented one; any does where none is."""
        return sha256.startswith(self.sha256)


@dataclass(frozen=True)
class Model:
    """A set of weights under the name its backend uses."""

    name: str
    role: Role
    loader: Loader
    licence: str
    files: tuple[RemoteFile, ...]
    about_mb: float
    """Size of all files, megabytes (10^6 bytes), about."""
    note: str = ""
    page: str = ""
    """Address of the authors' page, where the files have none of their own."""


def _released(
    model: str, variants: str, repository: str, licence: str, about_mb: float
) -> Iterator[Model]:
    """Yield the checkpoints behind the shared folder that a repository's README names."""
    page = f"https://github.com/{repository}"
    for variant in variants.split():
        file = RemoteFile(f"{variant}.pth", "")
        note = f"by hand, from {page}"
        name = f"{model}-{variant}"
        yield Model(name, "localiser", "state-dict", licence, (file,), about_mb, note, page)


def _cav_mae(name: str, key: str, note: str) -> Model:
    url = f"https://www.dropbox.com/s/{key}/{name}.pth?dl=1"
    file = RemoteFile(f"{name}.pth", url)
    licence = "BSD-2-Clause (code; nothing separate is said of the weights)"
    label = "cav-mae-" + name.replace("_", "-")
    return Model(label, "tagger", "state-dict", licence, (file,), 660, note)


def _efficientat(
    width: str, mean_ap: int, about_mb: float, num_bytes: int | None = None, sha256: str = ""
) -> Model:
    file = f"mn{width}_as_mAP_{mean_ap}.pt"
    url = f"https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/{file}"
    remote = RemoteFile(file, url, num_bytes, sha256)
    name, note = f"efficientat-mn{width}-as", f"AudioSet-2M: {mean_ap / 10:.1f} mAP"
    return Model(name, "tagger", "state-dict", "MIT", (remote,), about_mb, note)


def _yolo(size: str, about_mb: float, note: str) -> Model:
    file = f"yolov8{size}-oiv7.pt"
    url = f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{file}"
    remote = RemoteFile(file, url)
    name = file.removesuffix(".pt")
    return Model(name, "detector", "ultralytics", "AGPL-3.0", (remote,), about_mb, note)


def _yolox(size: str, about_mb: float, note: str) -> Model:
    file = f"yolox_{size}.onnx"
    url = f"https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/{file}"
    name = file.removesuffix(".onnx").replace("_", "-")
    # Copies of one size with several digests are about, so none is documented here.
    return Model(name, "detector", "onnx", "Apache-2.0", (RemoteFile(file, url),), about_mb, note)


def _hub(
    name: str, role: Role, repository: str, files: str, about_mb: float, note: str = ""
) -> Model:
    base = f"https://huggingface.co/{repository}/resolve/main/"
    remote = tuple(RemoteFile(file, base + file) for file in files.split())
    return Model(name, role, "transformers", "Apache-2.0", remote, about_mb, note)


def _sam(size: str, file: str, sha256: str, about_mb: float, num_bytes: int | None) -> Model:
    remote = RemoteFile(
        file, f"https://dl.fbaipublicfiles.com/segment_anything/{file}", num_bytes, sha256
    )
    return Model(f"sam-vit-{size}", "segmenter", "state-dict", "Apache-2.0", (remote,), about_mb)


def _edgetam() -> Model:
    base = "https://huggingface.co/yonigozlan/EdgeTAM-hf/resolve/main/"
    # The authors' own edgetam.pt in transformers' format; several projects document this digest.
    digest = "8858f8e4757b0b96dab8763f296ecffd845efbbbf698f64163cfa20a63d5fff4"
    files = (
        RemoteFile("config.json", base + "config.json"),
        RemoteFile("model.safetensors", base + "model.safetensors", 55_912_824, digest),
    )
    note = "converted by a maintainer of transformers"
    return Model("edgetam", "segmenter", "transformers", "Apache-2.0", files, 56, note)


_DFINE_FILES = "config.json model.safetensors preprocessor_config.json"
_SAM2_FILES = "config.json model.safetensors"
_DINO_FILES = (
    "config.json model.safetensors preprocessor_config.json tokenizer.json tokenizer_config.json"
)
_MM = "openmmlab-community/mm_grounding_dino_"


def _all_models() -> Iterator[Model]:
    yield _cav_mae("as_46.6", "itfw7p0ueq7z9og", "AudioSet-2M, audio only: 46.6 mAP")
    yield _cav_mae("as-full-51.2", "hejj49zdgyyfsuh", "AudioSet-2M, audio and video: 51.2 mAP")
    yield _cav_mae("as_37.7", "pariabyh1iyayda", "AudioSet-20K, audio only: 37.7 mAP")
    yield _cav_mae("as-20k-42.0", "9x6y642so3zve5y", "AudioSet-20K, both: 42.0 mAP")
    yield _cav_mae("as_20.0", "9ngkq9ygwqecxz5", "AudioSet-20K, visual only: 20.0 mAP")
    yield _cav_mae("vgg_66.0", "q66s3mu526mj2x6", "VGGSound, both: 65.9 % accuracy")
    yield _cav_mae("vgg_65.5", "f4wrbxv2unewss9", "VGGSound, both: 65.5 % accuracy")
    yield _cav_mae("vgg_59.8", "l4rj0sgpnt08bp2", "VGGSound, audio only: 59.8 % accuracy")
    mn04 = 4_066_513, "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c"
    mn10 = 19_708_753, "0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e"
    yield _efficientat("01", 298, 0.6)
    yield _efficientat("02", 378, 1.4)
    yield _efficientat("04", 432, 4.1, *mn04)
    yield _efficientat("05", 443, 5.9)
    yield _efficientat("10", 471, 19.7, *mn10)
    yield _efficientat("20", 478, 72)
    yield _efficientat("30", 482, 157)
    yield _efficientat("40", 484, 274)
    yield _yolo("n", 7, "Open Images V7 mAP 18.4")
    yield _yolo("s", 21.9, "Open Images V7 mAP 27.7")
    yield _yolo("m", 50.3, "Open Images V7 mAP 33.6")
    yield _yolo("l", 84, "Open Images V7 mAP 34.9")
    yield _yolo("x", 130.5, "Open Images V7 mAP 36.3")
    for size, about_mb, average_precision in (
        ("nano", 3.7, 25.8),
        ("tiny", 20.2, 32.8),
        ("s", 35.9, 40.5),
        ("m", 101, 46.9),
        ("l", 217, 49.7),
        ("x", 397, 51.1),
    ):
        yield _yolox(size, about_mb, f"COCO mAP {average_precision}")
    for size, about_mb in (("small", 41.5), ("medium", 78.7), ("large", 126), ("xlarge", 252)):
        for trained_on, classes in (
            ("obj365", "Objects365's 365 classes"),
            ("coco", "COCO's 80 classes"),
            ("obj2coco", "COCO's 80 classes, trained on Objects365 before"),
        ):
            name = f"dfine-{size}-{trained_on}"
            ending = "-e25" if name == "dfine-large-obj2coco" else ""
            repository = f"ustc-community/{name}{ending}"
            yield _hub(name, "detector", repository, _DFINE_FILES, about_mb, classes)
    for size, trained_on, about_mb, note in (
        ("tiny", "o365v1_goldg_v3det", 690, ""),
        ("base", "o365v1_goldg_v3det", 930, ""),
        ("large", "o365v2_oiv6_goldg", 1400, "trained on Open Images V6 among others"),
    ):
        name, repository = f"mm-grounding-dino-{size}", f"{_MM}{size}_{trained_on}"
        yield _hub(name, "detector", repository, _DINO_FILES, about_mb, note)
    yield _hub(
        "grounding-dino-tiny", "detector", "IDEA-Research/grounding-dino-tiny", _DINO_FILES, 690
    )
    yield _sam(
        "b",
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375,
        None,
    )
    yield _sam(
        "l",
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1250,
        None,
    )
    yield _sam(
        "h",
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2565,
        2_564_550_879,
    )
    for size, about_mb in (("tiny", 156), ("small", 184), ("base-plus", 323), ("large", 898)):
        repository = f"facebook/sam2.1-hiera-{size}"
        yield _hub(f"sam2.1-hiera-{size}", "segmenter", repository, _SAM2_FILES, about_mb)
    yield _edgetam()
    # torchvision documents the first digits of the digest, in the file's name.
    file = "resnet18-f37072fd.pth"
    remote = RemoteFile(file, f"https://download.pytorch.org/models/{file}", None, "f37072fd")
    licence = "BSD-3-Clause (torchvision; trained on ImageNet, whose terms are its own)"
    yield Model("resnet18", "backbone", "state-dict", licence, (remote,), 47, "ImageNet-1k")
    apache, none = "Apache-2.0 (code; nothing separate is said of the weights)", "no licence"
    sets = "flickr-10k flickr-144k vggsound-10k vggsound-144k vggsound-full heard-110"
    # About: the tensors, and Adam's two more of each where the file holds the optimiser.
    yield from _released("ezvsl", sets, "stoneMo/EZ-VSL", apache, 275)
    yield from _released("slavc", "vggsound-144k", "stoneMo/SLAVC", apache, 368)
    mit = "MIT (code; nothing separate is said of the weights)"
    sets = "vggsound-144k flickr-144k flickr-10k"
    yield from _released("ssltie", sets, "jinxiang-liu/SSL-TIE", mit, 290)
    sets = "vggsound-144k flickr-144k"
    repository = "hche11/Localizing-Visual-Sounds-the-Hard-Way"
    yield from _released("lvs", sets, repository, apache, 94)
    kinds = ("sup", "selfsup", "sup-previs")
    sets = " ".join(f"{place}-{kind}" for place in ("vggsound", "flickr") for kind in kinds)
    yield from _released("sslalignment", sets, "kaistmm/SSLalignment", none, 94)


MODELS = {model.name: model for model in _all_models()}
"""Every model by name."""

_ROOM_MB = {"tagger": 1_000, "detector": 1_500, "segmenter": 2_000}
"""The memory of a worker besides the weights, megabytes: Python, torch, media, one look."""

_ROOM_PROMPTED_MB = 3_000
"""The same with a detector that reads text: it looks at larger frames."""


def worker_bytes(names: Iterable[str]) -> int:
    """Return the memory that a worker with these backends takes on a CPU, bytes, at the most.

    It lies 9 to 63 % above what ``benchmarks.models`` measures of each (``peak_memory_mb``). On a
    GPU, where the weights and a look lie in its own memory, it was not measured.

    Args:
        names: of the backends; those without weights take little, and count for nothing.

    >>> worker_bytes(["sam-vit-h"]), worker_bytes(["motion"])
    (4565000000, 0)
    """
    models = [MODELS[name] for name in names if name in MODELS]
    rooms = [
        _ROOM_PROMPTED_MB if "grounding-dino" in model.name else _ROOM_MB.get(model.role, 0)
        for model in models
    ]
    return round(1e6 * (max(rooms, default=0) + sum(model.about_mb for model in models)))
