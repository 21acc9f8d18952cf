// The queue: what runs, what waits and in which order, what ended and what to do about it; beside it the machine.
import * as api from "../core/api.js";
import { $, fill, h, icon } from "../core/dom.js";
import { number, t } from "../core/i18n.js";
import * as live from "../core/live.js";
import { failed, toast } from "../core/toast.js";
import { ask } from "../parts/ask.js";
import { fault, loading, notice } from "../parts/notice.js";
import { styled } from "../parts/style.js";
import { openCure } from "./cures.js";
import { openEdit } from "./edit.js";
import { ended, follow, running, waiting } from "./rows.js";
import { Stats } from "./stats.js";

await styled("queue.css", import.meta.url);

const RECENT = 10;
let stops = [], stats = null; // of the newest mount

export function mount(root, studio) {
  const admin = studio.setup.account.admin;
  const may = studio.setup.account.can_submit;
  const parts = { state: h("div"), now: h("div.q-now"), line: h("ol.q-line"), done: h("div.q-ended"), bad: h("div.q-ended") };
  const head = h("div.q-head");
  const told = h("p.sr", { role: "status", aria: { live: "polite" } });
  const sections = {};
  let line = null, queue = null, again = null, shown = false, pressed = false, dragged = null;

  stops.forEach((stop) => stop());
  stats?.stop();
  stats = new Stats();
  stops = [live.on(heard), live.onResync(soon)];

  const section = (name, body) => (sections[name] = h("section.q-part", { aria: { labelledby: `q-${name}` } }, h(`h2#q-${name}`, t(`queue.${name}`), h("span.chip")), body));
  fill(root, head, told, parts.state,
    h("div.q-screen", h("div.q-main", section("now", parts.now), section("line", parts.line), section("failed", parts.bad), section("done", parts.done)),
      admin && h("aside.q-side", { aria: { label: t("stats.title") } }, stats.root)));
  fill(parts.state, loading());
  parts.line.addEventListener("dragover", over);
  parts.line.addEventListener("drop", drop);
  parts.line.addEventListener("pointerdown", (event) => { pressed = Boolean(event.target.closest("[draggable='true']")); });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) parts.line.addEventListener(name, () => { pressed = false; });

  // What the server says

  function heard(event) {
    if (!shown) return;
    if (event.kind === "step" && follow(parts.now, event)) return;
    soon();
  }

  function soon() {
    clearTimeout(again);
    again = setTimeout(() => { if (shown) read(); }, 250);
  }

  async function read() {
    try {
      const recent = (status, limit) => api.get(`/v1/videos?status=${status}&limit=${limit}`);
      const [state, videos, done, bad] = await Promise.all([
        api.get("/v1/queue?limit=1"), api.get("/v1/queue/videos"), recent("completed", 5), recent("failed", RECENT)]);
      if (pressed || dragged) return soon();  // a row drawn anew under the hand could not be dropped
      [queue, line] = [state, videos.data];
      draw(done.data, bad.data);
    } catch (error) {
      fill(parts.state, fault(error, read));
    }
  }

  // Drawing

  function draw(done, bad) {
    const isRunning = (video) => video.status === "in_progress";
    const [now, next] = [line.filter(isRunning), line.filter((video) => !isRunning(video))];
    const context = { studio, may, cancel, edit, move, retry, cure, remove, drag: (id) => { dragged = id; } };
    fill(parts.state, queue.paused && h("p.note.warn", icon("pause"), h("span", t("queue.paused", { reason: queue.reason }))));
    keepFocus(() => {
      drawHead();
      fill(parts.now, now.length ? now.map((video) => running(video, context)) : notice({ mark: "spark", title: t("queue.idle"), text: next.length ? t(queue.paused ? "queue.idle.paused" : "queue.idle.soon") : t("queue.idle.hint"), button: !next.length && may ? { text: t("library.empty.go"), run: () => studio.go("create") } : null }));
      fill(parts.line, next.map((video, at) => waiting(video, { ...context, at, of: next.length, before: next[at - 1], after: next[at + 2] })));
      fill(parts.bad, bad.map((video) => ended(video, context)));
      fill(parts.done, done.map((video) => ended(video, context)), done.length > 0 && h("a.quiet", { href: "#/library" }, t("queue.all")));
    });
    for (const [name, many] of [["now", now.length], ["line", next.length], ["failed", bad.length], ["done", done.length]]) {
      sections[name].hidden = name !== "now" && !many;
      const chip = $(".chip", sections[name]);
      chip.hidden = name !== "line" || !many;
      chip.textContent = number(many);
    }
  }

  function drawHead() {
    const full = queue.queued >= queue.capacity;
    fill(head, h("h1", t("queue.title")),
      h("p.soft", t("queue.counts", { running: number(queue.in_progress), waiting: number(queue.queued), room: number(queue.capacity) })),
      full && h("span.chip.warn", t("queue.full")),
      admin && h("button.quiet", { type: "button", dataset: { keep: "pause" }, onclick: pause }, icon(queue.paused ? "play" : "pause"), t(queue.paused ? "queue.resume" : "queue.pause")));
  }

  //: The same control has the focus after the rows were drawn anew.
  function keepFocus(change) {
    const key = root.contains(document.activeElement) ? document.activeElement.dataset.keep : null;
    change();
    if (key) $(`[data-keep="${key}"]`, root)?.focus({ preventScroll: true });
  }

  // What can be done

  async function act(path, json, method = "POST") {
    try {
      const answer = await api.send(method, path, { json });
      await read();
      return answer;
    } catch (error) {
      failed(error);
      soon();
      return null;
    }
  }

  const pause = () => act(`/v1/queue/${queue.paused ? "resume" : "pause"}`, queue.paused ? undefined : { reason: t("queue.reason") });
  const retry = (video) => act(`/v1/videos/${video.id}/retry`);

  async function cancel(video) {
    if (video.status === "in_progress" && !(await ask({ title: t("queue.cancel.title"), text: t("queue.cancel.text"), agree: t("queue.cancel"), danger: true }))) return;
    if (await act(`/v1/videos/${video.id}/cancel`)) toast(t("queue.cancelled"), { action: { label: t("queue.undo"), run: () => retry(video) } });
  }

  async function remove(video) {
    const agreed = await ask({ title: t("library.delete.one"), text: t("library.delete.text"), agree: t("library.delete"), danger: true });
    if (agreed) act(`/v1/videos/${video.id}`, undefined, "DELETE");
  }

  //: Puts a waiting video before another one, or at the end.
  async function move(video, before, place) {
    const moved = await act(`/v1/videos/${video.id}/move`, { before: before?.id ?? null });
    if (moved) told.textContent = t("queue.moved", { place: moved.wanreel.position ?? place });
  }

  function edit(video) {
    openEdit(video, studio, { title: t("queue.edit"), agree: t("queue.save"), send: (changes) => api.send("PATCH", `/v1/videos/${video.id}`, { json: changes }), done: read });
  }

  const cure = (video, advice) => openCure(video, studio, advice, read);

  // Dragging

  function over(event) {
    const row = event.target.closest(".q-row");
    if (!dragged || !row) return;
    event.preventDefault();
    mark(row, below(row, event));
  }

  function drop(event) {
    const row = event.target.closest(".q-row");
    mark(null);
    if (!dragged || !row) return;
    event.preventDefault();
    const next = line.filter((video) => video.status === "queued");
    const video = next.find((one) => one.id === dragged);
    const at = next.findIndex((one) => one.id === row.dataset.id) + (below(row, event) ? 1 : 0);
    dragged = null;
    if (video && next[at] !== video && next[at - 1] !== video) move(video, next[at], at + 1);
  }

  const below = (row, event) => event.clientY > row.getBoundingClientRect().top + row.offsetHeight / 2;

  function mark(row, isBelow = false) {
    for (const other of parts.line.children) other.classList.remove("above", "below");
    row?.classList.add(isBelow ? "below" : "above");
  }

  return {
    show() {
      shown = true;
      read();
      if (admin) stats.start();
    },
    hide() {
      shown = false;
      stats.stop();
    },
  };
}
