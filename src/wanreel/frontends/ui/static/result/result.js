// Result: the video being made or chosen, what can be done with it, and the newest ones. Comes back to its job after a reload.
import * as api from "../core/api.js";
import { $, clock, fill, h, icon } from "../core/dom.js";
import { money, number, t } from "../core/i18n.js";
import * as jobs from "../core/jobs.js";
import * as live from "../core/live.js";
import * as prefs from "../core/prefs.js";
import { failed, toast } from "../core/toast.js";
import { choice, dialog, seg } from "../create/controls.js";
import { asked, finishing } from "../create/finishing.js";
import { sentence } from "../create/plan.js";
import { said } from "../parts/notes.js";
import { uploadLine } from "../parts/upload.js";
import { openCure, remedy } from "../queue/cures.js";
import { openExtend } from "./extend.js";
import { compare, file, player } from "./media.js";
import { bell, finished, title } from "./notify.js";

const RECENT = 12;
const PREVIEW_EVERY = 600; // ms
let view = null; // of the newest mount; events go there
let current = null; // the id shown
const ours = new Set(); // jobs whose end is told
const watched = new Set(); // jobs that were shown while they ran
let wired = false;

export function openResult(studio, doing) {
  const stage = h("div.stage"), under = h("div.under"), strip = h("div.recent");
  const root = h("section.result", { aria: { label: t("result.label") } },
    h("div.result-head", h("h2", t("result.title")), bell()), h("div.card.result-card", stage, under), strip);
  view = { studio, root, stage, under, strip, doing, drawn: "", recent: [], preview: { at: 0, url: "", for: "" } };
  if (!wired) wire();
  empty();
  return { root, show, adopt, running: () => jobs.running(jobs.known(current)), cancel };
}

function wire() {
  wired = true;
  jobs.on((video, event) => {
    if (event && !jobs.running(video) && ours.delete(video.id)) { finished(video); listRecent(); }
    if (video.id === current) draw(video);
    else drawThumb(video);
  });
  live.onResync(listRecent);
  live.on((event) => { if (event.kind === "queued" && !jobs.known(event.job_id)) others(); });
  setInterval(() => { const video = jobs.known(current); if (video && video.wanreel.status === "in_progress" && !document.hidden) drawTime(video); }, 1000);
}

let soon = null;

//: Videos that were not handed in here: by another tab, a program, or a worker in the place of one that ran out of memory.
function others() {
  soon ??= setTimeout(() => { soon = null; listRecent(); }, 200);
}

//: The one that a worker makes in the place of the one shown, which ran out of memory under these eyes.
function followSmaller(video, smaller) {
  if (video.wanreel.request.on_oom !== "reduce" || !jobs.running(smaller) || !watched.delete(video.id)) return;
  ours.add(smaller.id);
  toast(t("reduce.automatic"));
  choose(smaller.id, { quiet: true });
}

async function show(id) {
  await listRecent();
  const active = view.recent.find(jobs.running);
  const wanted = id ?? (active ? active.id : jobs.known(current) ? current : prefs.get("shown", view.recent[0]?.id ?? null));
  for (const video of view.recent.filter(jobs.running)) ours.add(video.id);
  if (wanted) await choose(wanted, { quiet: id === undefined });
  else empty();
}

async function choose(id, { quiet = false } = {}) {
  try {
    current = id;
    prefs.set("shown", id);
    view.drawn = "";
    draw(await jobs.look(id));
  } catch (fault) {
    if (fault.status === 404) { current = null; prefs.set("shown", null); empty(); }
    if (!quiet) failed(fault);
  }
  markThumb();
}

function adopt(video, { follow = true } = {}) {
  jobs.follow(video);
  ours.add(video.id);
  view.recent = [video, ...view.recent.filter((other) => other.id !== video.id)].slice(0, RECENT);
  if (follow) { current = video.id; prefs.set("shown", video.id); view.drawn = ""; draw(video); }
  drawStrip();
  if (live.state() !== "open") jobs.look(video.id).catch(() => {});
}

async function cancel(id = current) {
  try {
    jobs.follow(await api.send("POST", `/v1/videos/${id}/cancel`));
    draw(jobs.known(id));
    toast(t("cancel.done"), { action: { label: t("cancel.undo"), run: () => retry(id) }, seconds: 9 });
  } catch (fault) { failed(fault); }
}

async function retry(id = current) {
  try {
    adopt(await api.send("POST", `/v1/videos/${id}/retry`));
  } catch (fault) { failed(fault); }
}

// The stage

function empty() {
  title(null, false);
  fill(view.stage, h("div.screen.blank", h("div.empty", icon("film"), h("strong", t("result.empty")), h("span", t("result.empty.help")))));
  fill(view.under);
}

function draw(video) {
  const status = video.wanreel.status;
  title(video, jobs.running(video));
  const key = `${video.id}:${status}:${video.wanreel.attempt}`;
  if (view.drawn !== key) {
    view.drawn = key;
    ({ queued: drawRunning, in_progress: drawRunning, completed: drawDone, failed: drawFailed, cancelled: drawFailed })[status](video);
    drawThumb(video);
  }
  if (jobs.running(video)) { progress(video); watched.add(video.id); }
  drawRelatives(video);
  drawUpload(video);
}

const frameStyle = (video) => ({ "--aspect": String(video.wanreel.request.export_width / video.wanreel.request.export_height) });

function drawRunning(video) {
  const picture = view.preview.for === video.id && view.preview.url ? h("img", { src: view.preview.url, alt: t("preview.alt") }) : null;
  fill(view.stage, h("div.screen.making", { style: frameStyle(video) }, picture ?? h("div.shimmer"), h("span.chip.tint.stage-chip")));
  fill(view.under,
    h("div.progress", h("div.meter", { role: "progressbar", aria: { label: t("progress.label"), valuemin: 0, valuemax: 100, valuenow: 0 } }, h("div")),
      h("div.progress-line", h("span.progress-text", { role: "status" }), h("span.progress-time.soft"))),
    h("div.buttons", h("button.button", { type: "button", id: "cancel", onclick: () => cancel(video.id) }, icon("stop"), t("cancel"), h("kbd", "Esc"))),
    about(video));
}

function progress(video) {
  const meter = $(".meter", view.under), share = video.wanreel.status === "queued" ? 0 : video.progress;
  if (!meter) return;
  meter.firstElementChild.style.width = `${share}%`;
  meter.setAttribute("aria-valuenow", share);
  fill($(".progress-text", view.under), stageText(video));
  fill($(".stage-chip", view.stage), video.wanreel.status === "queued" ? t("stage.queued") : t(`stage.${video.wanreel.stage || "load"}`));
  drawTime(video);
  if (video.wanreel.stage === "denoise" && video.wanreel.step) preview(video);
}

function stageText(video) {
  const { status, stage, step, total_steps: total, position, cancel_requested: leaving } = video.wanreel;
  if (leaving) return t("stage.cancelling");
  if (status === "queued") return position ? t("queue.position", { n: position }) : t("stage.queued");
  if (stage === "denoise") return t("stage.step", { step, total });
  if (stage === "decode" && video.detail?.total_frames) return t("stage.frames", { done: video.detail.frames, total: video.detail.total_frames });
  if (stage === "downloading" && video.detail?.total_bytes) return t("stage.bytes", { percent: Math.round((100 * video.detail.received_bytes) / video.detail.total_bytes) });
  return t(`stage.${stage || "load"}`);
}

function drawTime(video) {
  const place = $(".progress-time", view.under);
  if (!place) return;
  const { status, starts_in: starts } = video.wanreel;
  if (status === "queued") return fill(place, starts ? t("queue.starts", { time: clock(starts) }) : "");
  const left = video.eta_seconds === null || video.eta_seconds === undefined ? null : video.eta_seconds - (Date.now() - video.eta_at) / 1000;
  fill(place, left === null || video.wanreel.stage !== "denoise" ? `${video.progress} %` : `${t("eta", { time: clock(Math.max(1, left)) })} · ${video.progress} %`);
}

async function preview(video) {
  if (Date.now() - view.preview.at < PREVIEW_EVERY || document.hidden) return;
  view.preview.at = Date.now();
  const response = await api.raw("GET", `/v1/videos/${video.id}/preview`, { headers: { Accept: "image/*" } }).catch(() => null);
  if (!response?.ok || current !== video.id) return;
  const url = URL.createObjectURL(await response.blob());
  const picture = h("img", { src: url, alt: t("preview.alt") });
  await picture.decode().catch(() => {});
  const screen = $(".screen.making", view.stage);
  if (!screen || current !== video.id) return URL.revokeObjectURL(url);
  screen.replaceChild(picture, screen.firstElementChild);
  if (view.preview.url) URL.revokeObjectURL(view.preview.url);
  Object.assign(view.preview, { url, for: video.id });
}

function drawDone(video) {
  const screen = h("div.screen", { style: frameStyle(video) }, player(video));
  fill(view.stage, screen);
  const { doing } = view;
  const button = (name, glyph, run, kind = "button") => h(`button.${kind}`, { type: "button", onclick: run, dataset: { act: name } }, icon(glyph), t(`do.${name}`));
  fill(view.under,
    h("div.buttons.acts",
      h("a.primary", { href: file(video), download: "", dataset: { act: "download" } }, icon("download"), t("do.download")),
      view.studio.setup.account.can_submit && button("extend", "next", () => openExtend(video, adopt)),
      button("continue", "frame", () => useLastFrame(video, doing)),
      button("reuse", "retry", () => doing.reuse(video)),
      button("variations", "copies", () => variations(video)),
      button("reexport", "film", () => reexport(video)),
      button("compare", "compare", () => pickOther(video)),
      h("a.button", { href: file(video, "thumbnail"), download: `${video.id}.jpg`, dataset: { act: "poster" } }, icon("image"), t("do.poster")),
      h("a.button", { href: file(video, "last_frame"), download: `${video.id}.png`, dataset: { act: "frame" } }, icon("frame"), t("do.frame"))),
    about(video));
}

function drawFailed(video) {
  const cancelled = video.wanreel.status === "cancelled";
  fill(view.stage, h("div.screen.blank", h("div.empty", icon(cancelled ? "stop" : "warning"),
    h("strong", t(cancelled ? "failed.cancelled" : "failed.title")),
    h("span", cancelled ? t("failed.cancelled.help") : video.error?.message ?? ""),
    cancelled || !video.error ? null : h("span.mono.soft", video.error.code))));
  const { studio } = view;
  const cure = studio.setup.account.can_submit && !cancelled && remedy(video, { studio, cure: (failing, advice) => openCure(failing, studio, advice, adopt) });
  fill(view.under, h("div.buttons", cure,
    h(cure ? "button.button" : "button.primary", { type: "button", onclick: () => retry(video.id), dataset: { act: "retry" } }, icon("retry"), t(video.wanreel.step ? "do.go_on" : "do.retry")),
    h("button.button", { type: "button", onclick: () => view.doing.reuse(video) }, icon("edit"), t("do.reuse"))), about(video));
}

function about(video) {
  const { request, adjustments, notes, cost } = video.wanreel;
  const facts = [["knob.model", request.model], ["size.label", `${request.export_width} × ${request.export_height}`],
    ["length.label", t("length.told", { seconds: (request.num_frames / request.fps).toFixed(2), frames: request.num_frames })], ["knob.seed", String(request.seed)],
    ["knob.num_inference_steps", request.num_inference_steps], ["knob.guidance", request.guidance_high === request.guidance_low ? number(request.guidance_high) : `${number(request.guidance_high)} / ${number(request.guidance_low)}`],
    ["knob.flow_shift", number(request.flow_shift)], ["knob.solver", request.solver], ...(cost === undefined ? [] : [["memory.cost", money(cost)]])];
  const told = [...adjustments.filter((one) => one.field !== "seed").map(sentence), ...notes.map(said)];
  return h("div.about", h("p.about-prompt", video.prompt), h("dl.facts", facts.map(([key, value]) => h("div", h("dt", t(key)), h("dd", value)))),
    told.length > 0 && h("ul.plan-notes", [...new Set(told)].map((note) => h("li", note))), h("div.buttons.relatives"), h("div.upload-place", { role: "status" }));
}

//: The video that this one was made from, and the one that was made in its place.
function drawRelatives(video) {
  const link = (id, key) => h("button.quiet", { type: "button", dataset: { act: key }, onclick: () => choose(id) }, icon(key === "parent" ? "left" : "right"), t(`relative.${key}`));
  const place = $(".relatives", view.under), smaller = video.wanreel.status === "failed" && smallerOf(video), { parent_id: parent } = video.wanreel;
  const key = [parent, smaller?.id].join();
  if (!place || place.dataset.key === key) return;
  place.dataset.key = key;
  fill(place, parent && link(parent, "parent"), smaller && link(smaller.id, "smaller"));
  if (smaller) followSmaller(video, smaller);
}

const smallerOf = (video) => view.recent.find((other) => other.wanreel.parent_id === video.id);

function drawUpload(video) {
  const place = $(".upload-place", view.under), key = JSON.stringify([video.wanreel.status, video.wanreel.upload]);
  if (!place || place.dataset.key === key) return;
  place.dataset.key = key;
  const { storage, account } = view.studio.setup;
  fill(place, uploadLine(video, { names: storage.names, may: account.can_submit, done: (fresh) => draw(jobs.follow(fresh)) }));
}

// What can be done

async function useLastFrame(video, doing) {
  try {
    const response = await api.raw("GET", `/v1/videos/${video.id}/content?variant=last_frame`);
    if (!response.ok) throw new api.ApiError(t("past.gone"));
    await doing.useFrame(await response.blob(), video.id);
  } catch (fault) { failed(fault); }
}

function variations(video) {
  let count = 3;
  const box = dialog(t("variations.title"), [h("p.soft", t("variations.help")),
    choice("variations", { label: t("variations.count"), value: 3, options: [2, 3, 4, 6, 8].map((n) => ({ value: n, text: n })), onpick: (n) => { count = Number(n); } }),
    h("div.buttons", h("button.primary", { type: "button", onclick: async () => {
      box.close();
      try {
        const { request, pictures } = await api.send("POST", `/studio/again/${video.id}`);
        for (let n = 1; n <= count; n += 1) {
          const json = { ...request, seed: video.seed + n };
          for (const [name, picture] of Object.entries(pictures)) json[name] = picture.id;
          adopt(await api.send("POST", "/v1/videos", { json }), { follow: n === 1 });
        }
        toast(t("submitted.many", { n: count }), { kind: "good" });
      } catch (fault) { failed(fault); }
    } }, icon("copies"), t("variations.go")))]);
}

//: What takes back a stage that the video was made with.
const nothing = (made) => ({ trim_start: 0, trim_end: 240, loop: "none", speed: 1, interpolate_fps: made.fps, upscale: 1, upscaler: "lanczos" });

function reexport(video) {
  const made = video.wanreel.request;
  const wanted = { output_format: made.output_format, quality: made.quality, fps: made.fps, ...(made.finishing ?? {}) };
  if (wanted.audio) wanted.audio = { id: null, name: t("knob.audio"), seconds: wanted.audio.seconds };
  if (wanted.upscaler) wanted.upscaler = wanted.upscaler.name;
  const seconds = made.num_frames / made.fps;
  const stages = h("div.details");
  const change = (some) => { Object.assign(wanted, some); if ("audio" in some || "upscaler" in some) drawStages(); };
  const drawStages = () => fill(stages, finishing(wanted, change, { seconds, fps: made.fps, upscalers: view.studio.setup.upscalers }));
  drawStages();
  const box = dialog(t("reexport.title"), [h("p.soft", t("reexport.help")),
    seg("re-format", { label: t("knob.output_format"), value: wanted.output_format, options: ["mp4", "webm", "webp", "gif", "mov"].map((value) => ({ value, text: value.toUpperCase() })), onpick: (value) => { wanted.output_format = value; drawStages(); } }),
    seg("re-quality", { label: t("knob.quality"), value: wanted.quality, options: ["low", "medium", "high", "maximum"].map((value) => ({ value, text: t(`quality.${value}`) })), onpick: (value) => { wanted.quality = value; } }),
    h("div.field", h("label", { htmlFor: "re-fps" }, t("knob.fps")), h("input.input", { id: "re-fps", type: "number", min: 1, max: 120, value: wanted.fps, onchange: (event) => { wanted.fps = Number(event.target.value); } })),
    h("details", { dataset: { part: "finish" } }, h("summary", t("part.finish")), stages),
    h("div.buttons", h("button.primary", { type: "button", onclick: async () => {
      const json = { output_format: wanted.output_format, quality: wanted.quality, fps: wanted.fps, ...(made.finishing ? nothing(made) : {}), ...asked(wanted) };
      try {
        adopt(await api.send("POST", `/v1/videos/${video.id}/export`, { json }));
        box.close();
      } catch (fault) { failed(fault); }
    } }, icon("film"), t("reexport.go")))]);
}

function pickOther(video) {
  const others = view.recent.filter((other) => other.id !== video.id && other.wanreel.status === "completed");
  const box = dialog(t("compare.pick"), others.length
    ? h("div.past", others.map((other) => h("button.past-video.pick", { type: "button", onclick: () => { box.close(); compare(video, other); } },
      h("img", { src: file(other, "thumbnail"), alt: "" }), h("span", other.prompt), h("span.soft", t("seed.told", { seed: other.seed })))))
    : h("div.empty", icon("compare"), t("compare.none")), { wide: true });
}

// The newest ones

async function listRecent() {
  try {
    const { data } = await api.get(`/v1/videos?limit=${RECENT}`);
    view.recent = data.map((video) => jobs.follow(video));
  } catch (fault) {
    if (fault.code !== "offline") failed(fault);
  }
  drawStrip();
  const shown = jobs.known(current);
  if (shown) drawRelatives(shown);
}

function drawStrip() {
  fill(view.strip, view.recent.length > 0 && h("h2", t("recent.title")), h("div.thumbs", view.recent.map(thumb)));
  markThumb();
}

function thumb(video) {
  const { status } = video.wanreel;
  const face = status === "completed" ? h("img", { src: file(video, "thumbnail"), alt: "", loading: "lazy" })
    : h("span.thumb-state", icon({ failed: "warning", cancelled: "stop" }[status] ?? "film"));
  return h("button.thumb", { type: "button", dataset: { id: video.id, status }, title: video.prompt, aria: { label: `${t(`status.${status}`)}: ${video.prompt.slice(0, 120)}` }, onclick: () => choose(video.id) }, face,
    status === "in_progress" || status === "queued" ? h("span.thumb-bar", { style: { "--at": `${video.progress}%` } }) : null);
}

function drawThumb(video) {
  const at = view.recent.findIndex((other) => other.id === video.id);
  if (at < 0) return;
  view.recent[at] = video;
  const old = $(`.thumb[data-id="${video.id}"]`, view.strip);
  if (old && old.dataset.status === video.wanreel.status) $(".thumb-bar", old)?.style.setProperty("--at", `${video.progress}%`);
  else old?.replaceWith(thumb(video));
  markThumb();
}

function markThumb() {
  for (const one of view.strip.querySelectorAll(".thumb")) {
    if (one.dataset.id === current) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  }
}
