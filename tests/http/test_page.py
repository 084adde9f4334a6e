"""The files of the page at `/`: their policy, and no reference to another origin."""

import re

from tests.http.site import Web

FILES = ("/", "/page/page.css", "/page/page.js", "/page/card.js")


async def test_the_content_security_policy_is_strict(web: Web) -> None:
    """Scripts, styles, pictures and connections come from the gateway alone; nothing is framed, sent or inline."""
    for path in FILES:
        answer = await web.client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        again = await web.client.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_every_referenced_file_exists(web: Web) -> None:
    """Relative addresses, each of which exists; the docs are among its links."""
    text = (await web.client.get("/")).text
    named = re.findall(r'(?:src|href)="([^"]+)"', text)
    stems = {re.sub(r"\.[0-9a-f]{12}\.", ".", name) for name in named}
    assert {"page/page.css", "page/page.js", "page/card.js", "docs/favicon.svg", "docs"} == stems
    for name in named:
        assert (await web.client.get(f"/{name}")).status_code == 200
    (card,) = (name for name in named if "card" in name)
    script = (await web.client.get("/page/page.js")).text
    assert re.findall(r'^import .* from "(.+)";$', script, flags=re.MULTILINE) == [card.replace("page/", "./")]
    assert not re.search(r"^import|import\(", (await web.client.get("/page/card.js")).text, flags=re.MULTILINE)
    assert not re.search(r"<script(?! type=\"module\" src)|<style| style=| on[a-z]+=", text)
    assert (await web.client.get("/page/index.html")).status_code == 404


async def test_no_other_origin_is_referenced(web: Web) -> None:
    """No address except the SVG namespace, and no data that could become markup."""
    for path in FILES:
        text = (await web.client.get(path)).text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text
        assert "@import" not in text
        assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval|Function\\(", text)
