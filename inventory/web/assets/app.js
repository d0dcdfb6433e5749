// Keeps a page as the server would send it now: one event stream carries the parts that changed. Without this file the
// pages are the same, only still.
"use strict";

const body = document.body;
const sign = document.getElementById("live");
let source = null;
let later = new Map(); // parts that wait because somebody is selecting text in them

function say(state, text) {
  if (sign && sign.dataset.state !== state) {
    sign.dataset.state = state;
    sign.textContent = text;
  }
}

// busy: a replaced element would take the selection away from under the reader's mouse.
function busy(el) {
  const s = getSelection();
  return s && !s.isCollapsed && el.contains(s.anchorNode);
}

function show(piece) {
  const el = document.getElementById(piece.id);
  if (!el || el.dataset.hash === piece.hash || el.querySelector("[data-filter]")) return; // never what is being typed
  if (busy(el)) return later.set(piece.id, piece);
  const open = [...el.querySelectorAll("details[open]")].map((d) => d.id);
  const active = el.contains(document.activeElement) ? document.activeElement : null;
  const back = active && (active.id ? "#" + CSS.escape(active.id) : active.getAttribute("href") ? `a[href="${CSS.escape(active.getAttribute("href"))}"]` : null);
  const scrolled = [...el.querySelectorAll("[tabindex]")].map((x) => x.scrollLeft);
  const state = el.querySelector(".badge")?.textContent;
  el.innerHTML = piece.html;
  el.dataset.hash = piece.hash;
  for (const id of open) {
    const d = document.getElementById(id);
    if (d) d.open = true;
  }
  el.querySelectorAll("[tabindex]").forEach((x, i) => { x.scrollLeft = scrolled[i] || 0; });
  if (back) el.querySelector(back)?.focus({ preventScroll: true });
  ready(el);
  if (piece.id === "head" && state !== el.querySelector(".badge")?.textContent) setTimeout(center); // after the way itself has come
  if (state && el.tagName === "LI" && state !== el.querySelector(".badge")?.textContent) {
    el.classList.remove("changed");
    void el.offsetWidth; // starts the animation again
    el.classList.add("changed");
  }
}

function arrange(order) {
  const list = document.getElementById(order.id);
  if (!list) return;
  const keep = new Set(order.has);
  for (const li of [...list.children]) if (!keep.has(li.id)) li.remove();
  order.has.forEach((id, i) => {
    let li = document.getElementById(id);
    if (!li) {
      li = document.createElement("li");
      li.id = id;
    }
    if (list.children[i] !== li) list.insertBefore(li, list.children[i] || null);
  });
}

function connect(path) {
  if (source) source.close();
  source = new EventSource(path);
  source.onopen = () => say("live", "live");
  source.addEventListener("change", (e) => {
    const c = JSON.parse(e.data);
    if (c.version !== body.dataset.version) return location.reload(); // the daemon was upgraded
    say("live", "live");
    if (c.title) document.title = c.title + " · Hostler";
    (c.orders || []).forEach(arrange);
    (c.pieces || []).forEach(show);
  });
  source.onerror = () => {
    say("lost", "reconnecting …");
    if (source.readyState === EventSource.CLOSED) setTimeout(knock, 3000);
  };
}

// knock finds out why a stream was refused: logged out, or the daemon is away.
async function knock() {
  if (document.hidden) return; // the page comes back by itself when somebody looks
  try {
    const a = await fetch(location.href, { redirect: "manual" });
    if (a.ok) return connect(body.dataset.live);
    if (a.status === 401) return location.reload();
  } catch { /* away: again */ }
  setTimeout(knock, 3000);
}

// A page that nobody sees holds no stream: a browser has only six connections to one server.
document.addEventListener("visibilitychange", () => {
  if (!body.dataset.live) return;
  if (!document.hidden) return connect(body.dataset.live);
  source?.close();
  say("still", "paused");
});

document.addEventListener("selectionchange", () => {
  if (later.size === 0 || !getSelection().isCollapsed) return;
  const now = later;
  later = new Map();
  now.forEach(show);
});

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch { // not allowed without TLS: select it, so that one key copies it
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

document.addEventListener("click", (e) => {
  const b = e.target.closest("[data-copy]");
  if (b) copy(b);
});

// ready makes what needs this file visible.
function ready(root) {
  root.querySelectorAll("[data-copy]").forEach((b) => { b.hidden = false; });
}

// Filtering while typing: the same address as the form's, and its stream.
const filter = document.querySelector("[data-filter]");
if (filter) {
  let wait = 0;
  filter.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => {
      const q = new URLSearchParams([...new FormData(filter)].filter(([, v]) => v !== ""));
      const path = q.size ? "/?" + q : "/";
      history.replaceState(null, "", path);
      body.dataset.live = "/live" + path;
      connect(body.dataset.live);
    }, 200);
  });
}

// What the way of a node shows first on a narrow screen is where the node is.
function center() {
  const here = document.querySelector(".way .here");
  if (here) here.closest(".way").scrollLeft = here.offsetLeft - (here.closest(".way").clientWidth - here.offsetWidth) / 2;
}
addEventListener("load", center);
addEventListener("resize", center); // a phone that is turned

ready(document);
document.querySelector("[data-submit]")?.submit();
if (body.dataset.live) connect(body.dataset.live);
