"""Every setting of a workspace, its meaning and unit, and its default: written here once.

``avatar.toml`` holds only what differs; ``--set section.key=value`` comes on top. Stages receive
their own section, and the resolved section is what is hashed and kept with every commit.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipeline.devices import parse_device
from pipeline.errors import ConfigError, UsageError
from pipeline.words import plain, short


class Section(BaseModel):
    """A group of settings; unknown names are errors, so a typo is never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    unhashed: ClassVar[frozenset[str]] = frozenset()
    """Settings that cannot change a result: they stay out of the stage key and the commits."""

    private: ClassVar[frozenset[str]] = frozenset()
    """Settings that may hold a password: what was typed of them is never written down."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Today's names by old ones, which files, commands and commits of before still use."""

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, values: Any) -> Any:
        return cls.todays_names(values) if isinstance(values, Mapping) else values

    @classmethod
    def todays_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings under today's names; where there may be several now, one is a list.

        Raises:
            ValueError: a setting is given under both names.
        """
        found = dict(values)
        for old, new in cls.renamed.items():
            if old not in found:
                continue
            if new in found:
                raise ValueError(f"{old} is the old name of {new}: give one of them")
            value = found.pop(old)
            several = get_origin(cls.model_fields[new].annotation) is list
            found[new] = [value] if several and not isinstance(value, list) else value
        return found

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide results, for the stage key."""
        return self.model_dump(mode="json", exclude=set(self.unhashed))


class RunConfig(Section):
    """The part of the machine a run takes. Never changes a result, so it is not hashed."""

    workers: int = Field(default=0, ge=0)
    """Worker processes; 0 takes one per core, of this machine or of the Ray cluster."""
    workers_per_gpu: int = Field(default=2, ge=1, le=64)
    """Workers that share a GPU; a stage whose model runs on GPUs has at most this many for each.
    Every worker loads the model (the largest, sam-vit-h, is 2.6 GB). 2, so that the GPU has work
    while one of them reads, decodes or commits; how much that gains is not measured yet."""
    executor: Literal["local", "ray"] = "local"
    """Executor of the units. local: supervised processes here. ray: actors of a Ray cluster."""
    ray_address: str = ""
    """The Ray cluster this machine is a node of: 'auto', or its head's 'host:6379'. Empty takes
    RAY_ADDRESS where that is set, and else starts one on this machine."""
    ray_resources: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Resources a worker takes of a Ray cluster besides cores and GPUs: memory in bytes, and those
    of your own, as 'ray start --resources' names them: {memory = 4e9, big = 1}."""
    max_failed: str = "100%"
    """Failed rows a run may have and still exit 0: a count, or a percentage such as '5%'. A bug in
    our code exits 1 whatever this says."""
    max_bugs: int = Field(default=20, ge=1)
    """Rows that may raise an unexpected exception before the run stops with the traceback."""

    @field_validator("ray_resources")
    @classmethod
    def _of_no_other_setting(cls, value: dict[str, float]) -> dict[str, float]:
        for name in ("CPU", "GPU", "object_store_memory"):
            if name in value:
                raise ValueError(f"{name} follows from the stage and run.workers_per_gpu")
        return value

    @field_validator("max_failed", mode="before")
    @classmethod
    def _count_or_percentage(cls, value: Any) -> str:
        text = str(value)  # a count may come as a number
        if not re.fullmatch(r"[0-9]+%?", text):
            raise ValueError("should be a count or a percentage of the rows, such as 5 or 5%")
        return text


class SlurmConfig(Section):
    """The job arrays of `run --slurm`, in Slurm's words. Never changes a result: not hashed."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {
            "tasks",
            "at_once",
            "cpus",
            "mem",
            "time",
            "partition",
            "account",
            "gres",
            "gpu_partition",
            "options",
            "setup",
            "command",
            "restarts",
        }
    )

    tasks: int = Field(default=8, ge=1, le=100_000)
    """Tasks of a stage's job array, at most: each takes units that no other has, until none is
    left. More than a stage has units for are not asked for; download, one network identity, has 1.
    """
    at_once: int = Field(default=0, ge=0)
    """Tasks of an array that run at one time; 0: as many as Slurm lets."""
    cpus: int = Field(default=4, ge=1)
    """Cores of a task (--cpus-per-task), and its workers where run.workers is 0."""
    mem: str = ""
    """Memory of a task, e.g. '16G' (--mem); empty: the cluster's default."""
    time: str = ""
    """Time limit of a task, e.g. '12:00:00' (--time); empty: the partition's. A task that comes to
    it stops two minutes before and goes on from the queue."""
    partition: str = ""
    """Partition (--partition); empty: the cluster's default."""
    account: str = ""
    """Account that is charged (--account); empty: yours."""
    gres: str = "gpu:1"
    """GPUs of a task (--gres), of stages alone whose model runs on one; empty: none."""
    gpu_partition: str = ""
    """Partition of stages that get GPUs; empty: that of the others."""
    options: list[str] = []
    """Other options of sbatch, e.g. ['--qos=long', '--mail-type=FAIL'], one each."""
    setup: list[str] = []
    """Shell lines before each task's work, e.g. ['module load python/3.11']. No password: the
    script is kept."""
    command: str = ""
    """The program on the nodes, e.g. 'apptainer exec --nv image.sif avatar-build'; empty: this
    one's Python."""
    restarts: int = Field(default=50, ge=0)
    """Times a task goes back into the queue at its time limit: a limit too short for one unit would
    do so for ever."""

    @field_validator("mem", "time", "partition", "account", "gres", "gpu_partition", mode="after")
    @classmethod
    def _one_word(cls, value: str) -> str:
        if not re.fullmatch(r"[^\s#'\"\\\x00-\x1f]*", value):
            raise ValueError("should be one word, without quotes")
        return value

    @field_validator("options", mode="after")
    @classmethod
    def _options_of_sbatch(cls, value: list[str]) -> list[str]:
        for option in value:
            if not option.startswith("-") or not option.isprintable():
                raise ValueError("should be options of sbatch, e.g. '--qos=long', in one line each")
        return value

    @field_validator("command", mode="after")
    @classmethod
    def _words_of_a_shell(cls, value: str) -> str:
        try:
            shlex.split(value)
        except ValueError as error:
            raise ValueError("has a quote that does not end") from error
        return value


class DownloadConfig(Section):
    """The way from the list to files on disk, and the candidate filter (paper 3.1.1)."""

    # How politely and from where, not what. Some of it may hold a password.
    unhashed: ClassVar[frozenset[str]] = frozenset(
        {
            "sleep_s",
            "max_per_hour",
            "mirror_sleep_s",
            "concurrency",
            "retries",
            "backoff_s",
            "backoff_max_s",
            "timeout_s",
            "pause_s",
            "max_pauses",
            "max_refusals",
            "min_free_bytes",
            "identities",
            "options",
            "keep_rejected",
            "source_template",
        }
    )

    private: ClassVar[frozenset[str]] = frozenset({"identities", "options", "source_template"})

    source_template: str = ""
    """Source of the videos. Empty: YouTube. 'http://host/{video_id}.mp4': a mirror of your own.
    '/data/{video_id}.mp4' or 'file:///data/{video_id}.mp4': a local archive, linked or copied."""
    format: str = (
        "18/b[protocol^=http][height=360]/b[protocol^=http][height<=480]/b[protocol^=http]"
    )
    """yt-dlp format selection: one file with picture and sound (no ffmpeg is needed to merge).
    HLS is left out ([protocol^=http]): its pieces are MPEG-TS, which no later stage reads."""
    sleep_s: float = Field(default=8.0, ge=0)
    """Seconds between two videos of one identity. yt-dlp's wiki advises 5 to 10 for a guest."""
    max_per_hour: int = Field(default=300, ge=1)
    """Videos per hour and identity: about what YouTube lets a guest session fetch."""
    mirror_sleep_s: float = Field(default=0.0, ge=0)
    """The same as sleep_s, when --source-template names a mirror of your own."""
    concurrency: int = Field(default=4, ge=1)
    """Transfers at once, over all identities; sleeps still hold between two starts of one."""
    retries: int = Field(default=4, ge=1)
    """Attempts per video in one run, for failures that may pass (timeout, 5xx, truncated)."""
    backoff_s: float = Field(default=2.0, ge=0)
    """First wait between two attempts; doubles each time, plus up to half of it at random."""
    backoff_max_s: float = Field(default=300.0, ge=0)
    """Longest wait between two attempts, and the most of a Retry-After that is honoured."""
    timeout_s: float = Field(default=30.0, gt=0, le=120)
    """Seconds without a byte before a connection is given up."""
    pause_s: float = Field(default=3600.0, ge=0)
    """Pause of an identity after a rate limit or a bot check (YouTube's block lasts an hour)."""
    max_pauses: int = Field(default=3, ge=0)
    """Pauses in a row without one success before the run stops; its rows stay pending."""
    max_refusals: int = Field(default=5, ge=0)
    """Different videos in a row refused without a reason (HTTP 400, 401, 403) that count as a block
    of the identity, and cost the videos no attempt. 0: never. A mirror's refusals never count."""
    max_bytes: int = Field(default=2_000_000_000, gt=0)
    """Largest file accepted."""
    max_duration_s: float = Field(default=4 * 3600.0, gt=0)
    """Longest video accepted; dropped before it is fetched when the site says its length."""
    min_free_bytes: int = Field(default=2_000_000_000, ge=0)
    """The run stops when less disk than this is free."""
    identities: list[str] = []
    """An entry per network identity: 'direct', a proxy URL, or 'cookies:FILE'. Empty: direct."""
    options: dict[str, Any] = {}
    """Any yt-dlp option, by its Python name, passed through untouched."""
    width: int = Field(default=640, gt=0)
    """Required width as displayed, pixels."""
    height: int = Field(default=360, gt=0)
    """Required height as displayed, pixels."""
    min_fps: float = Field(default=20.0, gt=0)
    """Lowest average frame rate, inclusive."""
    max_fps: float = Field(default=40.0, gt=0)
    """Highest average frame rate, inclusive."""
    min_duration_s: float = Field(default=10.0, gt=0)
    """Shortest video, seconds."""
    min_bitrate_bps: int = Field(default=100, ge=0)
    """Lowest bitrate, bits per second (the paper's 100)."""
    require_license: str = ""
    """Keep only videos whose licence matches: 'cc-by' or a part of the site's own text."""
    keep_rejected: bool = False
    """Keep the file of a video the filter rejects; its facts are kept in any case."""

    @model_validator(mode="after")
    def _rates_in_order(self) -> DownloadConfig:
        if self.min_fps > self.max_fps:
            raise ValueError(f"min_fps {self.min_fps} is above max_fps {self.max_fps}")
        return self

    @model_validator(mode="after")
    def _template_names_videos(self) -> DownloadConfig:
        scheme = self.source_template.partition("://")[0] if "://" in self.source_template else ""
        if scheme not in ("", "http", "https", "file"):
            raise ValueError(f"source_template: {scheme}:// is none of http, https, file")
        if self.source_template and "{video_id}" not in self.source_template:
            raise ValueError("source_template has no {video_id} in it")
        return self


class SampleConfig(Section):
    """Clips and frames (paper 3.1.2)."""

    seed: int = 0
    """Draws each video's clip, together with the video's id."""
    clip_s: int = Field(default=10, ge=1)
    """Length of a clip, seconds."""
    active_rms: float = Field(default=0.01, gt=0)
    """A second is active from this RMS on; waveform in [-1, 1]."""
    min_active_s: int = Field(default=5, ge=1)
    """Active seconds a clip must have."""
    clips_per_video: int = Field(default=1, ge=1)
    """Clips drawn from one video, without overlap."""
    draw: Literal["full", "lazy"] = "full"
    """full: scan all sound, then draw among all candidates. lazy: try windows in the same seeded
    order and stop at the first candidate; far less decoding, and the same draw, but for seconds
    whose RMS is within 1e-4 of active_rms (lossy sound decodes a little differently after a seek),
    and the candidates are not counted."""
    rms_window_s: float = Field(default=0.05, gt=0)
    """Window of the short-time RMS whose peaks are the events, seconds."""
    rms_hop_s: float = Field(default=0.01, ge=0.001, le=1)
    """Hop of it, seconds; must divide a second, and the window must be a multiple of it."""
    event_half_s: float = Field(default=0.1, gt=0)
    """An event spans its peak plus and minus this, seconds."""
    max_frames: int = Field(default=5, ge=1)
    """Frames per clip, strongest events first."""
    min_gap_s: float = Field(default=0.7, ge=0)
    """An event this near to a chosen one is passed over, seconds; at least twice event_half_s, so
    that no frame belongs to two events."""
    pass_suspect: bool = False
    """Pass over pictures that look broken in the source itself (the column suspect of frames), as
    damaged ones are. Off, as in the paper: the sharpest is taken, and marked."""
    image_format: Literal["jpg", "png"] = "jpg"
    """File format of the frames."""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """Quality of JPEG frames."""
    decode_timeout_s: float = Field(default=300.0, gt=0, le=600)
    """Longest one video may take, seconds."""

    def deciding(self) -> dict[str, Any]:
        """Leave pass_suspect out where it is off: that is what was before there was one."""
        found = super().deciding()
        return (
            found if self.pass_suspect else {k: v for k, v in found.items() if k != "pass_suspect"}
        )

    @model_validator(mode="after")
    def _active_fits(self) -> SampleConfig:
        if self.min_active_s > self.clip_s:
            raise ValueError(f"min_active_s {self.min_active_s} is more than clip_s {self.clip_s}")
        return self

    @model_validator(mode="after")
    def _hops_fit(self) -> SampleConfig:
        hops_per_s, window_hops = 1 / self.rms_hop_s, self.rms_window_s / self.rms_hop_s
        if abs(hops_per_s - round(hops_per_s)) > 1e-6:
            raise ValueError(f"rms_hop_s {self.rms_hop_s} does not divide one second")
        if abs(window_hops - round(window_hops)) > 1e-6 or round(window_hops) < 1:
            raise ValueError(f"rms_window_s {self.rms_window_s} is no multiple of rms_hop_s")
        if self.min_gap_s < 2 * self.event_half_s:
            raise ValueError(f"min_gap_s {self.min_gap_s} is under twice event_half_s")
        return self


def _device(text: str) -> str:
    try:
        named = parse_device(text)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return "cuda:0" if named == "cuda" else named


class InferenceConfig(Section):
    """The device and precision of a stage's model; no effect on backends without weights."""

    # Devices differ by rounding alone, and a run may go on on another machine.
    unhashed: ClassVar[frozenset[str]] = frozenset({"device", "batch_mpx"})

    device: Annotated[str, AfterValidator(_device)] = "auto"
    """Device of the model. auto: workers take turns on the visible GPUs; without any, on the CPU.
    cpu. cuda:N: all of them on that GPU; cuda is cuda:0. See run.workers_per_gpu."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the model's arithmetic; auto: bfloat16 on a GPU, float32 on a CPU."""
    batch_mpx: float = Field(default=8.0, gt=0)
    """Pixels given to the model at once, millions; halved by itself when memory runs out."""

    def backends(self) -> list[str]:
        """Return the chosen backends; one with weights under the name of these weights."""
        raise NotImplementedError


class HearConfig(InferenceConfig):
    """The sounds of a clip (paper 3.1.3); the first half of `propose`."""

    inference: ClassVar[frozenset[str]] = frozenset(
        {"tagger", "weights", "mode", "scope", "window_s", "precision"}
    )
    """Settings of the tagger itself. The others choose among its classes, without hearing again."""

    tagger: Literal[
        "vggsound-label",
        "cav-mae",
        "efficientat-mn01-as",
        "efficientat-mn02-as",
        "efficientat-mn04-as",
        "efficientat-mn05-as",
        "efficientat-mn10-as",
        "efficientat-mn20-as",
        "efficientat-mn30-as",
        "efficientat-mn40-as",
    ] = "vggsound-label"
    """Tagger of categories. vggsound-label: the list's own label, through the taxonomy. cav-mae:
    the paper's, of AudioSet's classes. efficientat-*: of the same classes, small networks that take
    milliseconds a clip on one core (MIT)."""
    weights: Literal[
        "cav-mae-as-46.6",
        "cav-mae-as-full-51.2",
        "cav-mae-as-37.7",
        "cav-mae-as-20k-42.0",
        "cav-mae-as-20.0",
    ] = "cav-mae-as-46.6"
    """Checkpoint of cav-mae. 46.6 and 37.7 hear; full-51.2 and 20k-42.0 hear and see; 20.0 sees."""
    mode: Literal[
        "auto", "audioonly", "videoonly", "multimodal", "missingaudioonly", "missingvideoonly"
    ] = "auto"
    """Mode of cav-mae; auto: as its checkpoint was tuned. missing*: one that hears and sees is
    given one of the two."""
    scope: Literal["clip", "frame"] = "clip"
    """Span that is tagged. clip: the whole clip once, the length the taggers were trained on (of
    longer ones cav-mae hears the first 10.24 s). frame: a window around each frame's sound event,
    for what sounds in turns; they were not trained on spans so short."""
    window_s: float = Field(default=2.0, ge=0.1, le=10.24)
    """Length of a frame's window, cut at the clip's edges, seconds."""
    taxonomy: str = ""
    """CSV of target categories; empty: the one that ships with the package. The same as under
    [propose]."""
    active_score: float = Field(default=0.2, ge=0, le=1)
    """An AudioSet class is active from this score on. Never tune it on the clips you annotate."""
    active_scores: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Thresholds of single AudioSet classes, {"Growling" = 0.4}: each is active from its own on,
    and by no other rule. `tune` proposes some from reviews."""
    active_relative: float = Field(default=0.5, ge=0, le=1)
    """A class is active, too, from this fraction on of the strongest score among the clip's target
    classes; a specific class often stays low beside a generic one. 0: no such rule."""
    active_top_k: int = Field(default=0, ge=0)
    """The k strongest target classes of a clip are active, too. 0: no such rule."""
    active_floor: float = Field(default=0.05, ge=0, le=1)
    """Score under which active_relative and active_top_k activate nothing."""

    def backends(self) -> list[str]:
        """Return the tagger, or the checkpoint of the one that has several."""
        return [self.weights if self.tagger == "cav-mae" else self.tagger]


DetectorName = Literal[
    "motion",
    "yolox-nano",
    "yolox-tiny",
    "yolox-s",
    "yolox-m",
    "yolox-l",
    "yolox-x",
    "dfine-small-obj365",
    "dfine-medium-obj365",
    "dfine-large-obj365",
    "dfine-xlarge-obj365",
    "dfine-small-coco",
    "dfine-medium-coco",
    "dfine-large-coco",
    "dfine-xlarge-coco",
    "dfine-small-obj2coco",
    "dfine-medium-obj2coco",
    "dfine-large-obj2coco",
    "dfine-xlarge-obj2coco",
    "yolov8n-oiv7",
    "yolov8s-oiv7",
    "yolov8m-oiv7",
    "yolov8l-oiv7",
    "yolov8x-oiv7",
    "mm-grounding-dino-tiny",
    "mm-grounding-dino-base",
    "mm-grounding-dino-large",
    "grounding-dino-tiny",
]


class ProposeConfig(InferenceConfig):
    """Boxes around what may sound (paper 3.1.3)."""

    inference: ClassVar[frozenset[str]] = frozenset(
        {
            "detectors",
            "precision",
            "raw_score",
            "raw_iou",
            "raw_boxes",
            "image_px",
            "motion_window_s",
        }
    )
    """Settings of the detector itself. The others choose among its boxes, without looking again."""

    renamed: ClassVar[Mapping[str, str]] = {"detector": "detectors", "openimages": "classes"}

    links: ClassVar[frozenset[str]] = frozenset({"link", "link_iou", "link_model"})
    """Settings that choose no box."""

    detectors: list[DetectorName] = Field(default=["motion"], min_length=1)
    """Detectors that draw boxes, one or several; each box keeps the name of its own. motion:
    class-agnostic regions that move at the event. yolox-*: small, of COCO's classes, on the CPU
    (Apache-2.0). dfine-*: of Objects365's classes, with instruments, or of COCO's (Apache-2.0).
    yolov8x-oiv7: the paper's, of Open Images' classes (AGPL-3.0). *grounding-dino-*: finds what the
    target categories look like by name (Apache-2.0)."""
    motion: Literal["no-class", "no-box", "always"] = "no-class"
    """Frames that motion looks at beside other detectors. no-class: those where a category is heard
    that is none of the others' classes, for that category alone. no-box: those, too, where the
    others found no box of a heard category. always: all."""
    stand_ins: bool = False
    """A box of what is not heard may be a heard category for which motion would be needed beside
    the detectors: a wine glass where COCO is asked for drums. It keeps its class and score."""
    classes: Literal["exact", "generic"] = "exact"
    """A detector's classes that may be a category. exact: its own. generic: broader ones too, such
    as Musical instrument for a clarinet; 19 shipped categories have no other in Open Images."""
    taxonomy: str = ""
    """CSV of target categories; empty: the one that ships with the package. The same as under
    [hear]."""
    min_score: float = Field(default=0.05, ge=0, le=1)
    """Boxes the detector is less sure of are left out."""
    min_scores: dict[str, dict[str, Annotated[float, Field(ge=0, le=1)]]] = {}
    """Least scores of boxes of single categories, by detector: {"motion" = {"dog" = 0.4}}. A box
    that is not sure enough for one of its categories may still be another. `tune` proposes some
    from reviews."""
    max_boxes: int = Field(default=10, ge=1)
    """Boxes kept per frame: audible ones first, then by score."""
    nms_iou: float = Field(default=0.5, ge=0, le=1)
    """Highest IoU of two boxes of one class or category; beyond it the better one stays."""
    min_area: float = Field(default=0.002, ge=0, le=1)
    """Smallest box, as a fraction of the frame."""
    max_area: float = Field(default=0.9, gt=0, le=1)
    """Largest box, as a fraction of the frame."""
    raw_score: float = Field(default=0.05, ge=0, le=1)
    """Boxes below it are not kept from the detector at all; lower min_score down to here without
    new inference."""
    raw_iou: float = Field(default=0.7, ge=0, le=1)
    """Highest IoU of two boxes of one class that the detector gives."""
    raw_boxes: int = Field(default=300, ge=1)
    """Boxes kept from the detector per frame, best first."""
    image_px: int = Field(default=640, ge=64, le=4096, multiple_of=32)
    """Longest side of the image given to yolov8*, pixels. The others' model folders say theirs."""
    motion_window_s: float = Field(default=0.2, gt=0)
    """The motion detector looks this far before and after the frame, seconds."""
    link: Literal["flow", "sam2", "none"] = "flow"
    """The way boxes of one thing in a clip's frames are found to be one (track_id). flow: along the
    optical flow of the video between the frames. sam2: by SAM 2.1's memory of what they show, which
    wants a GPU. none: no box has a track, and no video is read."""
    link_iou: float = Field(default=0.4, gt=0, le=1)
    """Least IoU of a box, carried to a later frame, with the one it is linked to there; with flow,
    of that one carried back, too."""
    link_model: Literal[
        "sam2.1-hiera-tiny",
        "sam2.1-hiera-small",
        "sam2.1-hiera-base-plus",
        "sam2.1-hiera-large",
    ] = "sam2.1-hiera-tiny"
    """Weights of sam2, which are those of the segmenter of that name."""

    def deciding(self) -> dict[str, Any]:
        """Leave out what plays no part in the way boxes are linked, as before there was any."""
        unused = {"none": self.links, "flow": {"link_model"}}.get(self.link, set())
        return {key: value for key, value in super().deciding().items() if key not in unused}

    def backends(self) -> list[str]:
        """Return the detectors, and the model that links boxes if one does."""
        return [*self.detectors, *([self.link_model] if self.link == "sam2" else [])]

    @model_validator(mode="after")
    def _score_is_kept(self) -> ProposeConfig:
        if self.detectors != ["motion"] and self.min_score < self.raw_score:
            raise ValueError(
                f"min_score {self.min_score} is below raw_score {self.raw_score}, under which the"
                " detector's boxes are not kept"
            )
        return self

    @field_validator("min_scores")
    @classmethod
    def _of_detectors(cls, value: dict[str, Any]) -> dict[str, Any]:
        names = get_args(DetectorName)
        if wrong := next((name for name in value if name not in names), None):
            raise ValueError(f"{wrong!r} is no detector; there are {', '.join(names)}")
        return value

    @model_validator(mode="after")
    def _none_twice(self) -> ProposeConfig:
        for place, name in enumerate(self.detectors):
            if name in self.detectors[:place]:
                raise ValueError(
                    f"detectors names {name} twice; there are {', '.join(get_args(DetectorName))}"
                )
        return self

    def of(self, detector: str) -> ProposeConfig:
        """Return the settings as one of the detectors sees them: as if it were alone."""
        return self.model_copy(update={"detectors": [detector]})

    @property
    def detector(self) -> str:
        """Return the name of the only detector."""
        (name,) = self.detectors
        return name


class LabelConfig(Section):
    """The rule of `label accept`, and where people label."""

    # Where and how people are asked, which decides nothing of what the rule takes.
    unhashed: ClassVar[frozenset[str]] = frozenset(
        {
            "url",
            "token_file",
            "project",
            "task",
            "order",
            "media_url",
            "loop_half_s",
            "context_half_s",
            "server_command",
            "server_port",
            "backend_port",
            "backend_frames",
            "overlap",
            "share",
            "seed",
            "agreement_iou",
            "alike_iou",
            "carry_masks",
            "reuse_iou",
        }
    )

    accept_score: float = Field(default=0.5, ge=0, le=1)
    """Proposals from this detector score on are taken as they are."""
    accept_max: int = Field(default=3, ge=1)
    """Most proposals taken per frame, best first."""
    url: str = ""
    """The Label Studio server; empty: the one `label serve` runs for this workspace."""
    token_file: str = ""
    """File with its token, readable by its owner alone; empty: that of `label serve`. The
    environment's AVATAR_LABEL_TOKEN comes first."""
    project: str = Field(default="avatar-build", min_length=3, max_length=40)
    """Title of the projects at the server, followed by 'boxes', 'clips' or 'masks'."""
    task: Literal["frame", "clip"] = "frame"
    """The frames that a task is about: one, or those of a clip, which is then loaded and watched
    once. A task about masks then has the clip's frames beside it whose masks are alike."""
    media_url: str = "/data/local-files/?d="
    """Prefix of a media path that makes it an address. The default reads the server's own disk,
    whose document root must be the workspace, as `label serve` sets it up."""
    loop_half_s: float = Field(default=0.05, gt=0)
    """The muted loop shows the frame plus and minus this, seconds (the paper's 0.05)."""
    context_half_s: float = Field(default=2.0, gt=0)
    """The clip with sound shows the frame plus and minus this, seconds."""
    server_command: list[str] = []
    """The command of `label serve`; empty: label-studio of the PATH, else through uv."""
    server_port: int = Field(default=8080, ge=1, le=65535)
    """Port of `label serve`, on the loopback interface."""
    backend_port: int = Field(default=9090, ge=1, le=65535)
    """Port of `label backend`, on the loopback interface."""
    backend_frames: int = Field(default=32, ge=1)
    """Frames whose embeddings `label backend` keeps; SAM's take 4 MB each, SAM 2's 16 MB."""
    overlap: int = Field(default=1, ge=1)
    """People who answer a frame of the fraction below; every other frame is answered by one."""
    share: float = Field(default=0.1, ge=0, le=1)
    """Fraction of the frames that `overlap` people answer, of the clips where a task is a clip. A
    larger one contains a smaller one."""
    seed: int = 0
    """Seed of the draw of these frames, and of clips that are equal in a chosen order."""
    order: Literal["given", "uncertain", "rare"] = "given"
    """The clips that are sent first: as they come; where models are least sure; or those of the
    rarest category. A release that is made before all are labelled is biased by it, and says so."""
    agreement_iou: float = Field(default=0.5, gt=0, le=1)
    """Boxes of two people that overlap by this IoU are boxes of one thing."""
    alike_iou: float = Field(default=0.8, gt=0, le=1)
    """Masks of one thing in two frames of a clip are alike where one, moved and stretched with its
    box, overlaps the other by this IoU; with `task` clip such masks are accepted together."""
    carry_masks: bool = False
    """Ask the segmenter once more, at `label push masks`, where its mask of a thing is not
    alike to one that people verified in another frame of the clip, told of that one."""
    reuse_iou: float = Field(default=0.8, gt=0, le=1)
    """A box that a person kept as proposed stands as long as some proposal overlaps it by this IoU,
    whichever detector or threshold made that; otherwise its frame is sent again."""


class SegmentConfig(InferenceConfig):
    """Masks (paper 3.1.3)."""

    segmenter: Literal[
        "grabcut",
        "edgetam",
        "sam-vit-b",
        "sam-vit-l",
        "sam-vit-h",
        "sam2.1-hiera-tiny",
        "sam2.1-hiera-small",
        "sam2.1-hiera-base-plus",
        "sam2.1-hiera-large",
    ] = "grabcut"
    """Segmenter of boxes. grabcut: OpenCV's GrabCut, no weights. edgetam: the smallest that knows
    things, for a CPU. sam-vit-h: the paper's. sam2.1-hiera-large: its successor, faster."""
    min_box_iou: float = Field(default=0.5, ge=0, le=1)
    """SAM offers three masks for a box. One agrees with the box when its own bounding box overlaps
    it by this IoU; of those that agree the one of highest predicted IoU is taken, and if none does,
    the one that overlaps best."""
    grabcut_iterations: int = Field(default=5, ge=1)
    """Rounds of GrabCut, at most: a box is left alone once a round changes next to nothing."""
    min_mask_area: float = Field(default=0.02, ge=0, le=1)
    """Smallest mask, as a fraction of its box; below it the row fails, as colours_alike,
    box_too_small or, where the segmenter names no cause, empty_mask."""

    def backends(self) -> list[str]:
        """Return the segmenter."""
        return [self.segmenter]


class ExportConfig(Section):
    """The release."""

    title: str = "An audio-visual localization dataset"
    """Heading of the dataset card."""
    polygon_tolerance_px: float = Field(default=0.0, ge=0)
    """Simplification of the polygons in the authors' layout, pixels; 0 keeps every corner."""
    media: bool = True
    """Ship clips and frames. Off: annotations and ids only."""
    unlicensed: bool = False
    """Let a verified release ship the media of videos that state no licence."""
    free_categories: bool = False
    """Let instances have categories that are not in the taxonomy; they get the last ids."""


class Config(Section):
    """The settings of a workspace; ``pipeline.flow`` says which section a stage gets."""

    run: RunConfig = RunConfig()
    slurm: SlurmConfig = SlurmConfig()
    download: DownloadConfig = DownloadConfig()
    sample: SampleConfig = SampleConfig()
    hear: HearConfig = HearConfig()
    propose: ProposeConfig = ProposeConfig()
    label: LabelConfig = LabelConfig()
    segment: SegmentConfig = SegmentConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="after")
    def _one_taxonomy(self) -> Config:
        if self.hear.taxonomy != self.propose.taxonomy:
            raise ValueError(
                f"hear.taxonomy is {self.hear.taxonomy!r}, propose.taxonomy"
                f" {self.propose.taxonomy!r}: name one file in both"
            )
        return self


PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "offline": {
        "hear": {"tagger": "vggsound-label"},
        "propose": {"detectors": ["motion"]},
        "segment": {"segmenter": "grabcut"},
    },
    "light": {
        "hear": {"tagger": "efficientat-mn10-as"},
        "propose": {
            "detectors": ["dfine-small-obj365", "motion"],
            "motion": "no-box",
            "stand_ins": True,
            "classes": "generic",
            "max_boxes": 6,
        },
        "segment": {"segmenter": "edgetam"},
    },
    "paper": {
        "hear": {"tagger": "cav-mae"},
        "propose": {"detectors": ["yolov8x-oiv7"]},
        "segment": {"segmenter": "sam-vit-h"},
    },
}
"""Settings `init --profile` writes into avatar.toml. offline: no weights, no people, no network.
light: small models of permissive licences, seconds a clip on one core. paper: the paper's own.
`models fetch --profile` gets their weights."""


def check_profile(profile: str) -> None:
    """Insist that a profile is one of ``PROFILES``.

    Raises:
        UsageError: it is not; names those there are.
    """
    if profile not in PROFILES:
        raise UsageError(f"--profile {profile!r}: there is {', '.join(PROFILES)}.")


def profile_backends(profile: str) -> list[str]:
    """Return what hears, sees and cuts in a workspace of a profile, in the order of the flow.

    Raises:
        UsageError: there is no such profile.
    """
    check_profile(profile)
    config = Config.model_validate(PROFILES[profile])
    sections = (getattr(config, name) for name in Config.model_fields)
    return [name for one in sections if isinstance(one, InferenceConfig) for name in one.backends()]


def load_config(toml: str, settings: Iterable[str] = (), *, where: str = "avatar.toml") -> Config:
    """Resolve defaults, then the file, then what was typed.

    Args:
        toml: the text of ``avatar.toml``.
        settings: ``section.key=value`` strings, values in TOML; bare words are strings.
        where: the file's name, for errors.

    Raises:
        ConfigError: naming the place and the value.
    """
    try:
        values = tomllib.loads(toml)
    except (ValueError, RecursionError) as error:  # also a number or a nesting without end
        raise ConfigError(f"{where}: not valid TOML: {error}.") from error
    _validated(values, where)
    values = todays_names(values)
    for setting in settings:
        section, key, value = _section_setting(setting)
        values.setdefault(section, {})[key] = value
    return _validated(values, "--set")


def typed_keys(settings: Iterable[str]) -> dict[str, list[str]]:
    """Return the keys that ``section.key=value`` strings name, by section."""
    found: dict[str, list[str]] = {}
    for section, key, _ in map(_section_setting, settings):
        found.setdefault(section, []).append(key)
    return found


def parse_setting(setting: str, form: str = "section.key=value") -> tuple[list[str], Any]:
    """Return the names and the value of a setting as it was typed.

    Args:
        setting: of at least two names, with dots between them; the value in TOML, a bare word is
            a string.
        form: how it should be written, for the error.

    Raises:
        ConfigError: it is written in another way.
    """
    name, equals, text = setting.partition("=")
    names = name.strip().split(".")
    if not (equals and len(names) > 1 and all(names)):
        raise ConfigError(f"--set {setting!r}: write it as {form}.")
    return names, _typed_value(text)


def _section_setting(setting: str) -> tuple[str, str, Any]:
    (section, *key), value = parse_setting(setting)
    ((name, value),) = _section(section).todays_names({".".join(key): value}).items()
    return section, name, value


def todays_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by section under today's names."""
    return {
        name: _section(name).todays_names(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def every_name(section: str, key: str) -> list[str]:
    """Return a setting's name and those it had before."""
    renamed = _section(section).renamed
    return [key, *(old for old, new in renamed.items() if new == key)]


def _section(name: str) -> type[Section]:
    """Return the kind of a section; of one that there is not, one without settings."""
    field = Config.model_fields.get(name)
    kind: Any = field.annotation if field else Section
    return kind  # type: ignore[no-any-return]


def _typed_value(text: str) -> Any:
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return found["value"] if len(found) == 1 else text  # a line break begins another setting


def _validated(values: Mapping[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(values, strict=True)  # true is no number, and "7" none
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = " 'avatar-build config show' lists every name."
            message = "no such setting"
        else:
            message = f"{plain(first).rstrip('.')} (got {short(first['input'])})"
            if not isinstance(first["input"], (str, int, float, bool)):
                message = message.split(" (got ")[0]
        raise ConfigError(f"{where}: {place}: {message}.{hint}") from error
