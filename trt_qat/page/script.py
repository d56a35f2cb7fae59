"""The page's only script: sorts and filters tables, and opens everything for print."""

from __future__ import annotations

import base64
import hashlib

SCRIPT = """
(() => {
  const key = (row, i) => { const c = row.cells[i]; return c.dataset.v ?? c.textContent.trim() };
  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    heads.forEach((th, i) => th.querySelector('button')?.addEventListener('click', () => {
      const down = th.getAttribute('aria-sort') === 'ascending';
      heads.forEach(other => other.removeAttribute('aria-sort'));
      th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const rows = [...body.rows].sort((a, b) => {
        const x = key(a, i), y = key(b, i);
        if (x === '' || y === '') return x === y ? 0 : x === '' ? 1 : -1;
        const gap = Number(x) - Number(y);
        const order = Number.isNaN(gap) ? x.localeCompare(y, undefined, {numeric: true}) : gap;
        return down ? -order : order;
      });
      body.append(...rows);
    }));
  }
  for (const bar of document.querySelectorAll('[data-filters]')) {
    const rows = [...document.getElementById(bar.dataset.filters).tBodies[0].rows];
    const text = bar.querySelector('input'), kind = bar.querySelector('select');
    const told = bar.querySelector('output');
    const words = rows.map(row => [...row.cells].map(c => c.textContent).join(' ').toLowerCase());
    const apply = () => {
      const word = text.value.trim().toLowerCase();
      let count = 0;
      rows.forEach((row, i) => {
        const fits = words[i].includes(word)
          && (!kind.value || row.dataset.kind.split(' ').includes(kind.value));
        row.hidden = !fits;
        count += fits;
      });
      told.textContent = count + ' of ' + rows.length;
    };
    text.addEventListener('input', apply);
    kind.addEventListener('change', apply);
    bar.hidden = false;
    apply();
  }
  addEventListener('beforeprint', () =>
    document.querySelectorAll('details').forEach(part => { part.open = true }));
})();
"""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    + "'"
)
"""The browser loads nothing, and runs this script and no other."""
