// What the portal says to the page around it, and what it takes from there. Only the exact origins that may show the
// portal take part. Without a page around it this script does nothing.
'use strict';

(() => {
  const session = document.getElementById('portal-session');
  if (!session || window.parent === window) return;

  const EXPIRES_SOON = 300; // seconds
  const allowed = session.dataset.ancestors.split(' ').filter(Boolean)
    .map((origin) => (origin === "'self'" ? location.origin : origin));
  // Not every browser tells whose page is around. Where it does not, a message that is addressed to the wrong origin
  // reaches nobody.
  const around = location.ancestorOrigins?.[0];
  const addressed = around ? allowed.filter((origin) => origin === around) : allowed;
  const say = (message) => { for (const origin of addressed) window.parent.postMessage(message, origin); };

  let height = 0;
  new ResizeObserver(() => {
    const now = Math.ceil(document.documentElement.getBoundingClientRect().height);
    if (now === height) return;
    height = now;
    say({ type: 'postrider:height', height });
  }).observe(document.documentElement);

  let ended = false;
  let timers = [];
  function end() {
    if (!ended && session.dataset.base) {
      const line = document.createElement('p');
      line.className = 'stale';
      line.setAttribute('role', 'status');
      document.body.prepend(line);
      // A screen reader says what changes in a place that it knows already.
      setTimeout(() => { line.textContent = session.dataset.endedText; });
    }
    ended = true;
    say({ type: 'postrider:expired' });
  }
  // The seconds that are left are the server's: the reader's clock may be wrong.
  function follow() {
    for (const timer of timers) clearTimeout(timer);
    timers = [];
    ended = false;
    if (!session.dataset.base) {
      if ('ended' in session.dataset) end();
      return;
    }
    const left = Number(session.dataset.secondsLeft);
    const { expiresAt } = session.dataset;
    const warn = () => say({ type: 'postrider:expiring', expiresAt });
    timers.push(setTimeout(warn, Math.max(0, left - EXPIRES_SOON) * 1000), setTimeout(end, left * 1000));
  }
  follow();

  // A form that is sent now would lose what was typed. It waits for a new session.
  document.addEventListener('submit', (event) => {
    if (!ended || !session.dataset.base || event.target.method !== 'post') return;
    event.preventDefault();
    event.stopImmediatePropagation();
    say({ type: 'postrider:expired' });
  }, { capture: true });

  addEventListener('message', (event) => {
    if (event.source !== window.parent || !allowed.includes(event.origin)) return;
    if (event.data?.type !== 'postrider:renew' || typeof event.data.url !== 'string') return;
    if (!URL.canParse(event.data.url)) return;
    const url = new URL(event.data.url);
    if (url.origin !== location.origin || !url.pathname.startsWith(session.dataset.portal)) return;
    if (session.dataset.base) renew(url); else location.replace(url);
  });

  // The page stays with everything that was typed; its links and forms lead to the new session.
  async function renew(url) {
    let answer;
    try {
      answer = await fetch(url, { credentials: 'same-origin', cache: 'no-store' });
    } catch {
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const fresh = page.getElementById('portal-session');
    if (!answer.ok || !fresh?.dataset.base) return;
    const [from, to] = [session.dataset.base, fresh.dataset.base];
    const moved = (path) => (path === from || /^[/?#]/.test(path.slice(from.length)) ? to + path.slice(from.length) : path);
    for (const name of ['href', 'action', 'formaction', 'data-address', 'data-stream']) {
      for (const element of document.querySelectorAll(`[${name}^="${from}"]`)) {
        element.setAttribute(name, moved(element.getAttribute(name)));
      }
    }
    history.replaceState(null, '', moved(location.pathname) + location.search + location.hash);
    Object.assign(session.dataset, fresh.dataset);
    for (const line of document.querySelectorAll('.stale')) line.remove();
    follow();
    document.dispatchEvent(new Event('postrider:renewed'));
  }
})();
