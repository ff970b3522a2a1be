"""One annotator who labels the drawn clips by a script, frame by frame or clip by clip.

What is decided is the same in both layouts. What the machine takes is measured; what the person
takes is counted by a model of pauses, and not waited for: the clip with sound is heard once through
after a task opened, each picture is looked at, each decision and each drawn box takes a while.

Nothing is said twice: what stands on a page already and is right needs its look and no key. Of a
frame alone that is the status "Visible" and its boxes, and the submission is a decision. On a
clip's later pages it is "As before", and the boxes that were carried on; turning on to the next
page is no decision, as it submits nothing. The turns are counted, so that the work can also be
told as if each were one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from playwright.sync_api import expect

from labeling.projects.labeling_config import AS_BEFORE, SILENT, carried_label
from tests.labeling.annotator import Annotator
from tests.labeling.drawn_workspace import MIXED, MULTI, MUSIC, OFF_SCREEN, SECONDS, Drawn

LOOK_S, DECIDE_S, DRAW_S = 1.5, 1.0, 3.0
"""Seconds for looking at a picture and its loop, for a decision (a key that says something, and
submitting), and for drawing a box with its category and scenario."""


def heard_s(frames: list[Drawn]) -> float:
    """Seconds of the clip with sound: two before the first frame to two after the last."""
    times = [one.frame.time_s for one in frames]
    return min(SECONDS, max(times) + 2) - max(0.0, min(times) - 2)


@dataclass
class Worked:
    """What the work of a layout took."""

    tasks: int = 0
    frames: int = 0
    turns: int = 0
    """Pages turned from inside tasks, the last one of each too."""
    page_s: float = 0.0
    """Seconds from each submission until the next task can be worked on, and of the first."""
    hands_s: float = 0.0
    """Seconds in which the page did what keys and mouse asked."""
    pauses_s: float = 0.0
    """Seconds of the person, by the model."""
    requests: int = 0
    bytes: int = 0
    """Bytes that came over the network, as the browser counts them, less Label Studio's own scripts
    and styles: these come once, or from the browser's cache."""

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.page_s + self.hands_s + self.pauses_s


@dataclass
class Scripted:
    """The annotator, at a project whose tasks show these frames."""

    person: Annotator
    frames: dict[int, list[Drawn]]
    """The frames of each task, in the order of its pages, by number."""
    heard_s: Callable[[list[Drawn]], float]
    """How long the clip with sound of a task is."""
    worked: Worked = field(default_factory=Worked)
    _kinds: dict[str, str] = field(default_factory=dict)
    """The kind of each response, by request."""

    def work(self, project: int) -> Worked:
        """Do all tasks of the stream."""
        self.person.begin(project)  # the application itself is in the browser's cache from here on
        context = self.person.page.context.new_cdp_session(self.person.page)
        context.send("Network.enable")
        context.on("Network.responseReceived", self._note)
        context.on("Network.loadingFinished", self._count)
        at = self._timed(lambda: self.person.begin(project))
        while True:
            shown = self.frames[at]
            self._one(shown)
            self.worked.tasks += 1
            self.worked.frames += len(shown)
            self.worked.pauses_s += DECIDE_S
            self._hands(self.person.submit)
            if self.worked.tasks == len(self.frames):
                context.detach()
                return self.worked
            at = self._timed(partial(self.person.wait_for_another_task, at))

    def _note(self, received: dict[str, str]) -> None:
        self._kinds[received["requestId"]] = received["type"]

    def _count(self, loaded: dict[str, Any]) -> None:
        if self._kinds.pop(loaded["requestId"], "") in ("Script", "Stylesheet", "Font"):
            return
        self.worked.requests += 1
        self.worked.bytes += int(loaded["encodedDataLength"])

    def _timed(self, act: Callable[[], int]) -> int:
        began = time.perf_counter()
        found = act()
        self.worked.page_s += time.perf_counter() - began
        return found

    def _hands(self, act: Callable[[], object], pause_s: float = 0.0) -> None:
        began = time.perf_counter()
        act()
        self.worked.hands_s += time.perf_counter() - began
        self.worked.pauses_s += pause_s

    def _one(self, shown: list[Drawn]) -> None:
        self.worked.pauses_s += self.heard_s(shown)
        by_clip = len(shown) > 1
        for page, one in enumerate(shown):
            if page:
                self.worked.turns += 1
                self._hands(partial(self.person.turn_page, page))
            self.worked.pauses_s += LOOK_S
            self._decide(one, by_clip)
        if by_clip:  # from the last one too
            self.worked.turns += 1
            self._hands(lambda: self.person.press("Control+ArrowRight"))

    def _decide(self, one: Drawn, by_clip: bool) -> None:
        person, video = self.person, one.scene.video_id
        # What was said of the picture before is right for this one: nothing in these clips changes.
        as_before = by_clip and person.status() == AS_BEFORE
        if video in (OFF_SCREEN, MUSIC) and as_before:
            return
        if video == OFF_SCREEN:
            self._hands(lambda: person.decide("8", "Off-screen"), DECIDE_S)
            self._hands(lambda: person.choose("car"), DECIDE_S)
            return
        if video == MUSIC:
            self._hands(lambda: person.decide("9", "Reject"), DECIDE_S)
            self._hands(lambda: person.press("Shift+M"), DECIDE_S)
            return
        if video == MULTI:
            silent = f"p_{MULTI}_{one.frame.frame_index}_0"
            if not by_clip:
                self._hands(lambda: self._delete(one, "dog left"), DECIDE_S)
            elif person.labels()[silent] != carried_label("dog"):
                self._hands(lambda: self._silence(one, "dog left"), DECIDE_S)
        elif video == MIXED:
            self._hands(lambda: self._draw(one, "violin"), DRAW_S)
        if by_clip and not as_before:
            self._hands(lambda: person.decide("7", "Visible"), DECIDE_S)

    def _select(self, one: Drawn, actor: str) -> None:
        x, y, width, height = one.box(actor)
        self.person.page.mouse.click(*self.person.at(x + width / 2, y + height / 2))
        self.person.page.wait_for_function("Htx.annotationStore.selected.selectedRegions.length")

    def _delete(self, one: Drawn, actor: str) -> None:
        left = len(self.person.regions()) - 1
        self._select(one, actor)
        self.person.press("d")
        self.person.wait_for_regions(left)

    def _silence(self, one: Drawn, actor: str) -> None:
        """In this picture and all after it."""
        self._select(one, actor)
        self.person.press("x")
        expect(self.person.page.get_by_role("checkbox", name=SILENT)).to_be_checked()

    def _draw(self, one: Drawn, actor: str) -> None:
        more = len(self.person.regions()) + 1
        x, y, width, height = one.box(actor)
        self.person.press("2")  # heard second
        self.person.drag((x, y), (x + width, y + height))
        self.person.wait_for_regions(more)
        self.person.page.wait_for_function("Htx.annotationStore.selected.selectedRegions.length")
        self.person.press("w")
