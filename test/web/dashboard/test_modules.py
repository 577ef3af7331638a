"""
Tests of single modules of the page, which the browser imports one by one.
"""

from __future__ import annotations

from typing import Any

from test.web.dashboard.chromium import BrowserTests


class ModulesTests(BrowserTests):
    def call(self, page: Any, module: str, name: str, *arguments: Any) -> Any:
        return page.evaluate(
            "([module, name, more]) => import(`/static/${module}.js`).then(all => all[name](...more))",
            [module, name, list(arguments)],
        )

    def test_modules(self) -> None:
        page = self.open(self.serve())
        self.check_values(page)
        self.check_payloads(page)
        self.check_samples(page)

    def check_values(self, page: Any) -> None:
        for module, name, *arguments, expected in [
            ("format", "count", 1234567, "1,234,567"),
            ("format", "plural", 1, "item", "1 item"), ("format", "plural", 1234, "item", "1,234 items"),
            ("format", "compact", 9999, "9,999"), ("format", "compact", 12345, "12.3k"),
            ("format", "compact", 4567890, "4.6M"), ("format", "compact", 250_000_000, "250M"),
            ("format", "rate", 0, "0"), ("format", "rate", 0.04, "<0.1"), ("format", "rate", 2.04, "2"),
            ("format", "rate", 1234.5, "1,235"),
            ("format", "bytes", 0, "0 B"), ("format", "bytes", 1023, "1,023 B"), ("format", "bytes", 1536, "1.5 KiB"),
            ("format", "bytes", 5 * 2**40, "5.0 TiB"), ("format", "bytes", 5000 * 2**40, "5000 TiB"),
            ("format", "duration", 0, "0"), ("format", "duration", 0.4, "<1 ms"), ("format", "duration", 250, "250 ms"),
            ("format", "duration", 5300, "5.3 s"), ("format", "duration", 59_900, "59 s"),
            ("format", "duration", 60_000, "1 min"), ("format", "duration", 3_725_000, "1 h 2 min"),
            ("format", "duration", 90_000_000, "1 d 1 h"), ("format", "duration", -5, "0"),
            ("format", "moment", 1_700_000_000_000, "2023-11-14 22:13:20"),
            ("format", "percent", 0.004, "<1 %"), ("format", "percent", 0.756, "76 %"),
            ("charts", "ticks", 0, [0, 1]), ("charts", "ticks", 100, [0, 50, 100]),
            ("charts", "ticks", 7, [0, 2, 4, 6, 8]), ("charts", "ticks", 0.3, [0, 0.1, 0.2, 0.30000000000000004]),
            ("charts", "ticks", 700_000, True, [0, 300_000, 600_000, 900_000]),
            ("charts", "ticks", 8000, True, [0, 2000, 4000, 6000, 8000]), ("charts", "ticks", 3, True, [0, 1, 2, 3]),
            ("api", "matches", "mail_*", "mail_out", True), ("api", "matches", "mail_*", "my_mail_out", False),
            ("api", "matches", "q?", "q", False), ("api", "matches", "q[a-c]", "qb", True),
            ("api", "matches", "q[!a-c]", "qb", False), ("api", "matches", "a.c", "abc", False),
            ("api", "matches", "a+b(", "a+b(", True), ("api", "matches", "[", "[", True),
            ("api", "queuePath", "a+b#c", "/flush", "/queues/a%2Bb%23c/flush"),
            ("api", "url", "/queues", {"filter": "a&b", "limit": 5, "sort": None, "after": ""},
             "/api/v1/queues?filter=a%26b&limit=5"),
        ]:  # fmt: skip
            self.assertEqual(self.call(page, module, name, *arguments), expected, (module, name, arguments))

    def check_payloads(self, page: Any) -> None:
        """JSON is laid out without any of its tokens being changed; what is not JSON is not."""

        def shown(name: str, payload: bytes) -> Any:
            script = "([name, bytes]) => import('/static/format.js').then(all => all[name](new Uint8Array(bytes)))"
            return page.evaluate(script, [name, list(payload)])

        for payload, expected in [
            (b'{"a":[1,2.50,{}],"b":{ },"c":"x\\",{y"}',
             '{\n  "a": [\n    1,\n    2.50,\n    {}\n  ],\n  "b": {},\n  "c": "x\\",{y"\n}'),
            (b'[ 1e400 , 12345678901234567890 ]', "[\n  1e400,\n  12345678901234567890\n]"),
            (b' "text" ', '"text"'), (b"nothing", None), (b"{", None), (b"\xff", None), (b"", None),
        ]:  # fmt: skip
            self.assertEqual(shown("asJson", payload), expected)
        self.assertIsNone(shown("asText", b"\xc3"))
        self.assertEqual(shown("asText", b"\xef\xbb\xbfx"), "\ufeffx")
        self.assertEqual(
            shown("asHex", bytes(range(60, 78))).splitlines(),
            [
                "00000000  3c 3d 3e 3f 40 41 42 43  44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK",
                "00000010  4c 4d" + " " * 45 + "LM",
            ],
        )

    def check_samples(self, page: Any) -> None:
        """The last minutes are kept second by second, the hour in steps, and what nobody saw is a gap."""
        fine, coarse, gaps = page.evaluate(
            """async () => {
                const { Samples } = await import("/static/samples.js");
                const samples = new Samples();
                samples.begin({start: 0, step_ms: 10000, items: Array(361).fill(5), in_rate: Array(361).fill(1)});
                for (let time = 3601000; time < 7300000; time += 1000) samples.add({time, items: 6});
                const counts = [samples.of(300000).length, samples.of(3600000).length];
                samples.add({time: 7400000, items: 7});
                return [...counts, samples.of(300000).filter(({items}) => items === undefined).length];
            }"""
        )
        self.assertTrue(300 <= fine <= 312, fine)
        self.assertTrue(360 <= coarse <= 363, coarse)
        self.assertEqual(gaps, 1)
