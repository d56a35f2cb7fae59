"""The page's style sheet: light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --quiet: #59636e; --line: #d9dee3; --page: #ffffff; --raised: #f5f7f9;
  --first: #1f6fb2; --second: #b8560f; --third: #59636e; --good: #1a7f37; --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --quiet: #9aa4ae; --line: #333a42; --page: #14181c; --raised: #1c2127;
  --first: #6cb2ee; --second: #f0a162; --third: #9aa4ae; --good: #4cc46c; --bad: #ff7b6b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 44rem; }
.lead { font-size: 1.1rem; }
.note, caption, figcaption, footer { color: var(--quiet); font-size: .9rem; }
.verdict { display: inline-block; padding: .1rem .6rem; border-radius: 1rem; font-weight: 600;
  font-size: .9rem; border: 1.5px solid currentColor; }
.good { color: var(--good); } .bad { color: var(--bad); }
ul.checks { list-style: none; padding: 0; margin: .5rem 0; }
ul.checks li { padding: .25rem 0 .25rem 1.6rem; text-indent: -1.6rem; }
ul.checks b { display: inline-block; width: 1.6rem; text-indent: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
.scroll:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; padding-bottom: .4rem; }
caption span { position: sticky; left: 0; display: inline-block;
  max-width: min(57.5rem, 100vw - 2.5rem); }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
.wide { min-width: 14rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, .digest { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--raised); padding: .9rem 1rem; border-radius: .4rem; overflow-x: auto; }
details { margin: .75rem 0; } summary { cursor: pointer; }
.intervals .row { display: grid; grid-template-columns: 12rem 1fr 5rem; gap: .75rem;
  align-items: center; }
.intervals svg { width: 100%; height: 34px; overflow: visible; display: block; }
.intervals svg.ticks { height: 20px; }
.value { text-align: right; font-variant-numeric: tabular-nums; font-weight: 600; }
svg text { fill: var(--quiet); font-size: 12px; }
.grid { stroke: var(--line); stroke-width: 1; }
.range { stroke: var(--first); stroke-width: 3; stroke-linecap: round; opacity: .45; }
.dot { fill: var(--first); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1.5rem 2.5rem; }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: .4rem; }
.frame { display: grid; grid-template: 170px / 3.4rem minmax(0, 1fr); }
.frame svg { width: 100%; height: 100%; display: block; overflow: visible; }
.plot { position: relative; }
.plot svg { position: absolute; left: 0; top: 7px; height: 156px; }
polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
polyline.first { stroke: var(--first); } polyline.second { stroke: var(--second); }
polyline.third { stroke: var(--third); }
.x-axis { display: flex; justify-content: space-between; padding-left: 3.4rem;
  color: var(--quiet); font-size: .75rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; padding: 0;
  margin: .4rem 0 0; font-size: .85rem; }
.key { display: inline-block; width: 1.1rem; height: 3px; margin-right: .4rem;
  vertical-align: middle; border-radius: 2px; }
.key.first { background: var(--first); } .key.second { background: var(--second); }
.key.third { background: var(--third); }
.bar { width: 7rem; height: 8px; display: block; margin-top: .5em; }
.track { fill: var(--line); } .fill { fill: var(--first); }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .4rem .8rem; background: var(--raised);
  color: var(--ink); border: 2px solid var(--first); border-radius: .4rem; z-index: 1; }
main:focus { outline: none; }
summary:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
.errors circle.own, .dot-key.own { fill: var(--first); background: var(--first); }
circle.grown { fill: var(--second); }
.dot-key.grown { background: var(--second); }
circle.first-divergence { fill: var(--bad) !important; stroke: var(--page); stroke-width: 2; }
.dot-key { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%;
  margin-right: .4rem; }
.limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
.key.limit { background: var(--bad); }
.section-graph { display: block; }
.node rect { fill: var(--raised); stroke: var(--line); stroke-width: 1.5; }
.node .op { fill: var(--ink); font-weight: 600; font-size: 13px; }
.node.centre rect { stroke: var(--bad); stroke-width: 2.5; }
.edge { stroke: var(--quiet); stroke-width: 1.5; } marker path { fill: var(--quiet); }
.intervals .label { overflow-wrap: anywhere; }
footer { padding-top: 2rem; padding-bottom: 3rem; }
@media (max-width: 36rem) {
  .intervals .row { grid-template-columns: 1fr auto; gap: 0 .75rem; margin-bottom: .5rem; }
  .intervals svg { grid-row: 2; grid-column: 1 / -1; height: 22px; }
  .bar { width: 4rem; }
  .two th, .two td { white-space: normal; padding-right: .5rem; }
}
"""
