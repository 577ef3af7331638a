"""
Tests of names and payloads that try to be more than text.
"""

from __future__ import annotations

from test.web.dashboard.chromium import BrowserTests, expect, put

NAMES = [
    "<img\\src=x\\onerror=hacked()>", "<script>hacked()<script>", "a&lt;b&amp;c", "x\"onmouseover=\"hacked()",
    "javascript:hacked()", "%2e%2e", "%00", "#q?a=b&c=d", "__proto__", "constructor", "..;", "{{7*7}}", "${hacked()}",
    "toString",
]  # fmt: skip
PAYLOADS = [
    b"<script>hacked()</script>", b"<img src=x onerror=hacked()>", b"</pre><svg/onload=hacked()>",
    b'{"__proto__": {"x": "<b>"}}', "\u202etxt.exe \u0000 \ufeff".encode(), b"\xff\xfe<script>hacked()</script>",
    b"]]>" * 100, b"[" * 5000,
]  # fmt: skip
WATCH = "window.wasHacked = false; window.hacked = () => { window.wasHacked = true; };"


class HostileTests(BrowserTests):
    def test_names(self) -> None:
        server = self.serve()
        for name in NAMES:
            put(server, name, b"x")
        page = self.open(server, script=WATCH)
        rows = page.locator("table.virtual tbody tr:not(.spacer)")
        expect(rows).to_have_count(len(NAMES))
        self.assertEqual(sorted(rows.locator("th").all_inner_texts()), sorted(NAMES))
        for name in NAMES:
            page.get_by_role("link", name=name, exact=True).click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            expect(page.locator(".tile", has_text="Items").locator("dd")).to_have_text("1")
            expect(page.locator(".items-table tbody tr")).to_have_count(1)
            page.get_by_role("link", name="Queues", exact=True).first.click()
            expect(rows).to_have_count(len(NAMES))
        page.get_by_role("link", name=NAMES[0], exact=True).click()
        page.get_by_role("button", name="Delete queue…").click()
        expect(page.get_by_role("dialog")).to_contain_text(f"Delete the queue {NAMES[0]}?")
        page.get_by_role("button", name="Delete the queue", exact=True).click()
        expect(rows).to_have_count(len(NAMES) - 1)
        self.assertFalse(page.evaluate("window.wasHacked"))

    def test_names_that_browsers_take_for_directories(self) -> None:
        """They cannot be asked for, and nothing else is done in their place."""
        server = self.serve()
        put(server, "..", b"x")
        put(server, ".", b"x")
        page = self.open(server)
        page.get_by_role("link", name="..", exact=True).click()
        expect(page.get_by_text("A browser cannot address a queue named ...").first).to_be_visible()
        expect(page.get_by_role("button", name="Delete queue…")).to_have_count(0)

    def test_payloads(self) -> None:
        server = self.serve()
        put(server, "jobs", *PAYLOADS)
        page = self.open(server, "/#/queue/jobs", script=WATCH)
        items = page.locator(".items-table tbody tr")
        expect(items).to_have_count(len(PAYLOADS))
        for at, payload in enumerate(PAYLOADS):
            items.nth(at).get_by_role("button").click()
            expect(page.get_by_role("dialog").locator(".payload")).not_to_be_empty()
            for view in ("Text", "JSON", "Hex"):
                tab = page.get_by_role("tab", name=view)
                if tab.is_enabled():
                    tab.click()
            expect(page.get_by_role("dialog").locator(".payload")).to_contain_text(payload[:8].hex(" "))
            page.keyboard.press("Escape")
        self.assertFalse(page.evaluate("window.wasHacked || 'x' in {}"))
        self.assertEqual(page.locator("main img, main script, main iframe").count(), 0)

    def test_policy(self) -> None:
        """What would get into the page all the same is not run, and nobody can frame the page."""
        server = self.serve()
        page = self.open(server, script=WATCH)
        expect(page.get_by_role("heading", name="No queues yet")).to_be_visible()
        self.allowed.append("Content Security Policy")
        page.evaluate(
            """() => {
                const place = document.createElement("div");
                place.innerHTML = "<img src=x onerror=hacked()><p style='position:fixed' onclick=hacked()>text</p>";
                document.body.append(place);
                const script = document.createElement("script");
                script.textContent = "hacked()";
                document.body.append(script);
                place.querySelector("p").click();
            }"""
        )
        self.assertEqual(page.evaluate("getComputedStyle(document.querySelector('body > div > p')).position"), "static")
        self.assertFalse(page.evaluate("window.wasHacked"))
        response = page.request.get(page.url.split("#")[0])
        policy = response.headers["content-security-policy"]
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)
