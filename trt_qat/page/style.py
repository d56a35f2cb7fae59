"""The page's style sheet: light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark;
  --ink: #1b1f24; --quiet: #57606a; --line: #d9dee3; --page: #ffffff; --raised: #f4f6f8;
  --first: #1f6fb2; --second: #b8560f; --third: #59636e; --good: #1a7f37; --warn: #8a5a00;
  --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e9ec; --quiet: #9aa4ae; --line: #333a42; --page: #14181c; --raised: #1c2127;
  --first: #6cb2ee; --second: #f0a162; --third: #9aa4ae; --good: #4cc46c; --warn: #e3b341;
  --bad: #ff7b6b; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 3.5rem; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 84rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .5rem 0; max-width: 48rem; }
code, .digest { overflow-wrap: break-word; }
.lead { font-size: 1.05rem; }
.note, caption, figcaption, footer, .quiet { color: var(--quiet); font-size: .9rem; }
.verdict { display: inline-block; padding: .2rem .85rem; border-radius: 1.2rem; font-weight: 650;
  border: 1.5px solid currentColor; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.reasons, .notes { margin: .5rem 0; padding-left: 1.2rem; max-width: 60rem; }
.notes { color: var(--quiet); font-size: .9rem; }
.next { max-width: none; }
.next code { background: var(--raised); padding: .15rem .4rem; border-radius: .3rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.facts div { background: var(--raised); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; min-width: 0; }
.facts dt { color: var(--quiet); font-size: .85rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.facts b { display: block; font-size: 1.2rem; line-height: 1.35; font-weight: 650; }
.facts span { color: var(--quiet); font-size: .85rem; }
nav { position: sticky; top: 0; z-index: 2; background: var(--page); margin-top: 1.5rem;
  border-block: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: .1rem 1.1rem;
  padding: .45rem max(1.5rem, calc((100% - 84rem) / 2 + 1.5rem)); white-space: nowrap;
   }
a { color: var(--first); text-underline-offset: 2px; }
nav a { text-decoration: none; font-size: .9rem; padding: .1rem 0; }
nav a:hover { text-decoration: underline; }
.anchor { text-decoration: none; opacity: .45; font-weight: 400; font-size: .9em; }
.anchor:hover, .anchor:focus-visible { opacity: 1; }
:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
ul.checks { list-style: none; padding: 0; margin: .5rem 0; }
ul.checks li { padding: .25rem 0 .25rem 1.6rem; text-indent: -1.6rem; }
ul.checks b { display: inline-block; width: 1.6rem; text-indent: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; min-width: min(100%, 44rem); font-size: .88rem; }
#layer-table { width: 100%; }
#layer-table td:not(.wide, [data-label="kernel"]) { white-space: nowrap; }
td[data-label="kernel"] { max-width: 20rem; overflow-wrap: anywhere; }
caption { text-align: left; padding-bottom: .4rem; }
caption span { position: sticky; left: 0; display: inline-block;
  max-width: min(81rem, 100vw - 3rem); }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
tbody tr:hover { background: var(--raised); }
thead button { font: inherit; color: inherit; background: none; border: 0; padding: 0;
  cursor: pointer; text-decoration: underline dotted; text-underline-offset: 3px; }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
.wide { min-width: 16rem; }
td.wide ~ td { min-width: 12rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.filters { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; align-items: center;
  font-size: .9rem; }
.filters[hidden] { display: none; }
.filters input, .filters select { font: inherit; color: var(--ink); background: var(--page);
  border: 1px solid var(--quiet); border-radius: .3rem; padding: .25rem .5rem; max-width: 100%; }
.filters output { color: var(--quiet); }
code, .digest { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--raised); padding: .9rem 1rem; border-radius: .4rem; overflow-x: auto; }
details { margin: .75rem 0; } summary { cursor: pointer; }
.right { color: var(--good); font-weight: 650; } .wrong { color: var(--bad); font-weight: 650; }
.none { color: var(--quiet); }
.intervals { max-width: 60rem; }
.intervals .row { display: grid; grid-template-columns: 13rem 1fr 5rem; gap: .75rem;
  align-items: center; }
.intervals svg { width: 100%; height: 34px; overflow: visible; display: block; }
.intervals svg.ticks { height: 20px; }
.intervals .label { overflow-wrap: anywhere; }
.value { text-align: right; font-variant-numeric: tabular-nums; font-weight: 600; }
svg text { fill: var(--quiet); font-size: 12px; }
.grid { stroke: var(--line); stroke-width: 1; }
.range { stroke: var(--first); stroke-width: 3; stroke-linecap: round; opacity: .45; }
.dot { fill: var(--first); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1.5rem 2.5rem; }
figure { margin: 0; min-width: 0; }
figcaption { margin-bottom: .4rem; overflow-wrap: anywhere; }
.histograms { display: grid; gap: 1.25rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); }
.histograms svg { width: 100%; height: 84px; display: block;
  border-bottom: 1px solid var(--quiet); }
.histograms .within { fill: var(--first); } .histograms .beyond { fill: var(--bad); }
.histograms .clip { stroke: var(--bad); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.histograms p { margin: .25rem 0 0; }
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
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .4rem .8rem; background: var(--raised);
  color: var(--ink); border: 2px solid var(--first); border-radius: .4rem; z-index: 3; }
main:focus { outline: none; }
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
footer { padding-top: 2rem; padding-bottom: 3rem; }
@media (max-width: 40rem) {
  header, main, footer { padding-left: 1rem; padding-right: 1rem; }
  nav { padding-left: 1rem; padding-right: 1rem; flex-wrap: nowrap; overflow-x: auto; }
  .facts { grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .5rem; }
  .facts b { font-size: 1.05rem; }
  .intervals .row { grid-template-columns: 1fr auto; gap: 0 .75rem; margin-bottom: .5rem; }
  .intervals svg { grid-row: 2; grid-column: 1 / -1; height: 22px; }
  .two th, .two td { white-space: normal; padding-right: .5rem; }
  .filters input { width: 11rem; }
  /* Every row is a card: no column is hidden, and nothing is scrolled sideways. */
  div:not(.two) > .scroll > table, section > .scroll > table, details > .scroll > table
    { display: block; }
  :is(section, details) > .scroll > table :is(thead) { position: absolute; left: -100rem; }
  :is(section, details) > .scroll > table :is(caption, tbody) { display: block; }
  :is(section, details) > .scroll > table tbody tr { display: grid; gap: 0 1rem;
    grid-template-columns: repeat(2, minmax(0, 1fr)); padding: .5rem 0;
    border-bottom: 1px solid var(--line); }
  :is(section, details) > .scroll > table tbody tr[hidden] { display: none; }
  :is(section, details) > .scroll > table :is(th, td) { border: 0; padding: .1rem 0;
    text-align: left; white-space: normal !important; max-width: none; min-width: 0;
    overflow-wrap: anywhere; }
  :is(section, details) > .scroll > table :is(th[scope=row], .wide, td:only-of-type)
    { grid-column: 1 / -1; }
  :is(section, details) > .scroll > table th[scope=row] { font-weight: 650; }
  :is(section, details) > .scroll > table td[data-label]::before { content: attr(data-label) " ";
    color: var(--quiet); font-size: .85em; }
  :is(section, details) > .scroll > table td[data-empty] { display: none; }
}
@media print {
  @page { margin: 14mm; }
  :root { --ink: #000; --quiet: #444; --line: #bbb; --page: #fff; --raised: #f4f4f4;
    --first: #1f6fb2; --second: #b8560f; --good: #1a7f37; --warn: #8a5a00; --bad: #c0392b; }
  body { font-size: 10pt; } header, main, footer { max-width: none; padding: 0; }
  nav, .filters, .skip, .anchor { display: none; }
  details::details-content { content-visibility: visible; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; }
  th, td { padding-right: .4rem; white-space: normal; overflow-wrap: anywhere; }
  .wide { min-width: 0; }
  tr, figure, .facts div { break-inside: avoid; } h2 { break-after: avoid; }
  thead { display: table-header-group; }
}
"""
