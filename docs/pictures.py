"""The pictures of the READMEs: the workbench as the bundled models make it, in both languages.

python docs/pictures.py        # needs Chromium and the dev extra; writes docs/workbench.png and docs/workbench.zh.png
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent


def main() -> None:
    """Start the server, look at it twice, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    inkstone = str(Path(sys.executable).parent / "inkstone")
    server = subprocess.Popen([inkstone, "serve", "--port", url.rsplit(":", 1)[1]], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for name, locale, scheme in (("workbench", "en-US", "light"), ("workbench.zh", "zh-CN", "dark")):
                context = browser.new_context(
                    viewport={"width": 1360, "height": 900},
                    color_scheme=scheme,
                    locale=locale,  # type: ignore[arg-type]
                )
                page = context.new_page()
                page.goto(url)
                page.locator(".chip").first.click()
                page.wait_for_selector(".told .direction")
                page.screenshot(path=HERE / f"{name}.png")
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    main()
