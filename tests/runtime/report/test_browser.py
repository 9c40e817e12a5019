"""report.html in a headless Chromium, opened from disk: what it loads, shows, and does under the keys."""

import base64
import io
import json
import shutil

import pytest
from PIL import Image

from runtime.records.bench import Bench
from tests.command_line import edgeproof
from tests.runtime.report.pages import BENCH, QUESTIONS, SECTIONS

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium here: apt-get install chromium chromium-driver"),
    # selenium leaves the sockets of its driver to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTHS = (360, 800, 1280)
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 28)"


@pytest.fixture(scope="module")
def file(made, tmp_path_factory):
    """A page with every section, written by the command line."""
    run = shutil.copytree(made / "run", tmp_path_factory.mktemp("page") / "run")
    (run / "bench.json").write_text(Bench.model_validate(BENCH).model_dump_json(by_alias=True))
    assert edgeproof("report", run, made / "other", made / "farther").exit_code == 0
    return run / "report.html"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(driver, file):
    """The page, light and 1280 wide."""
    look(driver, 1280)
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    driver.get(file.as_uri())
    return driver


def look(driver, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def background(driver):
    return driver.execute_script("return getComputedStyle(document.body).backgroundColor")


def shown(driver, selector):
    return driver.execute_script("return document.querySelector(arguments[0]).getClientRects().length > 0", selector)


def press(driver, *keys):
    driver.switch_to.active_element.send_keys(*keys)


def test_it_opens_from_disk_without_an_error_or_a_request(opened, file):
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert asked[0] == file.as_uri()
    assert all(url.startswith("data:") for url in asked[1:])


def test_the_answers_and_what_the_model_is_need_no_scrolling(opened):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    for part in (".verdict", ".answers", ".next", ".model"):
        low = opened.execute_script(f"return document.querySelector('{part}').getBoundingClientRect().bottom")
        assert low <= 800
    questions = opened.execute_script("return [...document.querySelectorAll('main > div h2')].map(e => e.textContent)")
    assert questions == QUESTIONS


def test_every_section_is_shown_and_every_picture_decoded(opened):
    for name, title in SECTIONS.items():
        assert shown(opened, f"#{name}")
        assert opened.execute_script(f"return document.querySelector('#{name} h2').textContent") == title
    assert opened.execute_script("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    for chart in opened.find_elements("css selector", "svg[role=img], .chart div"):
        assert chart.rect["width"] > 100


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_at_any_width(opened, width, scheme):
    look(opened, width, scheme)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    outside = opened.execute_script("""
        const inside = element => element.closest('.wide, .skip, .switch');
        return [...document.querySelectorAll('main *, header *')].filter(element => !inside(element) &&
            element.getBoundingClientRect().right > document.documentElement.clientWidth + 1).length""")
    assert outside == 0
    data = opened.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": False})["data"]
    with Image.open(io.BytesIO(base64.b64decode(data))) as shot:
        corner = shot.convert("RGB").getpixel((2, 2))
    assert f"rgb{corner}" == (LIGHT if scheme == "light" else DARK)


def test_colours_follow_the_system_until_the_keys_choose(opened):
    from selenium.webdriver.common.keys import Keys

    assert background(opened) == LIGHT
    look(opened, 1280, "dark")
    assert background(opened) == DARK
    opened.execute_script("document.querySelector('#theme-auto').focus()")
    press(opened, Keys.ARROW_RIGHT)
    assert background(opened) == LIGHT
    press(opened, Keys.ARROW_RIGHT)
    assert background(opened) == DARK
    look(opened, 1280, "light")
    assert background(opened) == DARK


def test_the_keys_reach_the_content_the_colours_the_sections_and_the_gallery(opened):
    from selenium.webdriver.common.keys import Keys

    reached = []
    for _ in range(60):
        press(opened, Keys.TAB)
        active = opened.switch_to.active_element
        reached.append(active.get_attribute("id") or active.get_attribute("href") or active.get_attribute("aria-label"))
        if reached[-1] == "Command":
            break
    assert reached[0].endswith("#main")
    assert reached[1] == "theme-auto"
    assert [link.rpartition("#")[2] for link in reached[2 : 2 + len(SECTIONS)]] == list(SECTIONS)
    assert "view-amplified" in reached
    assert reached[-1] == "Command"


def test_the_switch_of_the_gallery_changes_the_perturbations(opened):
    from selenium.webdriver.common.keys import Keys

    assert shown(opened, ".amplified")
    assert not shown(opened, ".heat")
    opened.execute_script("document.querySelector('#view-amplified').focus()")
    press(opened, Keys.ARROW_RIGHT)
    assert shown(opened, ".heat")
    assert not shown(opened, ".amplified")
    press(opened, Keys.ARROW_RIGHT)
    filtered = "return getComputedStyle(document.querySelector('.amplified')).filter"
    assert opened.execute_script(filtered) == "contrast(0.02)"


CONTRAST = """
const parse = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const solid = (...colours) => {
  canvas.clearRect(0, 0, 1, 1);
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = rgb => rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = element => { const all = []; for (let e = element; e; e = e.parentElement)
  all.unshift(getComputedStyle(e).backgroundColor); return all; };
const low = [];
for (const element of document.querySelectorAll('main *, header *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const style = getComputedStyle(element);
  if (!own || !element.getClientRects().length || element.closest('svg') || style.color.endsWith(', 0)')) continue;
  const ground = behind(element), [a, b] = [light(solid(...ground)), light(solid(...ground, style.color))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) low.push([element.className, element.textContent.trim(), ratio]);
}
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground_as_wcag_asks(opened, scheme):
    look(opened, 1280, scheme)
    assert opened.execute_script(CONTRAST) == []
    opened.execute_script("document.documentElement.style.setProperty('--soft', 'light-dark(#999, #555)')")
    assert opened.execute_script(CONTRAST) != []


def test_it_prints_on_a_few_light_pages(opened):
    look(opened, 1280, "dark")
    data = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    pdf = base64.b64decode(data)
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") <= 9
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert background(opened) == LIGHT
    assert not shown(opened, ".switch")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
