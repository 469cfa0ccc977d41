'use strict';

const rowsShownMax = 1000;
const element = (id) => document.getElementById(id);

function show(message, failed) {
  element('message').textContent = message;
  element('message').className = failed ? 'failed' : '';
}

function row(cells, tag) {
  const line = document.createElement('tr');
  for (const cell of cells) {
    const node = document.createElement(tag);
    node.textContent = cell === null ? 'NULL' : typeof cell === 'object' ? JSON.stringify(cell) : String(cell);
    line.append(node);
  }
  return line;
}

async function run() {
  element('result').replaceChildren();
  show('running…', false);
  try {
    const answer = await fetch('/?default_format=JSONCompact', {
      method: 'POST',
      headers: { 'X-ClickHouse-User': element('user').value, 'X-ClickHouse-Key': element('password').value },
      body: element('statement').value,
    });
    const text = await answer.text();
    if (!answer.ok) return show(text, true);
    let result;
    try { result = JSON.parse(text); } catch { return show(text, false); }
    element('result').append(row(result.meta.map((column) => column.name), 'th'));
    for (const cells of result.data.slice(0, rowsShownMax)) element('result').append(row(cells, 'td'));
    show(`${result.rows} rows` + (result.rows > rowsShownMax ? `, the first ${rowsShownMax} shown` : ''), false);
  } catch (error) {
    show(String(error), true);
  }
}

const user = new URLSearchParams(location.search).get('user');
if (user) element('user').value = user;
element('form').addEventListener('submit', (event) => { event.preventDefault(); run(); });
element('statement').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) run();
});
