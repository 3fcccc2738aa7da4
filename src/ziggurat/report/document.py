"""The frame of all HTML pages: no scripts, no network, light or dark by the reader's system setting."""

from __future__ import annotations

from html import escape

GENERATOR = '<meta name="generator" content="ziggurat">'  # marks pages written by Ziggurat
STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1b1b1b; --faint: #767676; --line: #d8d8d8; --paint: 70% 84%; }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181c; --ink: #e8e8e8; --faint: #969696; --line: #3a3d44; --paint: 50% 28%; }
}
body { background: var(--back); color: var(--ink); font: 16px/1.6 system-ui, sans-serif; max-width: 60em;
  margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1.5em 0; }
th, td { border-bottom: 1px solid var(--line); padding: .25em 1em .25em 0; text-align: left; vertical-align: top; }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A complete HTML page. `title` is escaped here; `body` is HTML, `style` is CSS after the common style."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
