"""The workbench in Chromium: both tasks, both languages, light and dark, wide and narrow, and every kind of trouble.

Each page of these tests is watched: nothing may be asked of any other server, nothing may be written to the console.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from standins import KEY

pytestmark = pytest.mark.browser

WIDE, NARROW = {"width": 1360, "height": 880}, {"width": 390, "height": 844}

# Every visible text against the background it really has: WCAG AA asks 4.5, or 3 for large text.
CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const background = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest(".sr, .skip, option, noscript")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(style.color)), light(background(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
# Everything that can be operated has a name for those who do not see it.
NAMELESS = """() => [...document.querySelectorAll("button, select, textarea, input, a")]
  .filter((node) => node.checkVisibility())
  .filter((node) => !(node.getAttribute("aria-label") || node.innerText?.trim() || node.labels?.length))
  .map((node) => node.outerHTML)"""


class Visit:
    """A page and what it did: the addresses it asked for, and what it complained about."""

    def __init__(self, context: Any, origin: str) -> None:
        self.origin, self.page = origin, context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, path: str = "/") -> Any:
        self.page.goto(self.origin + path)
        return self.page

    def check(self) -> None:
        """Nothing was asked of others, nothing complained (a refused request is the browser's own remark)."""
        elsewhere = [url for url in self.requests if not url.startswith((self.origin + "/", "data:"))]
        assert elsewhere == []
        assert [text for text in self.complaints if "Failed to load resource" not in text] == []


@pytest.fixture
def visit(chromium: Any, server: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A visit to the open server, in a wide light English browser unless the test says otherwise."""
    options = {"viewport": WIDE, "locale": "en-US", "color_scheme": "light", **getattr(request, "param", {})}
    context = chromium.new_context(**options)
    visit = Visit(context, server.url)
    yield visit
    visit.check()
    context.close()


def translate_and_classify(page: Any) -> None:
    """Both tasks, from an example each, to a result."""
    page.locator("#panel-translate .chip").first.click()
    page.locator("#panel-translate .told .direction").wait_for()
    assert "The weather is fine today." in page.locator(".output").inner_text()
    page.locator("#tab-classify").click()
    page.locator("#panel-classify .chip").first.click()
    page.locator(".labels tbody tr").nth(2).wait_for()
    assert page.locator(".labels tbody .tag").first.inner_text() == "balance"


LOOKS = [
    {"viewport": viewport, "locale": locale, "color_scheme": scheme}
    for viewport in (WIDE, NARROW)
    for locale in ("en-US", "zh-CN")
    for scheme in ("light", "dark")
]
NAMES = [
    "-".join((("wide" if look["viewport"] is WIDE else "narrow"), look["locale"], look["color_scheme"]))
    for look in LOOKS
]


@pytest.mark.parametrize("visit", LOOKS, ids=NAMES, indirect=True)
def test_every_look_works_is_legible_and_fits(visit: Visit, request: pytest.FixtureRequest) -> None:
    page = visit.open()
    look = request.node.callspec.params["visit"]
    page.locator("#source").wait_for()
    chinese, dark = look["locale"] == "zh-CN", look["color_scheme"] == "dark"
    assert page.locator("html").get_attribute("lang") == ("zh-CN" if chinese else "en")
    assert page.locator("#tab-translate").inner_text() == ("翻译" if chinese else "Translate")
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", shade))) < 80) is dark
    assert page.locator(".ai").first.is_visible()
    assert page.evaluate(CONTRAST) == []
    translate_and_classify(page)
    for tab in ("#tab-translate", "#tab-classify"):
        page.locator(tab).click()
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            "the page scrolls sideways"
        )


def test_the_language_switch_keeps_work_and_is_remembered(visit: Visit) -> None:
    page = visit.open()
    page.locator("#source").fill("你好")
    page.keyboard.press("Control+Enter")
    page.locator(".told .direction").wait_for()
    assert page.locator(".told .direction").inner_text() == "Chinese → English"
    page.get_by_role("button", name="显示中文").click()
    assert page.locator(".told .direction").inner_text() == "中文 → 英语"
    assert page.locator("#source").input_value() == "你好"
    assert page.locator(".output p").first.inner_text() == "hello"
    page.reload()
    page.locator("#source").wait_for()
    assert page.locator("#tab-translate").inner_text() == "翻译"


def test_the_theme_switch_is_remembered(visit: Visit) -> None:
    page = visit.open()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Change to dark").click()
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.reload()
    page.get_by_role("button", name="Change to light").wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_everything_can_be_done_from_the_keyboard(visit: Visit) -> None:
    page = visit.open()
    page.locator("#source").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.type("hello world")
    page.keyboard.press("Control+Enter")
    page.locator(".told .direction").wait_for()
    assert page.locator(".output p").first.inner_text() == "你好 世界"
    page.locator("#tab-translate").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tab-classify").get_attribute("aria-selected") == "true"
    assert page.locator("#panel-classify").is_visible()
    assert not page.locator("#panel-translate").is_visible()
    assert page.url.endswith("#classify")


def test_lines_swapping_and_alternatives(visit: Visit) -> None:
    page = visit.open()
    page.locator("#source").fill("你好\n\n世界")
    page.locator("#panel-translate .run").click()
    page.locator(".told .direction").wait_for()
    assert page.locator(".output > p").all_inner_texts() == ["hello", "\u00a0", "world"]
    page.get_by_role("button", name="Swap the languages").click()
    assert page.locator("#source").input_value() == "hello\n\nworld"
    assert (page.locator("#from").input_value(), page.locator("#to").input_value()) == ("en", "zh")
    page.locator("#source").fill("hello")
    page.locator("#versions").select_option("3")
    page.locator("#panel-translate .run").click()
    page.locator(".others li").first.wait_for()
    assert page.locator(".others li").all_inner_texts() == ["你好 (2)", "你好 (3)"]


def test_copying(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.open()
    page.locator("#source").fill("你好\n世界")
    page.keyboard.press("Control+Enter")
    page.locator(".told .direction").wait_for()
    page.locator("#panel-translate .copy").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "hello\nworld"
    page.locator("#tab-classify").click()
    page.locator("#texts").fill("=2+3 my balance\nwill it rain")
    page.locator("#panel-classify .run").click()
    page.locator("#panel-classify .copy").click()
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert copied == ["'=2+3 my balance\tbalance\t0.91", "will it rain\tweather\t0.91"]


def test_a_hostile_model_card_is_only_text(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Read the model card").click()
    card = page.locator("dialog .markdown")
    card.wait_for()
    assert card.locator("h3").inner_text() == "zh-en"
    assert card.locator("td").all_inner_texts() == ["tatoeba", "31.2"]
    assert "<script>window.hacked=1</script>" in card.inner_text()
    assert card.locator("img, script, iframe, [onerror]").count() == 0
    assert [link.get_attribute("href") for link in card.locator("a").all()] == ["https://example.org/paper"]
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("Escape")
    assert not page.locator("dialog").first.is_visible()


def test_hostile_text_and_translations_are_only_text(visit: Visit) -> None:
    page = visit.open()
    page.locator("#source").fill('<img src=x onerror="window.hacked=1">你好 https://evil.example/x.png')
    page.keyboard.press("Control+Enter")
    page.locator(".told .direction").wait_for()
    assert '<img src=x onerror="window.hacked=1">hello' in page.locator(".output").inner_text()
    assert page.locator(".output img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_the_browser_itself_refuses_markup_and_inline_script(visit: Visit) -> None:
    page = visit.open()
    page.locator("#source").wait_for()
    attempt = '() => { try { document.body.innerHTML = "<b>x</b>" } catch (error) { return error.name } }'
    assert page.evaluate(attempt) == "TypeError"
    assert any("TrustedHTML" in text for text in visit.complaints)
    visit.complaints.clear()


def test_the_measured_figures_stand_beside_their_baselines(visit: Visit) -> None:
    page = visit.open()
    panel = page.locator("#panel-translate .panel")
    panel.locator(".figure").first.wait_for()
    text = panel.inner_text()
    for part in (
        "Chinese → English",
        "tatoeba, 1,014 examples",
        "29.8 – 32.6",
        "31.2",
        "word dictionary: BLEU 3.1",
    ):
        assert part in text


def test_nothing_to_do_says_so(visit: Visit) -> None:
    page = visit.open()
    page.locator("#panel-translate .run").click()
    assert "There is no text yet" in page.get_by_role("alert").inner_text()
    page.locator("#source").fill("\n" * 300 + "a")
    page.locator("#panel-translate .run").click()
    assert "301 lines; at most 256" in page.get_by_role("alert").inner_text()
    assert not [url for url in visit.requests if url.endswith("/v1/translate")]


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (429, {"Retry-After": "7"}, "The server is busy Too many requests are waiting. Try again in 7 s."),
        (503, {"Retry-After": "2"}, "Try again in 2 s."),
        (500, {}, "Something went wrong inside the server"),
        (400, {}, "This could not be done what the server said"),
    ],
)
def test_trouble_is_told_and_can_be_tried_again(
    visit: Visit, status: int, headers: dict[str, str], said: str
) -> None:
    page = visit.open()
    body = '{"error": {"message": "what the server said"}}'
    page.route(
        "**/v1/translate", lambda route: route.fulfill(status=status, headers=headers, body=body), times=1
    )
    page.locator("#source").fill("你好")
    page.keyboard.press("Control+Enter")
    page.locator(".notice").wait_for()
    assert said in " ".join(page.locator(".notice").inner_text().split())
    assert page.evaluate(CONTRAST) == []
    if status != 400:
        page.get_by_role("button", name="Try again").click()
        page.locator(".told .direction").wait_for()
        assert page.locator(".notice").count() == 0


def test_a_server_that_went_away(visit: Visit) -> None:
    page = visit.open()
    page.locator("#source").fill("你好")
    page.route("**/v1/translate", lambda route: route.abort(), times=1)
    page.keyboard.press("Control+Enter")
    page.get_by_text("The server cannot be reached").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.locator(".told .direction").wait_for()


def test_a_server_that_is_not_there_at_the_start(visit: Visit) -> None:
    visit.page.route("**/v1/models", lambda route: route.abort(), times=1)
    page = visit.open()
    page.get_by_text("The server cannot be reached").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.locator("#source").wait_for()


def test_a_server_without_models_says_what_to_do(visit: Visit) -> None:
    visit.page.route("**/v1/models", lambda route: route.fulfill(body='{"object": "list", "data": []}'))
    page = visit.open()
    page.get_by_text("No translation model is loaded").wait_for()
    assert "inkstone serve --models" in page.locator("#panel-translate").inner_text()
    page.locator("#tab-classify").click()
    assert page.get_by_text("No classification model is loaded").is_visible()


def test_slow_work_can_be_stopped(visit: Visit, server: Any) -> None:
    page = visit.open()
    server.translator.gate.clear()
    try:
        page.locator("#source").fill("你好")
        page.keyboard.press("Control+Enter")
        page.get_by_role("button", name="Stop").click()
        page.locator("#panel-translate .run").get_by_text("Translate").wait_for()
    finally:
        server.translator.gate.set()
    assert page.locator(".notice").count() == 0
    page.keyboard.press("Control+Enter")


def test_a_server_with_keys_asks_for_one_and_keeps_it_in_the_tab(chromium: Any, locked_server: Any) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en-US", color_scheme="light")
    visit = Visit(context, locked_server.url)
    page = visit.open()
    page.get_by_label("API key").fill("not the right key")
    page.keyboard.press("Enter")
    page.get_by_text("That key was not accepted").wait_for()
    assert page.evaluate(CONTRAST) == []
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    page.locator("#source").wait_for()
    translate_and_classify(page)
    page.reload()
    page.locator("#texts").wait_for()
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    assert KEY not in page.content()
    visit.check()
    other = context.new_page()
    other.goto(locked_server.url)
    other.get_by_label("API key").wait_for()
    context.close()


def test_a_server_elsewhere_is_named_and_copying_fails_politely(chromium: Any, locked_server: Any) -> None:
    context = chromium.new_context(viewport=WIDE, locale="en-US", color_scheme="light")
    visit = Visit(
        context, locked_server.url.replace("127.0.0.1", "inkstone.test")
    )  # plain HTTP: no clipboard
    page = visit.open()
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    page.locator("#source").wait_for()
    assert (
        page.locator(".lead p").first.inner_text()
        == "Runs on inkstone.test. Your text goes there and nowhere else."
    )
    page.locator("#source").fill("你好")
    page.keyboard.press("Control+Enter")
    page.locator(".told .direction").wait_for()
    page.locator("#panel-translate .copy").click()
    page.get_by_text("The browser did not allow copying").wait_for()
    visit.check()
    context.close()
