"""Print the slides of build/site to PDF, alone and with the speaker's notes: `make slides`."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

BUILD = Path(__file__).parents[1] / "build"
PAPER = {"width": "13.33in", "height": "7.5in", "print_background": True}
MARGINS = dict.fromkeys(("top", "bottom", "left", "right"), "0.4in")


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        sys.exit("no chromium on the path: apt-get install chromium, or install Chrome")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium)
        page = browser.new_page(color_scheme="light")
        page.goto((BUILD / "site" / "slides.html").as_uri())
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        for name, with_notes in (("slides", "false"), ("slides-notes", "true")):
            page.evaluate(f"document.documentElement.classList.toggle('with-notes', {with_notes})")
            page.pdf(path=BUILD / f"{name}.pdf", margin=MARGINS, **PAPER)
            print(f"build/{name}.pdf")
        browser.close()


if __name__ == "__main__":
    main()
