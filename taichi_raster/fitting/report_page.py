"""The parts of a report's page: HTML with places for names, pictures and numbers."""

from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #c2541b; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; border-bottom: 1px solid var(--line); }
section > div { display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; }
.pair { position: relative; width: 100%; border-radius: 6px; overflow: hidden;
  background: repeating-conic-gradient(#bbb3 0 25%, #fff3 0 50%) 0 0 / 16px 16px; --at: 50%; }
.pair img { position: absolute; inset: 0; width: 100%; height: 100%; }
.pair .over { clip-path: inset(0 0 0 var(--at)); }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at);
  width: 2px; margin-left: -1px; background: var(--accent); pointer-events: none; }
.pair span { position: absolute; top: .4rem; padding: 0 .4rem; border-radius: 4px;
  background: #000a; color: #fff; font-size: .75rem; pointer-events: none; }
.pair span:first-of-type { left: .4rem; }
.pair span:last-of-type { right: .4rem; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
  opacity: 0; cursor: ew-resize; }
.pair:focus-within { outline: 2px solid var(--accent); outline-offset: 2px; }
figcaption { font-size: .9rem; margin-top: .3rem; }
figcaption small { opacity: .75; }
iframe { width: 100%; height: min(70vh, 36rem); border: 1px solid var(--line);
  border-radius: 6px; background: #fff; }
table { border-collapse: collapse; }
td { padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--soft); vertical-align: top; }
td:last-child { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
summary { cursor: pointer; margin-bottom: .5rem; }
footer { margin-top: 2.5rem; font-size: .8rem; opacity: .7; }
</style>
</head>
<body>
<h1>$title</h1>
$text
$body
<footer>Made by taichi-raster, $date. This page holds all that it shows, and needs no network.
</footer>
</body>
</html>
""")

SECTION = Template("""<section>
<h2>$name</h2>
$body
</section>""")

FIGURE = Template("""<figure>
<div class="pair" style="aspect-ratio: $width / $height">
<img src="$photo" alt="Photo: $name">
<img class="over" src="$render" alt="Render: $name">
<span>photo</span><span>render</span>
<input type="range" min="0" max="100" value="50" step="0.5" aria-label="Photo to render: $name"
  oninput="this.parentNode.style.setProperty('--at', this.value + '%')">
</div>
<figcaption>$name <small>$note</small></figcaption>
</figure>""")

VIEWER = Template("""<iframe title="The mesh in three dimensions: drag to turn it"
  loading="lazy" srcdoc="$page"></iframe>""")

ROW = Template("<tr><td>$name</td><td>$value</td></tr>")
