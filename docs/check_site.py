"""Open every page of build/site in headless Chromium, as a reader would: `make site-check`, after
`make site`.

A page must ask no other host, log no error and be no wider than a phone; formulas are drawn, the
slider moves, figure code and solutions open. Screenshots for people to look at go to
build/screenshots/.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
SITE, SHOTS = ROOT / "build" / "site", ROOT / "build" / "screenshots"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
PICTURED = ("index", "laws", "api", "teaching", "related", "notebooks/00_snip_in_ten_minutes")
problems: list[str] = []


def check(good: bool, message: str) -> None:
    if not good:
        problems.append(message)


def loads(page: Page, file: Path, size: str) -> None:
    """One page: nothing from outside, no error, formulas drawn, no scrolling sideways."""
    name = f"{file.relative_to(SITE)} ({size})"
    outside, errors = [], []
    page.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else outside.append(r.url)
    )
    page.on(
        "console",
        lambda message: errors.append(message.text) if message.type in ("error", "warning") else 0,
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"missing: {request.url}"))
    page.goto(file.as_uri())
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        check(page.locator("mjx-container").count() > 0, f"{name}: formulas are not drawn")
        check(
            page.locator("[data-mml-node=merror]").count() == 0, f"{name}: a formula does not parse"
        )
    # What is wide (tables, code) scrolls by itself.
    over = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    check(over <= 0, f"{name}: {over} pixels too wide")
    check(not outside, f"{name}: asks {outside}")
    check(not errors, f"{name}: {errors}")


def slider_moves(page: Page) -> None:
    page.goto((SITE / "index.html").as_uri())
    pictures = (
        "[...document.querySelectorAll('.slider canvas')].map(canvas => canvas.toDataURL()).join()"
    )
    state = f"{pictures} + document.querySelector('.slider').innerText"
    seen = [page.evaluate(state)]
    page.locator(".slider input").focus()
    for key in ("ArrowRight", "End", "Home"):
        page.keyboard.press(key)
        seen.append(page.evaluate(state))
    check(len(set(seen)) == 4, "the slider does not change the pictures and the table")
    check("266,610 (100 %)" in seen[-1], "the slider at 0 % does not keep everything")


def folds_open(page: Page, file: Path) -> int:
    """All figure code and solutions of a page.

    Shut at first, open after a click. How many there are.
    """
    page.goto(file.as_uri())
    folds = page.locator("details.hide, details.sd-dropdown")
    for number in range(folds.count()):
        fold = folds.nth(number)
        check(fold.get_attribute("open") is None, f"{file.stem}: fold {number} is open at first")
        fold.locator("summary").first.click()
        check(fold.get_attribute("open") is not None, f"{file.stem}: fold {number} does not open")
    return folds.count()


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("no chromium on the path: apt-get install chromium, or install Chrome")
    shutil.rmtree(SHOTS, ignore_errors=True)
    files = sorted(file for file in SITE.rglob("*.html") if "_static" not in file.parts)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium)
        for size, (width, height) in SIZES.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                for file in files:
                    name = str(file.relative_to(SITE).with_suffix(""))
                    if scheme == "light" or name in PICTURED:
                        page = context.new_page()
                        loads(page, file, size)
                        if name in PICTURED:
                            page.screenshot(path=SHOTS / f"{file.stem}-{size}-{scheme}.png")
                        page.close()
                context.close()
        page = browser.new_page()
        slider_moves(page)
        folds = sum(folds_open(page, file) for file in files)
        check(folds > 0, "no folded code and no folded solutions")
        browser.close()
    good = f"{len(files)} pages, {folds} folds: no foreign request, no error"
    print("\n".join(problems) or f"{good}; pictures in {SHOTS.relative_to(ROOT)}/")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
