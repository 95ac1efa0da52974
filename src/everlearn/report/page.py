"""The frame of `report.html`: its style, light and dark, wide and narrow. Filled by `everlearn.report.html`."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark;
  --ink: #1b1f24; --soft: #59636e; --page: #ffffff; --line: #d8dee4; --stripe: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --page: #12161c; --line: #303841; --stripe: #1a2028; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; overflow-wrap: anywhere; }
p.lead, p.note, figcaption { color: var(--soft); margin: .4rem 0; overflow-wrap: anywhere; }
p.note, figcaption { font-size: .87rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; }
th { font-weight: 600; min-width: 4.5rem; max-width: 16rem; overflow-wrap: anywhere; }
thead th { vertical-align: bottom; color: var(--soft); }
th:first-child { text-align: left; min-width: 7.5rem; }
tbody tr:nth-child(even) { background: var(--stripe); }
table.texts th { text-align: left; }
table.texts td { text-align: left; white-space: normal; min-width: 8rem; max-width: 24rem; overflow-wrap: anywhere;
  unicode-bidi: plaintext; }
small { display: block; color: var(--soft); font-size: .8rem; }
figure { margin: 0; }
.picture { background: #fff; border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
details { border-top: 1px solid var(--line); padding: .6rem 0; margin-top: 1rem; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
pre { overflow-x: auto; background: var(--stripe); padding: .8rem; border-radius: .5rem; font-size: .82rem; }
@media (max-width: 40rem) { img { max-width: none; width: 40rem; } body { padding: 1rem .7rem 3rem; } }
@media print { .wide { overflow: visible; } }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</main>
</body>
</html>
"""
