// The sweep: axes of values on one side, and on the other the grid that fills as its cells are made. What all cells have in
// common is what the form of Create says, but for the prompt.
import * as api from "../core/api.js";
import { $, fill, h, icon } from "../core/dom.js";
import { number, t } from "../core/i18n.js";
import * as live from "../core/live.js";
import * as prefs from "../core/prefs.js";
import { failed, toast } from "../core/toast.js";
import * as form from "../create/state.js";
import { ask } from "../parts/ask.js";
import { ago } from "../parts/format.js";
import { fault, loading, notice } from "../parts/notice.js";
import { styled } from "../parts/style.js";
import { EMPTY, count, draft, editor, toAxes } from "./axes.js";

await styled("sweep.css", import.meta.url);

const KINDS = ["sheet", "video", "csv", "json"];
const TONES = { completed: "good", failed: "bad", cancelled: "warn", in_progress: "tint", queued: "tint" };
let stops = []; // of the newest mount

export function mount(root, studio) {
  form.open(studio.setup);
  const may = studio.setup.account.can_submit;
  const parts = { form: h("form.sw-form", { novalidate: true, aria: { label: t("sweep.form") }, onsubmit: (event) => { event.preventDefault(); submit(); } }), list: h("div.sw-list"), one: h("div.sw-one") };
  let sweep = null, shown = false, again = null, sent = false;

  stops.forEach((stop) => stop());
  stops = [live.on(heard), live.onResync(soon), form.onChange(() => { if (shown) drawForm(); })];
  fill(root, h("h1", t("nav.sweep")), h("div.sw-screen", may && h("div.sw-side", parts.form), h("div.sw-main", parts.list, parts.one)));
  drawForm();

  // What is asked

  function drawForm() {
    const now = draft();
    const kept = document.activeElement?.id;
    const cells = count(now);
    const most = 64;
    const prompt = h("textarea#sw-prompt", { rows: 3, value: now.prompt, placeholder: t("sweep.prompt.hint"), oninput: () => change({ prompt: prompt.value }, false) });
    const title = h("input#sw-title", { type: "text", maxLength: 200, value: now.title, placeholder: t("sweep.title.hint"), oninput: () => change({ title: title.value }, false) });
    fill(parts.form,
      h("div.field", h("label", { htmlFor: "sw-prompt" }, t("knob.prompt")), prompt),
      h("fieldset.sw-axes", h("legend", t("sweep.axes")), editor(now, studio.setup, (axes, redraw) => change({ axes }, redraw)),
        h("div.help", t("sweep.axes.help"))),
      h("div.field", h("label", { htmlFor: "sw-title" }, t("sweep.title")), title),
      h("p.sw-base.soft", icon("info"), h("span", t("sweep.base", { model: form.model().title, steps: form.values().num_inference_steps ?? form.official().num_inference_steps }), " ", h("a", { href: "#/create" }, t("sweep.base.change")))),
      h("p.sw-count", { role: "status", class: cells > most ? "sw-much" : "" }, cells > most ? t("sweep.too_many", { count: number(cells), most }) : t("sweep.count", { count: number(cells) })),
      h("div.fault#sw-fault", { hidden: true, role: "alert" }),
      h("button.primary.big#sw-make", { type: "submit", disabled: sent || !cells || cells > most }, icon("sweep"), t("sweep.make", { count: number(cells) })));
    if (kept?.startsWith("s-")) document.getElementById(kept)?.focus();
  }

  function change(some, redraw = true) {
    prefs.set("sweep", { ...draft(), ...some });
    if (redraw) return drawForm();
    const cells = count(draft());
    const place = $(".sw-count", parts.form), button = $("#sw-make", parts.form);
    place.classList.toggle("sw-much", cells > 64);
    fill(place, cells > 64 ? t("sweep.too_many", { count: number(cells), most: 64 }) : t("sweep.count", { count: number(cells) }));
    button.disabled = sent || !cells || cells > 64;
    fill(button, icon("sweep"), t("sweep.make", { count: number(cells) }));
  }

  async function submit() {
    const now = draft(), base = form.toRequest();
    const axes = toAxes(now);
    if (base.seed < 0) delete base.seed;
    for (const name of Object.keys(axes)) delete base[name === "guidance" ? "guidance_scale" : name];
    const json = { ...base, axes, ...(now.title.trim() ? { title: now.title.trim() } : {}) };
    if (now.prompt.trim()) json.prompt = now.prompt;
    else delete json.prompt;
    sent = true;
    tell(null);
    drawForm();
    try {
      sweep = await api.send("POST", "/v1/sweeps", { json, headers: { "Idempotency-Key": crypto.randomUUID() } });
      toast(t("sweep.queued", { count: sweep.cells.length }), { kind: "good" });
      draw();
      readList();
    } catch (error) {
      sent = false;
      drawForm();
      tell(error);
    } finally {
      sent = false;
      drawFormButton();
    }
  }

  function drawFormButton() {
    const button = $("#sw-make", parts.form);
    const cells = count(draft());
    if (button) button.disabled = !cells || cells > 64;
  }

  function tell(error) {
    const place = $("#sw-fault", parts.form);
    if (!place) return;
    place.hidden = !error;
    fill(place, error ? [icon("warning"), h("span", error.problems?.length ? error.problems.map((one) => `${one.message} ${one.hint}`.trim()).join(" ") : `${error.message} ${error.hint}`.trim())] : null);
  }

  // What there is

  async function readList() {
    try {
      const { data } = await api.get("/v1/sweeps?limit=12");
      drawList(data);
      if (!sweep && data.length) { sweep = data[0]; draw(); }
      if (!sweep) fill(parts.one, notice({ mark: "sweep", title: t("sweep.none"), text: t("sweep.none.text") }));
    } catch (error) {
      fill(parts.one, fault(error, readList));
    }
  }

  function drawList(data) {
    fill(parts.list, data.length > 1 || (data.length === 1 && data[0].id !== sweep?.id) ? h("nav.sw-recent", { aria: { label: t("sweep.recent") } }, data.map((one) =>
      h("button.quiet", { type: "button", aria: { pressed: String(one.id === sweep?.id) }, onclick: () => { open(one.id); } },
        h("span.sw-name", one.title), h("span.soft", ago(one.created_at))))) : null);
  }

  async function open(id) {
    try {
      sweep = await api.get(`/v1/sweeps/${id}`);
      draw();
      readList();
    } catch (error) {
      failed(error);
    }
  }

  function soon() {
    clearTimeout(again);
    again = setTimeout(async () => {
      if (!shown || !sweep) return;
      try {
        sweep = await api.get(`/v1/sweeps/${sweep.id}`);
        draw();
      } catch (error) {
        if (error.status === 404) { sweep = null; readList(); }
      }
    }, 250);
  }

  function heard(event) {
    if (!shown || !sweep) return;
    const cell = sweep.cells.find((one) => one.video === event.job_id);
    if (!cell) return;
    if (event.kind !== "step") return soon();
    const tile = $(`[data-cell="${cell.number}"]`, parts.one);
    if (!tile || cell.status !== "in_progress") return soon();
    cell.progress = Math.round(95 * (event.step / Math.max(1, event.total_steps)));
    const bar = $(".meter > *", tile);
    if (bar) bar.style.setProperty("width", `${cell.progress}%`);
    const picture = $("img.sw-preview", tile);
    if (picture) picture.src = api.address(`/v1/videos/${cell.video}/preview?at=${event.seq}`);
  }

  function draw() {
    if (!sweep) return;
    const busy = sweep.status === "queued" || sweep.status === "in_progress";
    const missing = sweep.cells.some((cell) => cell.status === "failed" || cell.status === "cancelled");
    const tool = (name, mark, text, run, kind = "button.quiet") => h(kind, { type: "button", dataset: { act: name }, onclick: run }, icon(mark), text);
    fill(parts.one,
      h("div.sw-head", h("h2", sweep.title), h("span.chip.sw-status", { class: TONES[sweep.status] }, t(`sweep.status.${sweep.status}`)),
        h("div.sw-tools",
          busy && may && tool("cancel", "stop", t("sweep.stop"), () => act("cancel")),
          !busy && missing && may && tool("retry", "retry", t("sweep.retry"), () => act("retry")),
          may && tool("delete", "trash", t("sweep.delete"), remove))),
      h("div.meter", { role: "progressbar", aria: { valuenow: String(sweep.progress), valuemin: "0", valuemax: "100", label: t("sweep.progress") } }, h("div", { style: { width: `${sweep.progress}%` } })),
      sweep.error && h("p.sw-error", { role: "alert" }, sweep.error),
      h("div.sw-grid", { role: "list", aria: { label: t("sweep.grid") }, style: { "--columns": String(sweep.columns) } }, sweep.cells.map(tile)),
      made());
  }

  function tile(cell) {
    const words = cell.labels.join(" · ");
    const picture = {
      completed: () => h("img", { src: api.address(`/v1/videos/${cell.video}/content?variant=thumbnail`), alt: words, loading: "lazy" }),
      in_progress: () => [h("img.sw-preview", { src: api.address(`/v1/videos/${cell.video}/preview?at=0`), alt: words, onerror: (event) => { event.target.hidden = true; }, onload: (event) => { event.target.hidden = false; } }),
        h("div.meter", h("div", { style: { width: `${cell.progress}%` } }))],
      failed: () => icon("warning"), cancelled: () => icon("stop"), queued: () => icon("history"),
    }[cell.status]();
    const box = h("a.sw-cell", { href: `#/create?id=${cell.video}`, role: "listitem", dataset: { cell: String(cell.number), status: cell.status }, title: cell.error ?? words,
      onmouseenter: () => play(box, cell), onmouseleave: () => rest(box), onfocus: () => play(box, cell), onblur: () => rest(box) },
    h("span.sw-picture", picture), h("span.sw-words", cell.labels.map((label) => h("span", label))), cell.error && h("span.sw-error", cell.error));
    return box;
  }

  //: The cell's video in the place of its picture, as long as somebody looks at it.
  function play(box, cell) {
    if (cell.status !== "completed" || $("video", box) || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const video = h("video", { src: api.address(`/v1/videos/${cell.video}/content`), muted: true, loop: true, autoplay: true, playsInline: true, aria: { hidden: "true" } });
    video.addEventListener("playing", () => video.classList.add("sw-plays"));
    $(".sw-picture", box).append(video);
  }

  const rest = (box) => $("video", box)?.remove();

  //: What was made of the cells: the sheet and the video here, the tables to save.
  function made() {
    const there = KINDS.filter((kind) => kind in sweep.files);
    if (!there.length) return sweep.status === "completed" ? loading() : null;
    const at = (kind) => api.address(`/v1/sweeps/${sweep.id}/content?variant=${kind}&of=${sweep.files[kind].sha256.slice(0, 12)}`);
    return h("section.sw-made", { aria: { label: t("sweep.made") } }, h("h2", t("sweep.made")),
      h("div.sw-both", h("figure", h("img.sw-sheet", { src: at("sheet"), alt: t("sweep.file.sheet") }), h("figcaption", t("sweep.file.sheet"))),
        h("figure", h("video.sw-film", { src: at("video"), controls: true, loop: true, muted: true, playsInline: true, aria: { label: t("sweep.file.video") } }), h("figcaption", t("sweep.file.video")))),
      h("div.sw-files", there.map((kind) => h("a.quiet", { href: at(kind), download: sweep.files[kind].name }, icon("download"), t(`sweep.file.${kind}`)))));
  }

  async function act(what) {
    try {
      sweep = await api.send("POST", `/v1/sweeps/${sweep.id}/${what}`);
      draw();
    } catch (error) {
      failed(error);
    }
  }

  async function remove() {
    const agreed = await ask({ title: t("sweep.delete.title"), text: t("sweep.delete.text", { count: sweep.cells.length }), agree: t("sweep.delete"), danger: true });
    if (!agreed) return;
    try {
      await api.send("DELETE", `/v1/sweeps/${sweep.id}`);
      sweep = null;
      fill(parts.one, null);
      readList();
    } catch (error) {
      failed(error);
    }
  }

  return {
    show(params) {
      shown = true;
      if (!draft().prompt && form.values().prompt) prefs.set("sweep", { ...EMPTY, ...draft(), prompt: form.values().prompt });
      drawForm();
      if (params.id) open(params.id);
      else if (sweep) soon();
      else { fill(parts.one, loading()); readList(); }
    },
    hide() { shown = false; },
  };
}
