"""The web page in a real browser, at the sizes of a laptop and a phone."""

import re
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from dexml.evaluation.calibration import Calibration
from dexml.serve.limits import Limits
from dexml.serve.served import Served
from tests.report.browser import needs_chromium
from tests.serve.chromium import Browser
from tests.serve.service import TEXTS, TOKEN, Client, make_bundle, serving

pytestmark = needs_chromium
SHOWN = "!document.getElementById('results').hidden && !document.getElementById('results').classList.contains('busy')"
NAMES = "[...document.querySelectorAll('{} .name')].map(name => name.textContent)"
ENTER = ("Enter", 13, "\r")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, Client]]:
    root = tmp_path_factory.mktemp("page")
    (root / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    sure = make_bundle(root / "sure", calibration=Calibration(0.2, 0.5))
    models = [
        Served.load(str(make_bundle(root / "plain")), "plain", most=100, texts=root / "texts.txt"),
        Served.load(str(sure), "sure", most=100),
    ]
    limits = Limits(chars=200)
    with serving(models, limits) as client, Browser(root / "profile") as browser:
        yield browser, client


def test_a_text_is_typed_and_its_labels_appear(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.open(client.url)
    browser.wait("document.getElementById('facts').textContent.includes('7 labels')")
    browser.type("the old red fox")
    browser.press(*ENTER)
    browser.wait(SHOWN)
    wanted = [label["text"] for label in client.predict("the old red fox", k=10)["labels"]]
    assert browser.value(NAMES.format(".answer")) == wanted
    assert "<img src=x onerror=boo()>" in wanted, "a label that looks like HTML is shown as text"
    assert browser.value("document.querySelectorAll('#answers img').length") == 0
    assert browser.value("document.getElementById('said').textContent") == f"7 labels, the best is {wanted[0]}"
    assert browser.value("document.querySelector('#neighbours bdi').textContent") == "the old red fox"
    assert browser.errors == []


def test_two_models_are_shown_side_by_side(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.open(client.url)
    browser.wait("document.querySelectorAll('#other option').length === 3")
    browser.value("other.value = 'sure', other.dispatchEvent(new Event('change'))")
    browser.click(".examples button")
    browser.wait(SHOWN + " && document.querySelectorAll('.answer').length === 2")
    assert browser.value("[...document.querySelectorAll('.answer h2')].map(h => h.textContent)") == ["Aplain", "Bsure"]
    assert re.fullmatch(r"\d+ ms · 7 of 7 in both", browser.value("document.querySelector('.took').textContent"))
    assert re.fullmatch(r"\d+ %0\.\d\d|\d+ %-0\.\d\d", browser.value("document.querySelector('.B .value').textContent"))
    left, right = browser.value("[...document.querySelectorAll('.answer')].map(a => a.getBoundingClientRect().x)")
    assert right > left + 300


def test_a_label_is_added_seen_and_removed(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.open(f"{client.url}/#{urlencode({'text': 'silver spoon'})}")
    browser.wait(SHOWN)
    browser.click("summary")
    for token, told in (
        ("wrong", "Label changes need the token."),
        (TOKEN, "Added “silver spoon”. The model has 8 labels."),
    ):
        for field, text in (("label", "silver spoon"), ("token", token)):
            browser.value(f"document.getElementById('{field}').value = ''")
            browser.click(f"#{field}")
            browser.type(text)
        browser.press(*ENTER)
        browser.wait(f"document.getElementById('changed').textContent === '{told}'")
    browser.wait("document.querySelectorAll('.fresh').length === 1")
    assert browser.value(NAMES.format(".fresh")) == ["silver spoon"]
    assert browser.value(NAMES.format(".answer") + "[0]") == "silver spoon"
    browser.click(".fresh .remove")
    browser.wait("document.getElementById('changed').textContent === 'Removed. The model has 7 labels.'")
    browser.wait("!document.body.innerText.includes('silver spoon\\n')")
    assert client.ask("GET", "/models").json[0]["labels"] == 7


def test_what_goes_wrong_is_said_in_words(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.open(client.url)
    browser.wait("document.querySelectorAll('#model option').length === 2")
    browser.type("x" * 201)
    browser.press(*ENTER)
    problem = "document.getElementById('problem')"
    browser.wait(f"{problem}.textContent === 'The text has 201 characters: at most 200.'")
    assert browser.value(f"{problem}.getAttribute('role')") == "alert"
    for answer, told in (
        ("Promise.reject(new TypeError())", "The service cannot be reached. Is it still running?"),
        ("new Response('{}', {status: 429, headers: {'retry-after': '3'}})", "The service is busy. Try again in 3 s."),
        ("new Response('<html>', {status: 502})", "The service answered 502."),
    ):
        browser.value(f"void (window.fetch = async () => {answer})")
        browser.click("#go")
        browser.wait(f"{problem}.textContent === {told!r}")
    assert browser.value("document.getElementById('go').disabled") is False


def test_a_slow_answer_does_not_replace_that_of_a_later_question(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.open(client.url)
    browser.wait("document.querySelectorAll('#model option').length === 2")
    browser.value("""void (window.real = window.fetch, window.fetch = async (path, given) => {
        const answer = await real(path, given);
        if (given.body?.includes('fox')) await new Promise(done => setTimeout(done, 600));
        return answer;
    })""")
    browser.value("text.value = 'a fox', void ask(), text.value = 'a boat', void ask()")
    browser.value("new Promise(done => setTimeout(done, 900))")
    wanted = [label["text"] for label in client.predict("a boat", k=10)["labels"]]
    assert browser.value(NAMES.format(".answer")) == wanted


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_screen_and_can_be_read(page: tuple[Browser, Client], width: int, dark: bool) -> None:
    browser, client = page
    question = urlencode({"text": "the boat and the bridge", "other": "sure"})
    browser.open(f"{client.url}/#{question}", width, 844, dark)
    browser.wait(SHOWN)
    browser.click("summary")
    assert browser.value("document.documentElement.scrollWidth") <= width
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(18, 24, 30)") is dark
    unread = browser.value(CONTRAST)
    assert unread == [], "text of less contrast than 4.5 : 1"
    small = (
        "[...document.querySelectorAll('#go, #ask select')].filter(e => e.getBoundingClientRect().height < 28).length"
    )
    assert browser.value(small) == 0


def test_every_control_has_a_name_and_is_reached_by_tab(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.open(client.url)
    browser.wait("document.querySelectorAll('.examples button').length === 4")
    seen = [browser.value("document.activeElement.id")]
    for _ in range(9):
        browser.press("Tab", 9)
        seen.append(browser.value("document.activeElement.id || document.activeElement.textContent"))
    assert seen == ["text", "model", "other", "k", "go", *TEXTS, "Add a label"]
    named = "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length).length"
    assert browser.value(named) == 0


def test_nothing_is_loaded_from_elsewhere_and_scripts_of_others_do_not_run(page: tuple[Browser, Client]) -> None:
    browser, client = page
    html = client.ask("GET", "/")
    assert "default-src 'none'" in html.headers["content-security-policy"]
    assert re.findall(rb'(?:src|href)="(?!data:,)(?!docs|metrics)[^"]*"', html.body) == []
    browser.open(client.url)
    browser.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))"
    )
    assert browser.value("window.bad") is None


def test_the_reference_shows_every_route(page: tuple[Browser, Client]) -> None:
    browser, client = page
    browser.errors.clear()
    browser.open(f"{client.url}/docs", 390)
    shown = browser.value("document.body.textContent")
    for path, methods in client.ask("GET", "/openapi.json").json["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in shown
    assert f"curl --json '{{\"text\": \"a knight fights a dragon by the sea\"}}' '{client.url}/predict'" in shown
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.errors == []


# WCAG 2: relative luminance; the paper of a text is that of its nearest painted ancestor, or of the gauge under it.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const paper = (element) => {
    for (; element; element = element.parentElement) {
      const colour = rgba(getComputedStyle(element.querySelector(":scope > .gauge") ?? element).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const contrast = (element) => {
    const lights = [light(rgba(getComputedStyle(element).color)), light(paper(element))];
    return (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
  };
  const speaks = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((element) => speaks(element) && element.checkVisibility() && !element.closest(".unseen, script, option"))
    .filter((element) => contrast(element) < 4.5)
    .map((element) => element.textContent.trim());
})()"""
