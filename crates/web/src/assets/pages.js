// The only script of the pages. Every page and action works without it. It copies texts, shows instants in the reader's
// time zone, moves the focus to faults, keeps a form from being sent twice, and refreshes what is on screen.
'use strict';

// Copying. The clipboard needs a secure context and, in a frame, a permission; a selection works everywhere.
function copy(text) {
  const viaSelection = () => {
    const area = document.createElement('textarea');
    area.value = text;
    area.setAttribute('readonly', '');
    area.className = 'visually-hidden';
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  };
  if (navigator.clipboard && window.isSecureContext) {
    return navigator.clipboard.writeText(text).then(() => true, viaSelection);
  }
  return Promise.resolve(viaSelection());
}

document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const label = button.textContent;
  copy(button.dataset.copy).then((done) => {
    button.textContent = done ? document.body.dataset.copied : document.body.dataset.select;
    setTimeout(() => { button.textContent = label; }, 2000);
  });
});

// A field that hides what is typed shows it while its button is pressed.
document.addEventListener('click', (event) => {
  const button = event.target.closest('[data-reveal]');
  if (!button) return;
  const field = document.getElementById(button.dataset.reveal);
  const hides = field.type === 'text';
  field.type = hides ? 'password' : 'text';
  button.setAttribute('aria-pressed', String(!hides));
});

// A double click on a button sends its form once.
document.addEventListener('submit', (event) => {
  const form = event.target;
  if (form.method !== 'post') return;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = 'yes';
});
// The page may come back from the browser's memory.
addEventListener('pageshow', () => {
  for (const form of document.querySelectorAll('form[data-sent]')) delete form.dataset.sent;
});

// The answer to a form may have an address of its own, so that a reload does not send the form again.
const address = document.querySelector('[data-address]')?.dataset.address;
if (address) history.replaceState(null, '', address);

// The link to a portal leaves its code in the fragment, which is sent nowhere. A page that got no cookie needs it once
// more; any other takes it out of its address.
const opener = document.querySelector('[data-open]');
const code = /^#code=(\w+)$/.exec(location.hash)?.[1];
if (code && opener) {
  opener.href = `${opener.dataset.open}?code=${code}`;
  opener.hidden = false;
} else if (code) {
  const here = new URL(location.href);
  here.hash = '';
  here.searchParams.delete('opened');
  history.replaceState(null, '', here);
}

// What only works with script, and the reader's own time, wherever a part of the page is new.
function enhance(root) {
  for (const element of root.querySelectorAll('.needs-script[hidden]')) element.hidden = false;
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });
  for (const time of root.querySelectorAll('time[datetime]')) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.valueOf())) {
      time.title = [time.title || time.textContent, local.format(at)].filter(Boolean).join('\n');
    }
  }
}

enhance(document);
document.querySelector('[data-focus]')?.focus();

// Refreshing. The page asks for its own URL; the server answers 304 while nothing has changed. Over HTTP/2 a stream says
// when it has changed, and the page asks less often by itself. Over HTTP/1.1 a stream would keep one of the few
// connections that a browser opens to a host for all of its tabs.
// - `data-live="swap"` with an id: the content is replaced when it differs.
// - `data-live="rows"` with an id, on a tbody: rows with the same id change in place; new ones wait behind a button.
const EVERY = 4000;
const EVERY_WITH_STREAM = 20000;
const IDLE = 5 * 60 * 1000;
let lastSign = Date.now();
let lastTag = null;
let stopped = false;
let lastAsked = -Infinity;
let stream = null;
let wasRefused = false;
let hasChanged = false;

for (const sign of ['pointermove', 'keydown', 'scroll', 'focus']) {
  addEventListener(sign, () => { lastSign = Date.now(); }, { passive: true, capture: true });
}

// Nobody looks at the page, or it shows nothing new any more.
const unwatched = () => document.hidden || stopped || Date.now() - lastSign > IDLE;

function busy() {
  if (unwatched()) return true;
  if (document.querySelector('dialog[open]')) return true;
  const selection = getSelection();
  if (selection && !selection.isCollapsed) return true;
  const active = document.activeElement;
  return Boolean(active && active.matches('input:not([type="submit"], [type="checkbox"]), textarea, select'));
}

// An element is found again by its id, or by its place below the nearest element that has one. So a part that holds the
// focus, or an open <details>, keeps it when others come before it.
const FOCUSABLE = 'a, button, summary, input, pre[tabindex]';
function placeOf(element, within, selector) {
  if (element.id) return { id: element.id };
  const near = element.closest('[id]');
  const root = near && within.contains(near) ? near : within;
  return { within: root === within ? null : root.id, index: [...root.querySelectorAll(selector)].indexOf(element), selector };
}
function atPlace(place, within) {
  if (place.id) return document.getElementById(place.id);
  const root = place.within ? document.getElementById(place.within) : within;
  return root?.querySelectorAll(place.selector)[place.index];
}

function swap(before, after) {
  if (before.innerHTML === after.innerHTML) return;
  const details = [...before.querySelectorAll('details')].map((it) => ({ place: placeOf(it, before, 'details'), open: it.open }));
  const active = document.activeElement;
  const focused = before.contains(active) && active !== before ? placeOf(active, before, FOCUSABLE) : null;
  before.innerHTML = after.innerHTML;
  enhance(before);
  for (const { place, open } of details) {
    const again = atPlace(place, before);
    if (again) again.open = open;
  }
  if (focused) atPlace(focused, before)?.focus({ preventScroll: true });
}

function updateRows(before, after) {
  const shown = new Map([...before.rows].filter((row) => row.id).map((row) => [row.id, row]));
  let fresh = 0;
  for (const row of after.rows) {
    const old = shown.get(row.id);
    if (!old) { fresh += 1; continue; }
    const ticked = old.querySelector('input[type="checkbox"]')?.checked;
    if (old.querySelector('time, td') && strip(old) !== strip(row)) {
      swap(old, row);
      const box = old.querySelector('input[type="checkbox"]');
      if (box && ticked) box.checked = true;
    }
  }
  const button = document.querySelector(`[data-new-of="${before.id}"]`);
  if (button) {
    button.hidden = fresh === 0;
    button.querySelector('[data-count]').textContent = fresh;
  }
}

// The titles of times hold the reader's zone, which the server does not know.
const strip = (row) => row.innerHTML.replace(/ title="[^"]*"/g, '').replace(/ hidden=""/g, '');

async function refresh() {
  if (busy()) return;
  lastAsked = performance.now();
  hasChanged = false;
  const headers = lastTag ? { 'If-None-Match': lastTag } : {};
  let answer;
  try {
    answer = await fetch(location.href, { headers, credentials: 'same-origin', redirect: 'manual', cache: 'no-store' });
  } catch {
    return;
  }
  if (answer.type === 'opaqueredirect' || answer.status === 401) {
    signedOut();
    return;
  }
  if (answer.status !== 200) return;
  lastTag = answer.headers.get('ETag');
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const own = document.querySelector('script[src]')?.getAttribute('src');
  if (page.querySelector('script[src]')?.getAttribute('src') !== own) {
    stopped = true;
    tell(document.body.dataset.upgraded);
    return;
  }
  if (busy()) return;
  for (const part of document.querySelectorAll('[data-live][id]')) {
    const after = page.getElementById(part.id);
    if (!after) continue;
    if (part.dataset.live === 'rows') updateRows(part, after);
    else swap(part, after);
  }
}

function signedOut() {
  if (stopped) return;
  stopped = true;
  unfollow();
  tell(document.body.dataset.signedOut);
}

function unfollow() {
  stream?.close();
  stream = null;
}

// Opens the stream while somebody looks at the page, where there is one.
function follow() {
  if (unwatched()) unfollow();
  const base = document.querySelector('[data-stream]')?.dataset.stream;
  const [load] = performance.getEntriesByType('navigation');
  if (stream || wasRefused || unwatched() || !base || !/^h[23]/.test(load?.nextHopProtocol)) return;
  const source = new EventSource(`${base}?page=${encodeURIComponent(location.pathname + location.search)}`);
  const changed = () => { hasChanged = true; refresh(); };
  source.addEventListener('open', changed);
  source.addEventListener('changed', changed);
  source.addEventListener('ended', signedOut);
  source.addEventListener('error', () => {
    // A lost connection is opened again by the browser, an answer that refuses is not.
    if (source.readyState === EventSource.CLOSED) { wasRefused = true; unfollow(); }
  });
  stream = source;
}

function tick() {
  follow();
  const isTold = stream?.readyState === EventSource.OPEN && !hasChanged;
  if (!isTold || performance.now() - lastAsked >= EVERY_WITH_STREAM) refresh();
}

function tell(text) {
  const line = document.createElement('p');
  line.className = 'stale';
  line.setAttribute('role', 'status');
  document.body.prepend(line);
  // A screen reader says what changes in a place that it knows already.
  setTimeout(() => { line.textContent = text; });
}

document.addEventListener('postrider:renewed', () => {
  stopped = false;
  lastTag = null;
  unfollow();
});

if (document.querySelector('[data-live]')) {
  follow();
  setInterval(tick, EVERY);
  document.addEventListener('visibilitychange', tick);
}
