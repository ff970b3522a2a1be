"""A person at Label Studio's page: real keys and a real mouse in a real browser."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, Request, Response, expect, sync_playwright

CHROMIUM = Path(os.environ.get("AVATAR_CHROMIUM", "/usr/bin/chromium"))

_SWITCHES = [
    "--no-sandbox",  # a container's root has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_WAIT_MS = 30_000.0

# What the guide tells annotators to switch on behind the gear.
_SETTINGS = """localStorage.setItem(
  'labelStudio:settings', JSON.stringify({selectAfterCreate: true, showLabels: true}))"""

# The page makes the annotation of a task more than once before it is ready to be worked on; of one
# that is named in its address once more, which on a slow machine comes late.
_IS_OPEN = """number => {
  const chosen = window.Htx?.annotationStore?.selected
  const image = [...(chosen?.names?.values() ?? [])].find(object => object.type === 'image')
  const ready = chosen && !Htx.isLoading && chosen?.type === 'annotation' && image?.imageIsLoaded
  const state = ready && (!number || Htx.task.id === number) ? chosen.id : ''
  if (window.seenState !== state) [window.seenState, window.seenSince] = [state, Date.now()]
  return Boolean(state) && Date.now() - window.seenSince > (number ? 1200 : 300)
}"""

STATUS = "Htx.annotationStore.selected.names.get('status').selectedValues()[0]"
"""The status that is set on the open picture; undefined for none."""

_IMAGE = "[...Htx.annotationStore.selected.names.values()].find(one => one.type === 'image')"
_PAGE = f"() => {_IMAGE}.currentImage"
_IS_PAGE = f"number => {_IMAGE}.currentImage === number && {_IMAGE}.imageIsLoaded"

_HAS_POINT_TOOL = """() => {
  const names = [...Htx.annotationStore.selected.names.values()]
  const tools = names.find(object => object.type === 'image').getToolsManager()
  return tools.findSelectedTool()?.fullName === 'KeyPointTool-dynamic'
}"""


@dataclass
class Annotator:
    """One browser window of one person."""

    page: Page
    url: str
    outside: list[str] = field(default_factory=list)
    """Addresses beyond the loopback interface that the page asked for; there must be none."""

    def log_in(self, user: str, password: str) -> None:
        """Through the form."""
        self.page.goto(f"{self.url}/user/login/")
        self.page.fill("input[name=email]", user)
        self.page.fill("input[name=password]", password)
        with self.page.expect_navigation():
            self.page.click("button[type=submit]")
        self.page.evaluate(_SETTINGS)

    def open(self, project: int, task: int) -> None:
        """One task of the project's list."""
        self.page.goto(f"{self.url}/projects/{project}/data?task={task}")
        self._see(task)

    def begin(self, project: int) -> int:
        """The stream of tasks to do; the number of the first."""
        self.page.goto(f"{self.url}/projects/{project}/data?labeling=1")
        first = self._see(0)
        if (keys := self.page.get_by_text("Labeling Instructions")).count():
            self.press("Escape")
            expect(keys).to_have_count(0, timeout=_WAIT_MS)
        return first

    def turn_page(self, to: int) -> None:
        """Ctrl and an arrow, page by page, until the picture of that number, from 0, is open."""
        while (at := int(self.page.evaluate(_PAGE))) != to:
            step = 1 if to > at else -1
            self.press("Control+ArrowRight" if step > 0 else "Control+ArrowLeft")
            self.wait_for_page(at + step)

    def wait_for_page(self, number: int) -> None:
        """Until the picture of that number, from 0, is open and loaded."""
        self.page.wait_for_function(_IS_PAGE, arg=number, timeout=_WAIT_MS)

    def press(self, *keys: str) -> None:
        """Keys, one after another."""
        for key in keys:
            self.page.keyboard.press(key)

    def decide(self, key: str, status: str) -> None:
        """Press a status's key and see it taken; a page that is just opening may miss a key."""
        choice = self.page.get_by_role("radio", name=status)
        for _ in range(5):
            self.press(key)
            with contextlib.suppress(AssertionError):
                expect(choice).to_be_checked(timeout=3000)
                return
        expect(choice).to_be_checked()

    def select(self, region: str) -> None:
        """Press Space until the region is selected."""
        for _ in range(20):
            if region in self.selected():
                return
            self.press("Space")
        raise AssertionError(f"{region} is never selected: {self.regions()}")

    def selected(self) -> list[str]:
        """Ids of the selected regions."""
        return list(
            self.page.evaluate(
                "Htx.annotationStore.selected.selectedRegions.map(region => region.cleanId)"
            )
        )

    def regions(self) -> list[str]:
        """Ids of the boxes or masks on the page."""
        return list(
            self.page.evaluate(
                "Htx.annotationStore.selected.regions.filter(r => r.type).map(r => r.cleanId)"
            )
        )

    def labels(self) -> dict[str, str]:
        """The labels of the boxes on the page, by region."""
        return dict(
            self.page.evaluate(
                "Htx.annotationStore.selected.regions.filter(r => r.type)"
                ".map(r => [r.cleanId, r.labeling.mainValue[0]])"
            )
        )

    def status(self) -> str:
        """The status that is set on the open picture; empty for none."""
        return str(self.page.evaluate(f"{STATUS} ?? ''"))

    def wait_for_regions(self, count: int) -> None:
        """Until so many boxes or masks are on the page."""
        self.page.wait_for_function(
            "count => Htx.annotationStore.selected.regions.filter(r => r.type).length === count",
            arg=count,
            timeout=_WAIT_MS,
        )

    def at(self, x: float, y: float, size: tuple[int, int] = (640, 360)) -> tuple[float, float]:
        """Where a place of the frame, in its pixels, stands on the screen."""
        shown = self.page.locator(".lsf-image img").bounding_box()
        assert shown is not None
        return (
            shown["x"] + x / size[0] * shown["width"],
            shown["y"] + y / size[1] * shown["height"],
        )

    def drag(self, *places: tuple[float, float]) -> None:
        """Press the mouse at the first place of the frame, move along the others, let go."""
        mouse = self.page.mouse
        mouse.move(*self.at(*places[0]))
        mouse.down()
        for place in places[1:]:
            mouse.move(*self.at(*place), steps=8)
        mouse.up()

    def switch_on_suggestions(self) -> None:
        """Auto-Annotation, below the picture; the browser keeps it for later tasks."""
        self.page.get_by_text("Auto-Annotation", exact=True).click()
        expect(self.page.get_by_test_id("bottombar-auto-annotation-toggle")).to_be_checked()
        # The switch would take the keys that follow.
        self.page.evaluate("document.activeElement.blur()")

    def prompt(self, key: str, x: float, y: float) -> None:
        """Say with a point that a place belongs to the thing of the key."""
        self.press(key, "k")
        self.page.wait_for_function(_HAS_POINT_TOOL, timeout=_WAIT_MS)
        self.page.keyboard.down("Control")  # on top of a mask, too
        self.page.mouse.click(*self.at(x, y))
        self.page.keyboard.up("Control")
        tick = self.page.get_by_test_id("bottombar-accept-suggestions-button")
        expect(tick).to_be_visible(timeout=_WAIT_MS)

    def accept_suggestion(self) -> None:
        """Take what was suggested, with the tick."""
        tick = self.page.get_by_test_id("bottombar-accept-suggestions-button")
        tick.click()
        expect(tick).to_be_hidden(timeout=_WAIT_MS)

    def write(self, text: str) -> None:
        """Fill in the page's visible text field and press Enter, which keeps it."""
        place = self.page.get_by_test_id("textarea-input").locator("visible=true")
        place.fill(text)
        place.press("Enter")
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=_WAIT_MS)

    def expect_text(self, text: str) -> None:
        """See it on the page."""
        expect(self.page.get_by_text(text).first).to_be_visible(timeout=_WAIT_MS)

    def choose(self, option: str) -> None:
        """Open the page's only list and take an option."""
        self.page.get_by_test_id("select-trigger").click()
        self.page.get_by_test_id(f"select-option-{option}").click()
        # While it closes it still takes keys.
        expect(self.page.get_by_test_id("select-popup")).to_be_hidden(timeout=_WAIT_MS)

    def submit(self, keys: str = "Control+Enter") -> int:
        """Submit or update; the number of the annotation at the server."""

        def answered(response: Response) -> bool:
            method = response.request.method
            return "/api/" in response.url and "annotations" in response.url and method != "GET"

        with self.page.expect_response(answered, timeout=_WAIT_MS) as caught:
            self.press(keys)
        answer = caught.value
        assert answer.ok, answer.text()
        return int(answer.json()["id"])

    def wait_for_another_task(self, than: int) -> int:
        """The number of the next task of the stream, once it is open."""
        self.page.wait_for_function(
            "number => Htx.task?.id && Htx.task.id !== number", arg=than, timeout=_WAIT_MS
        )
        return self._see(0)

    def photograph(self, file: Path) -> Path:
        """The window, as a PNG."""
        self.page.screenshot(path=file)
        return file

    def _see(self, task: int) -> int:
        self.page.wait_for_function(_IS_OPEN, arg=task, timeout=_WAIT_MS)
        return int(self.page.evaluate("Htx.task.id"))


@contextlib.contextmanager
def browser(profile: Path, url: str) -> Iterator[Annotator]:
    """A browser window of 1600x900 that nobody used before."""
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(profile),
            executable_path=str(CHROMIUM),
            headless=True,
            args=_SWITCHES,
            viewport={"width": 1600, "height": 900},
        )
        try:
            page = context.pages[0]
            page.on("dialog", lambda dialog: dialog.accept())
            person = Annotator(page, url)
            _watch(context, person.outside.append)
            yield person
        finally:
            context.close()


def _watch(context: BrowserContext, tell: Callable[[str], Any]) -> None:
    def seen(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            tell(request.url)

    context.on("request", seen)
