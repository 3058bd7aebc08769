"""The report as a browser shows it: Chromium without a window, driven through its own pipe (no extra dependency)."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image
from results_for_tests import hand_made_region, hand_made_result

from melanoma_infer.reports import drawing, report_html, report_pictures
from melanoma_infer.reports.frame import frame_of

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), "")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine (apt-get install chromium)"),
    pytest.mark.skipif(os.name == "nt", reason="Chromium's debugging pipe is wired by POSIX descriptors"),
]


WIRED = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for number, end in zip((3, 4), ends):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from descriptor 3 and answers on 4; messages end with a zero byte."""


class Browser:
    """One page in Chromium; its requests and its warnings are recorded."""

    def __init__(self, profile: Path) -> None:
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", WIRED, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._pending, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _attach(self) -> None:
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Security"):
            self.ask(f"{domain}.enable")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The browser's answer to one command."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            chunk = os.read(self._read, 1 << 20)
            assert chunk, "Chromium ended"
            self._pending += chunk
        message, _, self._pending = self._pending.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def open(self, path: Path) -> None:
        """Load a file, and wait until it and its images are there."""
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())
        self.script("Promise.all([...document.images].map((image) => image.decode()))")

    def script(self, expression: str) -> Any:
        """The value of an expression in the page."""
        said = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def size(self, width: int, height: int = 900) -> None:
        """Set the size of the window, without scroll bars."""
        self.ask("Emulation.setScrollbarsHidden", hidden=True)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def picture(self, *, whole: bool = False) -> Image.Image:
        """A screenshot of the window, or of the whole page."""
        content = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **self._clip(whole))
        return Image.open(io.BytesIO(base64.b64decode(content["data"]))).convert("RGB")

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def pdf(self) -> bytes:
        """The page as it prints."""
        return base64.b64decode(self.ask("Page.printToPDF", preferCSSPageSize=True)["data"])

    @property
    def requests(self) -> list[str]:
        """What the page requested, data URIs excepted."""
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]

    @property
    def complaints(self) -> list[Any]:
        """Errors and warnings of the page and of its policy."""
        logged = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        thrown = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return logged + [e["params"] for e in self.events if e.get("method") in thrown]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.size(1200)
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(report_html.render(hand_made_result()))
    return path


@pytest.fixture
def page(browser: Browser, report: Path) -> Browser:
    browser.size(1200)
    browser.open(report)
    return browser


def focus(page: Browser, name: str) -> None:
    page.script(f"document.getElementById({name!r}).focus()")


def width_of(page: Browser, selector: str) -> float:
    width: float = page.script(f"document.querySelector({selector!r}).getBoundingClientRect().width")
    return width


def colour_at_cell(page: Browser) -> np.ndarray[Any, Any]:
    """The colour in the middle of cell (6, 2), whose evidence is 0.6."""
    box = page.script("(({x, y, width}) => ({x, y, width}))(document.querySelector('.stage').getBoundingClientRect())")
    result = hand_made_result()
    assert result.view is not None
    frame = frame_of(result, result.view, report_pictures.STAGE_PX)
    css_px_per_l0 = box["width"] / frame.shape[1] / frame.px_l0
    x, y = box["x"] + 2600 * css_px_per_l0, box["y"] + 1000 * css_px_per_l0
    return np.asarray(page.picture())[round(y), round(x)].astype(float)


def test_the_page_requests_nothing_and_logs_no_warning(page, report):
    page.picture(whole=True)
    assert page.requests == [report.as_uri()]
    assert page.complaints == []


def test_the_slider_hides_the_heat_by_keyboard(page):
    part = 0.40 * np.sqrt(0.6)
    tissue = np.array([230, 180, 205])
    heat = part * drawing.RAMP[153] + (1 - part) * tissue
    page.script("document.querySelector('.stage').scrollIntoView()")
    assert colour_at_cell(page) == pytest.approx(heat, abs=8)  # JPEG
    focus(page, "heat")
    page.press("ArrowLeft", 37)
    for of in ("getElementById('heat-layer')", "querySelector('.ramp'), '::before'"):  # the key follows
        assert page.script(f"getComputedStyle(document.{of}).opacity") == "0.35"
    assert page.script("document.getElementById('heat-said').value") == "35 %"
    page.press("Home", 36)
    assert colour_at_cell(page) == pytest.approx(tissue, abs=8)
    assert page.script("document.querySelector('.heat-key').offsetWidth") == 0
    assert page.complaints == []


def test_outlines_are_switched_by_keyboard(page):
    shown = "getComputedStyle(document.querySelector('.stage svg')).display"
    assert page.script(shown) == "block"
    focus(page, "lines")
    page.press(" ", 32)
    assert page.script(shown) == "none"
    page.press(" ", 32)
    assert page.script(shown) == "block"


def test_zoom_keeps_the_middle_and_the_scale_bar_stays_true(page):
    before, bar = width_of(page, ".stage"), width_of(page, ".bar")
    focus(page, "z1")
    page.press("ArrowRight", 39)
    page.press("ArrowRight", 39)
    assert page.script("document.getElementById('z4').checked")
    assert width_of(page, ".stage") == pytest.approx(4 * before, rel=0.001)
    assert width_of(page, ".bar") == pytest.approx(4 * bar, rel=0.001)
    middle = page.script(
        "(v => (v.scrollLeft + v.clientWidth / 2) / v.scrollWidth)(document.getElementById('viewport'))"
    )
    assert middle == pytest.approx(0.5, abs=0.01)
    assert page.script("document.documentElement.scrollWidth") <= 1200


def test_the_bar_and_the_outlines_are_right_on_the_slide(page):
    """The bar is as long as its label says on a slide 2 mm wide; the outline's box is that of its l0 points."""
    result = hand_made_result()
    assert result.view is not None
    frame = frame_of(result, result.view, report_pictures.STAGE_PX)
    l0_a_css_px = frame.px_l0 * frame.shape[1] / width_of(page, ".stage")
    said = float(page.script("document.querySelector('.bar').textContent").split()[0])
    assert width_of(page, ".bar") * l0_a_css_px * 0.5 / 1000 == pytest.approx(said, rel=0.01)
    place = "((a, b) => [b.x - a.x, b.y - a.y, b.width, b.height])"
    boxes = [f"document.querySelector('{name}').getBoundingClientRect()" for name in (".stage", ".line")]
    found = np.array(page.script(f"{place}({', '.join(boxes)})")) * l0_a_css_px
    assert found == pytest.approx([800, 800, 1200, 800], abs=2 * l0_a_css_px)


def test_outlines_leave_the_key_when_they_are_off(page):
    focus(page, "lines")
    page.press(" ", 32)
    assert page.script("document.querySelector('.lines-key').offsetWidth") == 0


@pytest.mark.parametrize("width", [390, 500, 700])
def test_no_table_is_cut_on_a_narrow_window(browser, tmp_path, width):
    """With many regions in the grey box, the narrowest place; all its cells are inside their section."""
    reasons = [{"code": "model-knows-only-phantoms", "text": "Only phantoms.", "value": 0.5, "limit": "0.8 mm"}]
    regions = [hand_made_region(id=f"R{i}").model_dump(by_alias=True) for i in range(1, 40)]
    path = tmp_path / "report.html"
    path.write_bytes(report_html.render(hand_made_result(verdict="indeterminate", reasons=reasons, regions=regions)))
    browser.size(width)
    browser.open(path)
    browser.script("document.querySelector('details').open = true")
    cut = """[...document.querySelectorAll('td, tbody th')].filter((cell) =>
      cell.getBoundingClientRect().right > cell.closest('section').getBoundingClientRect().right).length"""
    assert browser.script(cut) == 0
    assert browser.script("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_reaches_beyond_the_window(page, width):
    page.size(width)
    assert page.script("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.34, 0.36, 0.64, 0.66, 0.98, 1.0])
def test_the_threshold_s_label_covers_neither_end_of_the_score_line(browser, tmp_path, threshold):
    """At 400 px; the longest label, with its interval, once ran off the page."""
    result = hand_made_result()
    ends = {"threshold_low": max(0, threshold - 0.05), "threshold_high": min(1, threshold + 0.05)}
    bundle = result.bundle.model_copy(update={"threshold": threshold, **ends})
    changed = result.model_copy(update={"bundle": bundle}).carrying(result.tiles, card=result.card)
    path = tmp_path / "report.html"
    path.write_bytes(report_html.render(changed))
    browser.size(400)
    browser.open(path)
    spans = "[...document.querySelectorAll('.score .below span')].map((span) => span.getBoundingClientRect())"
    zero, label, one = browser.script(f"{spans}.map(({{left, right}}) => [left, right])")
    assert zero[1] < label[0] < label[1] < one[0]
    mark = browser.script("document.querySelector('.score .threshold').getBoundingClientRect().left")
    assert label[0] - 20 <= mark <= label[1] + 20


def test_the_key_keeps_its_words_together_on_a_narrow_window(page):
    page.size(400)
    heights = page.script("[...document.querySelectorAll('.key > span')].map((span) => span.offsetHeight)")
    assert max(heights) <= 30


def test_tab_reaches_every_control(page):
    reached = []
    for _ in range(6):
        page.press("Tab", 9)
        reached.append(page.script("document.activeElement.id"))
    assert reached[:4] == ["z1", "lines", "heat", "viewport"]


@pytest.mark.parametrize("meaningless", [False, True])
def test_text_has_enough_contrast_with_its_background(browser, tmp_path, meaningless):
    """WCAG AA: 4.5 to 1 for every text, computed from the colours that the browser uses."""
    reasons = [{"code": "model-untrained", "text": "The model is untrained."}] if meaningless else []
    scale = {
        "x_um_per_px": 0.5,
        "y_um_per_px": 0.5,
        "source": "override",
        "slide_x_um_per_px": 1,
        "slide_y_um_per_px": 1,
    }
    verdict = "indeterminate" if meaningless else "suspected"
    path = tmp_path / "report.html"
    path.write_bytes(report_html.render(hand_made_result(reasons=reasons, verdict=verdict, scale=scale)))
    browser.open(path)
    ratios = browser.script(CONTRAST)
    assert len(ratios) > 60
    assert min(ratio for ratio, _ in ratios) >= 4.5, min(ratios)


CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => { for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour; } return [255, 255, 255]; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || element.closest("script, svg")) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text]);
  }
  return found;
})()"""


def test_it_prints_on_a4_without_its_controls(page):
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 2 <= pages <= 6
    box = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert box is not None
    assert (float(box[1]), float(box[2])) == pytest.approx((595.3, 841.9), abs=1)  # 210 × 297 mm
    page.ask("Emulation.setEmulatedMedia", media="print")
    hidden = "['z1', 'lines', 'heat-control'].map((id) => getComputedStyle(document.getElementById(id)).display)"
    assert page.script(hidden) == ["none"] * 3

    page.ask("Emulation.setEmulatedMedia", media="")
    assert page.complaints == []


def test_the_grey_box_stays_on_one_printed_page(browser, tmp_path):
    reasons = [{"code": "model-untrained", "text": "The model is untrained."}]
    path = tmp_path / "report.html"
    path.write_bytes(report_html.render(hand_made_result(verdict="indeterminate", reasons=reasons)))
    browser.open(path)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.script("getComputedStyle(document.querySelector('.void')).breakInside") == "avoid"
    browser.ask("Emulation.setEmulatedMedia", media="")


def test_hostile_text_runs_nothing(browser, tmp_path):
    hostile = "<script>window.ran=1</script><img src=x onerror='window.ran=2'>\u202egnp"
    path = tmp_path / "report.html"
    region = hand_made_region(id=hostile).model_dump(by_alias=True)
    path.write_bytes(report_html.render(hand_made_result(id=hostile, regions_note=hostile, regions=[region])))
    browser.open(path)
    assert browser.script("window.ran") is None
    assert browser.requests == [path.as_uri()]
    assert browser.complaints == []
    assert hostile.replace("\u202e", "") in browser.script("document.body.innerText")


def test_the_policy_stops_what_somebody_adds_to_a_copy(browser, report, tmp_path):
    """Proof that the tests above can fail: a foreign script and image are stopped, and the browser logs it."""
    path = tmp_path / "report.html"
    foreign = '<script>window.ran = 1</script><img src="http://127.0.0.1:9/x.png" onerror="window.ran = 2" alt="x">'
    path.write_text(report.read_text().replace("</main>", f"</main>{foreign}"))
    browser.events.clear()
    browser.ask("Page.navigate", url=path.as_uri())
    browser.script("new Promise((done) => setTimeout(done, 300))")
    assert browser.script("window.ran") is None
    said = " ".join(str(complaint) for complaint in browser.complaints)
    assert said.count("Content Security Policy") >= 2
