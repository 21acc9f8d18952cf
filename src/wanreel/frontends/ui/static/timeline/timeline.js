// Timeline: a storyboard's scenes, each redoable alone, and their film as it grows.
import * as api from "../core/api.js";
import { $, fill, h, icon } from "../core/dom.js";
import { moment, number, t } from "../core/i18n.js";
import * as live from "../core/live.js";
import * as prefs from "../core/prefs.js";
import { failed, toast } from "../core/toast.js";
import { slider } from "../create/controls.js";
import { ask } from "../parts/ask.js";
import { styled } from "../parts/style.js";
import { blank, bodyOf, draftOf, STARTS, TRANSITIONS } from "./draft.js";

await styled("timeline.css", import.meta.url);

const CHIPS = { completed: "good", in_progress: "tint", queued: "", failed: "bad", cancelled: "warn" };
const ENDED = ["completed", "failed", "cancelled"];
const REST = 2000; // ms between looks while a film is being made, should no event come
let draft = blank(), state = null; // what is edited; how it stands on the server
let changed = false, shown = false, timer = null, soon = null, view = null;
let wired = false;

export function mount(root, studio) {
  const parts = { studio, picker: h("div.field"), film: h("section.card.t-film", { aria: { label: t("timeline.film") } }), settings: h("div.t-head"), scenes: h("ol.t-scenes"), doing: h("div.buttons") };
  view = parts;
  fill(root, h("div.t-head", h("h1", t("timeline.title")), parts.picker), parts.film, parts.settings, parts.scenes, parts.doing);
  if (!wired) {
    wired = true;
    live.on((event) => { if (shown && state?.scenes.some((scene) => scene.video === event.job_id)) soon ??= setTimeout(() => { soon = null; reread(); }, event.kind === "step" ? 500 : 60); });
    live.onResync(() => { if (shown) reread(); });
  }
  return { show, hide };
}

async function show({ id } = {}) {
  shown = true;
  const wanted = id ?? state?.id ?? prefs.get("storyboard", null);
  await list();
  if (wanted && wanted !== state?.id) await choose(wanted);
  else draw();
}

function hide() {
  shown = false;
  clearTimeout(timer);
}

async function list() {
  try {
    const { data } = await api.get("/v1/storyboards?limit=50");
    const options = [h("option", { value: "" }, t("timeline.new")), data.map((one) => h("option", { value: one.id, selected: one.id === state?.id }, `${one.title} · ${moment(one.created_at)}`))];
    fill(view.picker, h("label", { htmlFor: "t-picker" }, t("timeline.open")), h("select#t-picker", { onchange: (event) => choose(event.target.value) }, options));
  } catch (fault) { failed(fault); }
}

async function choose(id) {
  try {
    take(id ? await api.get(`/v1/storyboards/${id}`) : null);
  } catch (fault) {
    if (fault.status !== 404) return failed(fault);
    take(null);
  }
}

function take(fresh) {
  state = fresh;
  draft = fresh ? draftOf(fresh) : blank();
  changed = false;
  prefs.set("storyboard", fresh?.id ?? null);
  const picker = $("#t-picker");
  if (picker) picker.value = fresh?.id ?? "";
  draw();
}

async function reread() {
  clearTimeout(timer);
  if (!state || !shown) return;
  try {
    const fresh = await api.get(`/v1/storyboards/${state.id}`);
    if (fresh.id !== state.id) return;
    state = fresh;
    drawFilm();
    drawStates();
    drawDoing();
  } catch (fault) { if (fault.status === 404) take(null); }
}

function touch() {
  if (changed) return;
  changed = true;
  drawDoing();
}

// Drawing

function draw() {
  drawFilm();
  drawSettings();
  drawScenes();
  drawDoing();
}

function drawFilm() {
  clearTimeout(timer);
  if (state && !ENDED.includes(state.status)) timer = setTimeout(reread, REST);
  const film = state?.film;
  const key = film ? film.sha256 : "";
  const stage = $(".t-stage", view.film);
  const kept = stage && stage.dataset.key === key ? stage : h("div.t-stage", { dataset: { key } }, film ? player() : h("div.empty", icon("film"), h("span", t("timeline.empty"))));
  const told = film ? t(film.whole ? "timeline.whole" : "timeline.part", { scenes: film.scenes, all: state.scenes.length, seconds: number(film.seconds, 1) }) : t("timeline.help");
  fill(view.film, kept, h("div.t-side",
    h("div.t-line", h("span.chip", { class: CHIPS[state?.status] ?? "", role: "status" }, t(state ? `timeline.status.${state.status}` : "timeline.status.draft")), film && h("span.soft", film.copied ? t("timeline.copied") : t("timeline.written"))),
    h("p", told), film && !film.copied && h("p.soft", t("timeline.why", { why: film.why })),
    state?.error && h("p.fault", icon("warning"), h("span", state.error)),
    state && h("div.meter", { role: "progressbar", aria: { label: t("progress.label"), valuemin: 0, valuemax: 100, valuenow: state.progress } }, h("div", { style: { width: `${state.progress}%` } })),
    state && h("div.t-bar", state.scenes.map((scene) => h("button", { type: "button", dataset: { status: scene.status }, aria: { label: t("timeline.jump", { n: scene.number }) }, disabled: scene.begins_at === null, onclick: () => jump(scene) }, scene.number)))));
}

function player() {
  return h("video", { src: api.address(`/v1/storyboards/${state.id}/content?v=${state.film.sha256.slice(0, 8)}`), controls: true, muted: true, playsInline: true, preload: "metadata", aria: { label: state.title } });
}

function jump(scene) {
  const film = $(".t-stage video", view.film);
  if (!film) return;
  film.currentTime = scene.begins_at;
  film.play().catch(() => {});
}

function drawSettings() {
  const models = view.studio.setup.models.filter((model) => model.installed);
  const title = h("input", { type: "text", id: "t-title", value: draft.title, oninput: () => { draft.title = title.value; touch(); } });
  const model = h("select", { id: "t-model", onchange: () => { draft.model = model.value; touch(); } }, h("option", { value: "" }, t("timeline.model.any")), models.map((one) => h("option", { value: one.name, selected: one.name === draft.model }, one.title)));
  const seconds = h("input", { type: "number", id: "t-seconds", min: 0.1, max: 60, step: "any", value: draft.seconds ?? "", placeholder: t("timeline.seconds.any"), oninput: () => { draft.seconds = seconds.value === "" ? null : Number(seconds.value); touch(); } });
  const field = (id, label, control) => h("div.field", h("label", { htmlFor: id }, label), control);
  fill(view.settings, field("t-title", t("timeline.name"), title), field("t-model", t("knob.model"), model), field("t-seconds", t("timeline.seconds"), seconds),
    slider("t-colour", { label: t("extend.colour"), min: 0, max: 1, step: 0.05, value: draft.colour_match, official: 0, onpick: (value) => { draft.colour_match = value ?? 0; touch(); } }));
}

function drawScenes() {
  fill(view.scenes, draft.scenes.map(card));
  drawStates();
}

function card(scene, place) {
  const id = (name) => `t-${name}-${place}`;
  const set = (name, value) => { scene[name] = value; touch(); };
  const prompt = h("textarea", { id: id("prompt"), rows: 3, value: scene.prompt, oninput: () => set("prompt", prompt.value) });
  const start = h("select", { id: id("start"), onchange: () => { set("start", start.value); drawScenes(); } },
    STARTS.filter((name) => place || name === "text" || name === "keyframe").map((name) => h("option", { value: name, selected: name === scene.start }, t(`timeline.start.${name}`))));
  const seconds = h("input", { type: "number", id: id("seconds"), min: 0.1, max: 60, step: "any", value: scene.seconds ?? "", placeholder: t("timeline.seconds.same"), oninput: () => set("seconds", seconds.value === "" ? null : Number(seconds.value)) });
  const transition = h("select", { id: id("transition"), disabled: !place, onchange: () => set("transition", transition.value) }, TRANSITIONS.map((name) => h("option", { value: name, selected: name === scene.transition }, t(`timeline.transition.${name}`))));
  const edit = h("input", { type: "text", id: id("edit"), value: scene.edit_prompt ?? "", oninput: () => set("edit_prompt", edit.value) });
  const field = (name, label, control) => h("div.field", h("label", { htmlFor: id(name) }, label), control);
  const act = (name, mark, run, disabled = false) => h("button.bare", { type: "button", disabled, title: t(`timeline.${name}`), aria: { label: t("timeline.act", { what: t(`timeline.${name}`), n: place + 1 }) }, dataset: { act: name }, onclick: run }, icon(mark));
  return h("li.card.t-scene", { dataset: { place }, aria: { label: t("timeline.scene", { n: place + 1 }) } },
    h("div.t-top", h("strong", t("timeline.scene", { n: place + 1 })),
      act("left", "left", () => move(place, -1), !place), act("right", "right", () => move(place, 1), place === draft.scenes.length - 1),
      act("redo", "retry", () => redo(place), !state), act("remove", "trash", () => remove(place), draft.scenes.length === 1)),
    h("div.t-thumb"), h("div.t-line", { role: "status" }),
    field("prompt", t("timeline.prompt"), prompt),
    h("div.t-pair", field("start", t("timeline.start"), start), field("seconds", t("timeline.seconds"), seconds)),
    scene.start === "keyframe" && keyframe(scene, place),
    h("div.t-pair", field("transition", t("timeline.transition"), transition), scene.start !== "text" && field("edit", t("timeline.edit"), edit)));
}

function keyframe(scene, place) {
  const picker = h("input", { type: "file", id: `t-keyframe-${place}`, accept: "image/png,image/jpeg,image/webp", onchange: () => upload(scene, picker.files[0]) });
  const told = scene.keyframe_name || (scene.keyframe ? t("timeline.keyframe.kept") : "");
  return h("div.field", h("label", { htmlFor: picker.id }, t("timeline.keyframe"), told && h("span.soft", told)), picker);
}

async function upload(scene, file) {
  if (!file) return;
  const form = new FormData();
  form.append("file", file);
  form.append("purpose", "user_data");
  try {
    const kept = await api.upload("/v1/files", form);
    Object.assign(scene, { keyframe: kept.id, keyframe_name: kept.filename });
    touch();
    drawScenes();
  } catch (fault) { failed(fault); }
}

//: What the server says of each scene, where the scene is still the one that it knows.
function drawStates() {
  for (const [place, scene] of draft.scenes.entries()) {
    const root = view.scenes.children[place], now = state?.scenes[scene.number - 1];
    if (!root) continue;
    const picture = now?.status === "completed" ? h("img", { src: api.address(`/v1/videos/${now.video}/content?variant=thumbnail`), alt: scene.prompt }) : icon(now?.status === "failed" ? "warning" : "film");
    const thumb = $(".t-thumb", root), key = `${now?.video}:${now?.status}`;
    if (thumb.dataset.key !== key) { thumb.dataset.key = key; fill(thumb, picture); }
    fill($(".t-line", root), now && h("span.chip", { class: CHIPS[now.status] }, t(`timeline.status.${now.status}`), now.status === "in_progress" && ` ${now.progress} %`),
      now?.shown_drift !== null && now && h("span.chip", { title: t("timeline.drift.help") }, t("timeline.drift", { value: number(now.shown_drift, 1) })),
      now && h("span.soft.mono", t("seed.told", { seed: now.seed })), now?.error && h("span.fault", now.error));
  }
}

function drawDoing() {
  const button = (name, mark, run, { kind = "button", disabled = false } = {}) => h(`button.${kind}`, { type: "button", disabled, dataset: { act: name }, onclick: run }, icon(mark), t(`timeline.${name}`));
  const running = state && !ENDED.includes(state.status), may = view.studio.setup.account.can_submit;
  fill(view.doing,
    may && button(state ? "update" : "render", "play", render, { kind: "primary", disabled: Boolean(state) && !changed }),
    button("add", "plus", add),
    running && button("cancel", "stop", () => act("cancel")),
    state && ["failed", "cancelled"].includes(state.status) && button("retry", "retry", () => act("retry")),
    state?.film && h("a.button", { href: api.address(`/v1/storyboards/${state.id}/content`), download: "" }, icon("download"), t("do.download")),
    state && button("delete", "trash", forget, { kind: "danger" }));
}

// Doing

async function render() {
  try {
    const json = bodyOf(draft);
    const fresh = state ? await api.send("PUT", `/v1/storyboards/${state.id}`, { json }) : await api.send("POST", "/v1/storyboards", { json });
    take(fresh);
    await list();
  } catch (fault) { refused(fault); }
}

async function redo(place) {
  try {
    if (changed) return await render();
    take(await api.send("POST", `/v1/storyboards/${state.id}/scenes/${place + 1}/redo`));
    toast(t("timeline.redone", { n: place + 1 }));
  } catch (fault) { refused(fault); }
}

async function act(what) {
  try {
    take(await api.send("POST", `/v1/storyboards/${state.id}/${what}`));
  } catch (fault) { failed(fault); }
}

async function forget() {
  if (!(await ask({ title: t("timeline.delete.title"), text: t("timeline.delete.text"), agree: t("timeline.delete"), danger: true }))) return;
  try {
    await api.send("DELETE", `/v1/storyboards/${state.id}`);
    take(null);
    await list();
  } catch (fault) { failed(fault); }
}

function refused(fault) {
  const named = (fault.problems ?? []).map((problem) => `${problem.field}: ${problem.message}`).join(" ");
  failed(named ? Object.assign(new Error(named), { hint: fault.hint }) : fault);
}

function add() {
  draft.scenes.push({ prompt: "", start: "previous", seconds: null, transition: "cut", number: 0 });
  touch();
  drawScenes();
  $(`#t-prompt-${draft.scenes.length - 1}`)?.focus();
}

function remove(place) {
  draft.scenes.splice(place, 1);
  if (draft.scenes[0].start === "previous" || draft.scenes[0].start === "anchor") draft.scenes[0].start = "text";
  touch();
  drawScenes();
}

function move(place, by) {
  const [scene] = draft.scenes.splice(place, 1);
  draft.scenes.splice(place + by, 0, scene);
  if (!["text", "keyframe"].includes(draft.scenes[0].start)) draft.scenes[0].start = draft.scenes[0].keyframe ? "keyframe" : "text";
  touch();
  drawScenes();
  const moved = view.scenes.children[place + by];
  ($(`[data-act=${by < 0 ? "left" : "right"}]:not(:disabled)`, moved) ?? $("textarea", moved))?.focus();
}
