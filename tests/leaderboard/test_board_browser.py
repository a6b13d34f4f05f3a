"""The page in headless Chromium: sort, filter, open a model, zoom; at the widths of a laptop and a phone."""

import shutil
import struct
import zlib

import pytest

from leaderboard import Model, Picture, build_page
from leaderboard.ranking import make_board

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if CHROMIUM is None:
    pytest.skip("no chromium on this machine (Debian: apt install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install 'smlm-zoo[test]'")

PATIENCE_MS = 120_000  # on a machine that does other things
SIZES = {"laptop": (1400, 900), "phone": (390, 844)}


def png(path, value, side=32):
    """A grey square with one bright pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = bytearray()
    for row in range(side):
        rows += b"\0" + bytes(255 if (row, column) == (8, 24) else value for column in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS)
        yield one
        one.close()


@pytest.fixture(scope="module")
def address(rich_results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    models = ["raw", "truth", "decode", "fid_storm", "dsir"]
    pictures = [
        Picture(dataset="tubes-2d-ld", model=model, path=png(folder / f"{i}.png", 40 * i))
        for i, model in enumerate(models)
    ]
    return build_page(rich_results, folder / "out", pictures=pictures).as_uri()


@pytest.fixture(scope="module", params=list(SIZES))
def loaded(request, browser, address):
    """The page, loaded once for each width."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    one = context.new_page()
    one.set_default_timeout(PATIENCE_MS)
    one.wrong = []
    one.on("pageerror", lambda error: one.wrong.append(str(error)))
    one.on("console", lambda message: one.wrong.append(message.text) if message.type == "error" else None)
    one.goto(address)
    yield one
    context.close()


@pytest.fixture
def page(loaded):
    """The page at its first table, and afterwards the checks that hold whatever was done."""
    loaded.evaluate("location.hash = ''")
    loaded.wait_for_selector("#board", state="visible")
    loaded.click("#tab-1")
    loaded.click("#tab-1-1")
    yield loaded
    assert loaded.wrong == []
    assert loaded.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out sideways


def models_shown(page, panel="#panel-1-1"):
    return page.eval_on_selector_all(
        f"{panel} tbody tr", "rows => rows.filter(r => r.offsetParent).map(r => r.dataset.model)"
    )


def test_sort_filter_and_tabs(page, rich_results):
    board = make_board(rich_results)
    order = board.part(board.groups[0]).entries
    assert models_shown(page) == order
    page.click("#panel-1-1 thead th:nth-child(1) button")  # by name
    assert models_shown(page) == sorted(order, key=str.lower)
    page.click("#panel-1-1 thead th:nth-child(2) button")  # mean: the first click sorts best first
    assert models_shown(page) == order
    page.click("#panel-1-1 thead th:nth-child(2) button")
    assert models_shown(page) == order[::-1]
    page.fill("#filter", "STORM fid")
    assert models_shown(page) == ["fid_storm"]
    assert page.inner_text("#filter-status") == f"1 of {len(order)} models"
    page.fill("#filter", "nothing like it")
    assert models_shown(page) == []
    assert page.is_visible("#panel-1-1 .nothing")
    page.press("#filter", "Escape")
    assert len(models_shown(page)) == len(order)
    page.click("#tab-1-2")
    assert page.is_visible("#panel-1-2")
    assert not page.is_visible("#panel-1-1")
    page.click("#tab-2")
    assert sorted(models_shown(page, "#panel-2-1") or models_shown(page, "#panel-2")) == [
        "decode · as",
        "single fit · as",
    ]


def test_a_model_page_opens_and_leads_back(page):
    page.click("#panel-1-1 a[href='#m-decode']")
    page.wait_for_selector("#m-decode", state="visible")
    assert not page.is_visible("#board")
    assert page.title().startswith("decode ")
    text = page.inner_text("#m-decode")
    for part in (
        "Scores by condition",
        "Where it fails",
        "Reliability",
        "How it was trained",
        "learning rate",
        "Reproduce",
    ):
        assert part in text
    assert page.locator("#m-decode .frames svg").first.locator("circle").count() == 24
    page.click("#m-decode [data-board]")
    page.wait_for_selector("#board", state="visible")
    assert not page.is_visible("#m-decode")
    page.goto(page.url.split("#")[0] + "#m-fid-storm")
    page.wait_for_selector("#m-fid-storm", state="visible")


def place(page, number):
    """Where the bright pixel of a picture is on the screen, in shares of its window."""
    return page.evaluate(
        """number => {
          const shot = document.querySelectorAll('.strip .shot')[number], image = shot.querySelector('img');
          const a = shot.getBoundingClientRect(), b = image.getBoundingClientRect();
          return [(b.left - a.left + b.width * 24.5 / 32) / a.width, (b.top - a.top + b.height * 8.5 / 32) / a.height];
        }""",
        number,
    )


def test_all_pictures_zoom_and_pan_together(page):
    page.locator("#zoom").scroll_into_view_if_needed()
    whole = [24.5 / 32, 8.5 / 32]
    assert place(page, 2) == pytest.approx(whole, abs=0.01)
    page.click("[data-zoom=in]")
    page.click("[data-zoom=in]")
    assert page.inner_text("#zoom-now") == "4\u00d7"
    assert place(page, 0) == pytest.approx([4 * (v - 0.5) + 0.5 for v in whole], abs=0.01)  # the middle stays
    box = page.locator(".strip .shot").nth(0).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 0.2 * box["width"], y + 0.3 * box["height"], steps=8)
    page.mouse.up()
    moved = [4 * (whole[0] - 0.5) + 0.5 - 0.2, 4 * (whole[1] - 0.5) + 0.5 + 0.3]
    for number in (0, 2, 4):  # dragged on one, moved on all
        assert place(page, number) == pytest.approx(moved, abs=0.02)
    assert not page.is_visible("#large")  # a drag is no click
    page.click("[data-zoom=reset]")
    assert place(page, 1) == pytest.approx(whole, abs=0.01)
    page.locator(".strip .shot").nth(2).click()
    assert page.inner_text("#large-title").startswith("decode")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#large-title").startswith("fid_storm")
    page.click("[data-scale='2']")
    assert "scale(2)" in page.get_attribute("#large-image", "style")
    page.keyboard.press("Escape")
    assert not page.is_visible("#large")


def test_charts_are_drawn_and_models_can_be_hidden(page):
    lines = "#sweeps .scatterlayer .trace"
    page.wait_for_selector(lines, state="attached")
    assert page.locator(lines).count() == 4
    page.click("[data-legend=sweeps] button[data-entry=dsir]")
    page.wait_for_function(f"document.querySelectorAll('{lines}').length === 3")
    page.select_option("#curves-kind select", label="over density")
    page.wait_for_function("document.querySelector('#curves .xtitle').textContent.includes('emitters per')")
    page.select_option("#curves-score select", label="recall (%)")
    page.wait_for_function("document.querySelector('#curves .ytitle').textContent === 'recall (%)'")


def test_nothing_in_a_record_runs(browser, rich_results, tmp_path):
    evil = "<img src=x onerror=\"document.title='evil'\"><script>document.title='evil'</script>"
    hostile = rich_results[0].to_dict()
    hostile["model"] = Model(name=evil, trained_on=evil).to_dict()
    hostile["detail"]["flags"] = evil
    hostile["detail"]["card"] = {"training": {evil: evil}}
    results = [*rich_results, type(rich_results[0]).from_dict(hostile)]
    context = browser.new_context(offline=True)
    one = context.new_page()
    one.set_default_timeout(PATIENCE_MS)
    one.goto(build_page(results, tmp_path, title="plain").as_uri())
    one.wait_for_selector("#speed .main-svg", state="attached")
    one.click("[data-legend=curves] button >> nth=0")
    one.goto(one.url + "#" + one.eval_on_selector_all(".model-page", "p => p.find(e => e.id.includes('evil')).id"))
    one.wait_for_selector(".model-page.open")
    assert one.evaluate("document.querySelector('.model-page.open h1').textContent").strip().startswith("<img src=x")
    assert "evil'</script>" in one.title()  # the name as text, with the title after it
    assert one.title().endswith("plain")
    context.close()
