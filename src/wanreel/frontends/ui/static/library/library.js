// The library: videos or still pictures, search, filters, the gallery and what is done with several videos at once.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { has, moment, number, t } from "../core/i18n.js";
import * as live from "../core/live.js";
import { failed, toast } from "../core/toast.js";
import { ask } from "../parts/ask.js";
import { fault, loading, notice } from "../parts/notice.js";
import { uploadWords } from "../parts/upload.js";
import { styled } from "../parts/style.js";
import { openDetails } from "./details.js";
import { dropZone, restoreButton } from "./drop.js";
import { Grid } from "./grid.js";
import { Shelf } from "./shelf.js";
import { Sample } from "./sample.js";
import { count as picturesOf, fileOf, isStill } from "./stills.js";

await styled("library.css", import.meta.url);

const MOST_AT_ONCE = 500;
const MODES = ["text", "picture", "first_last"];
const STATES = ["completed", "failed", "cancelled"];
const MAKES = ["videos", "images"];
const START = { search: "", model: "", mode: "", status: "completed", favourite: "", since: "", until: "", order: "desc" };

const query = { makes: "videos", ...START }; // kept while the page lives, whatever screen is open
const chosen = new Set();
let stops = []; // of the newest mount's listeners

export function mount(root, studio) {
  const shelf = new Shelf(draw);
  const sample = new Sample();
  const count = h("p.l-count", { role: "status" });
  const gallery = h("div");
  const state = h("div");
  const several = h("div.l-several", { hidden: true, role: "group", aria: { label: t("library.several") } });
  const kinds = h("div.seg.l-kinds", { role: "radiogroup", aria: { label: t("library.kind") } }, MAKES.map((makes) =>
    h("label", h("input", { type: "radio", name: "l-kind", value: makes, checked: query.makes === makes, onchange: () => narrow({ makes, model: "", mode: "" }) }), t(`library.${makes}`))));
  const models = h("select", { aria: { label: t("library.model") }, onchange: (event) => narrow({ model: event.target.value }) });
  const form = filters();
  const grid = new Grid(gallery, {
    label: t("library.title"),
    smallest: () => (gallery.clientWidth < 500 ? 150 : 230),
    heightOf: (width) => Math.round(width * 9 / 16) + 60,
    draw: card,
  });
  let stale = null, shown = false;

  fill(root, h("div.l-screen",
    h("div.l-head", h("h1", t("library.title")), kinds, count, studio.setup.account.can_submit && restoreButton(studio)),
    form, several, state, gallery));
  dropZone(root, studio);
  gallery.addEventListener("keydown", keys);

  stops.forEach((stop) => stop());
  stops = [
    live.on((event) => { if (["completed", "failed", "cancelled", "queued"].includes(event.kind)) soon(); }),
    live.onResync(soon),
  ];

  function soon() {
    clearTimeout(stale);
    stale = setTimeout(() => { if (shown) shelf.refresh(); }, 400);
  }

  // Searching

  function filters() {
    let typed = null;
    const search = h("input", {
      type: "search", placeholder: t("library.search.hint"), value: query.search, maxLength: 200, aria: { label: t("library.search") },
      oninput: (event) => { clearTimeout(typed); typed = setTimeout(() => narrow({ search: event.target.value.trim() }), 250); },
    });
    const pick = (name, values, words) => h("select", { aria: { label: t(`library.${name}`) }, onchange: (event) => narrow({ [name]: event.target.value }) },
      values.map((value) => h("option", { value, selected: query[name] === value }, words(value))));
    const day = (name) => h("label.l-day", t(`library.${name}`), h("input", { type: "date", value: query[name], onchange: (event) => narrow({ [name]: event.target.value }) }));
    const star = h("button.l-star", {
      type: "button", aria: { pressed: String(query.favourite === "true") },
      onclick: (event) => {
        const on = query.favourite !== "true";
        event.currentTarget.setAttribute("aria-pressed", String(on));
        narrow({ favourite: on ? "true" : "" });
      },
    }, icon("star"), t("library.favourites"));
    const more = h("button.quiet.l-more", { type: "button", aria: { expanded: "false", controls: "l-narrow" }, onclick: () => more.setAttribute("aria-expanded", String(more.getAttribute("aria-expanded") !== "true")) }, icon("settings"), t("library.filters"));
    return h("form.l-filters", { role: "search", onsubmit: (event) => event.preventDefault() },
      h("div.l-search", icon("search"), search), star, more,
      h("div#l-narrow", pick("status", [...STATES, ""], (value) => t(`library.status.${value || "all"}`)),
      models,
      h("span.l-of-videos", pick("mode", ["", ...MODES], (value) => t(`library.mode.${value || "all"}`))),
      day("since"), day("until"),
      pick("order", ["desc", "asc"], (value) => t(`library.order.${value}`))));
  }

  function narrow(change) {
    Object.assign(query, change);
    clearChosen();
    if (change.makes) root.querySelector(".l-filters").replaceWith(filters());
    look();
  }

  function look() {
    fill(state, loading());
    gallery.hidden = true;
    const since = query.since && new Date(`${query.since}T00:00`).getTime() / 1000;
    const until = query.until && new Date(`${query.until}T00:00`).getTime() / 1000 + 86400;
    return shelf.search({ ...query, since, until });
  }

  // Drawing

  function draw() {
    if (!root.isConnected) return;
    const isNarrow = Object.keys(START).some((name) => name !== "order" && query[name] !== START[name]);
    fill(models, h("option", { value: "" }, t("library.model.all")), Object.entries(shelf.shape?.models ?? {}).map(([name, many]) =>
      h("option", { value: name, selected: query.model === name }, `${title(name)} (${number(many)})`)));
    fill(count, shelf.shape ? words("count", shelf.total) : "");
    gallery.hidden = !shelf.total || !!shelf.error;
    if (shelf.error) fill(state, fault(shelf.error, look));
    else if (!shelf.shape) fill(state, loading());
    else if (!shelf.total) fill(state, isNarrow
      ? notice({ mark: "search", title: words("none"), text: t("library.none.hint"), button: { text: t("library.none.clear"), run: clear } })
      : stills() ? notice({ mark: "image", title: t("library.empty"), text: t("library.still.empty.hint") })
        : notice({ title: t("library.empty"), text: t("library.empty.hint"), button: { text: t("library.empty.go"), run: () => studio.go("create") } }));
    else fill(state);
    grid.reset(shelf.total);
    drawSeveral();
  }

  function clear() {
    Object.assign(query, START);
    root.querySelector(".l-filters").replaceWith(filters());
    look();
  }

  const stills = () => query.makes === "images";

  //: Words about so many of what is shown.
  function words(name, many = null, more = {}) {
    const key = stills() ? `library.still.${name}` : `library.${name}`;
    return t(many === 1 && has(`${key}.one`) ? `${key}.one` : key, { count: number(many ?? 0), ...more });
  }

  const title = (name) => studio.setup.models.find((model) => model.name === name)?.title ?? name;

  function card(index) {
    const video = shelf.at(index);
    if (!video) return h("div.l-card.l-blank", { role: "group", tabIndex: -1, dataset: { main: "" }, aria: { busy: "true", label: t("parts.loading") } });
    const { favourite, status } = video.wanreel;
    const still = isStill(video);
    const length = still ? picturesOf(video) > 1 && t("library.still.several", { count: number(picturesOf(video)) }) : `${number(Number(video.seconds), 1)} s`;
    const frame = h("span.l-frame", picture(video), status === "completed" ? length && h("span.l-length", length) : h(`span.l-state.${status}`, t(`library.status.${status}`)), status === "completed" && copied(video.wanreel.upload));
    const open = h("button.l-open", {
      type: "button", dataset: { main: "" }, aria: { label: t("library.open", { prompt: video.prompt, model: title(video.model), when: moment(video.created_at) }) },
      onclick: () => show(index),
    }, frame, h("span.l-words", video.prompt), h("span.l-facts", `${title(video.model)} · ${video.size.replace("x", " × ")}`));
    if (status === "completed" && !still) sample.attach(open, frame, video.id);
    const mark = h("button.l-mark", {
      type: "button", title: t("library.favourite"), aria: { label: t("library.favourite"), pressed: String(favourite) }, onclick: () => favour(video),
    }, icon("star"));
    const tick = h("input.l-tick", {
      type: "checkbox", checked: chosen.has(video.id), aria: { label: t("library.choose", { prompt: video.prompt }) }, onchange: (event) => choose(video.id, event.target.checked),
    });
    return h("div.l-card", { class: chosen.has(video.id) ? "chosen" : "", dataset: { id: video.id } }, open, tick, mark);
  }

  function picture(video) {
    const mark = isStill(video) ? "image" : "film";
    if (video.wanreel.status !== "completed") return icon(mark);
    const image = h("img", { src: fileOf(video, "thumbnail"), alt: "", decoding: "async" });
    image.addEventListener("error", () => image.replaceWith(icon(mark)), { once: true });
    return image;
  }

  // One video

  async function show(index) {
    const video = await shelf.wait(index);
    if (!video) return;
    openDetails(video, studio, {
      position: () => ({ at: index + 1, of: shelf.total }),
      step: async (by) => {
        const next = Math.max(0, Math.min(shelf.total - 1, index + by));
        if (next === index) return null;
        index = next;
        return shelf.wait(index);
      },
      favour, remove: (video) => remove([video.id]), closed: () => grid.focus(index),
    });
  }

  async function favour(video) {
    try {
      const path = `/v1/videos/${video.id}/favourite`;
      const after = await api.send(video.wanreel.favourite ? "DELETE" : "PUT", path);
      shelf.put(after);
      return after;
    } catch (error) {
      failed(error);
      return video;
    }
  }

  function keys(event) {
    const video = shelf.at(grid.current);
    if (!video || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Delete" || event.key === "Backspace") remove(chosen.size ? [...chosen] : [video.id]);
    else if (event.key === "f") favour(video);
    else if (event.key === "x") choose(video.id, !chosen.has(video.id));
    else if (event.key === "Escape" && chosen.size) clearChosen();
    else return;
    event.preventDefault();
  }

  // Several videos

  function choose(id, on) {
    if (on && chosen.size >= MOST_AT_ONCE) toast(t("library.most", { most: MOST_AT_ONCE }));
    else if (on) chosen.add(id);
    else chosen.delete(id);
    for (const card of gallery.querySelectorAll(".l-card[data-id]")) {
      card.classList.toggle("chosen", chosen.has(card.dataset.id));
      card.querySelector(".l-tick").checked = chosen.has(card.dataset.id);
    }
    drawSeveral();
  }

  function clearChosen() {
    for (const id of [...chosen]) choose(id, false);
  }

  function drawSeveral() {
    several.hidden = !chosen.size;
    if (!chosen.size) return;
    const many = number(chosen.size);
    fill(several, h("strong", { role: "status" }, t(chosen.size === 1 ? "library.chosen.one" : "library.chosen", { count: many })),
      h("button.button", { type: "button", onclick: download }, icon("download"), t("library.download")),
      h("button.danger", { type: "button", onclick: () => remove([...chosen]) }, icon("trash"), t("library.delete")),
      h("button.quiet", { type: "button", onclick: clearChosen }, t("library.clear")));
  }

  //: A form, so that the browser saves the answer while it comes instead of holding it.
  function download() {
    const form = h("form", { method: "post", action: api.address("/v1/library/download"), hidden: true },
      h("input", { type: "hidden", name: "ids", value: [...chosen].join(",") }));
    document.body.append(form);
    form.submit();
    form.remove();
  }

  async function remove(ids) {
    const one = ids.length === 1;
    const agreed = await ask({
      title: words(one ? "delete.one" : "delete.title", ids.length),
      text: t("library.delete.text"), agree: t("library.delete"), danger: true,
    });
    if (!agreed) return false;
    try {
      for (let from = 0; from < ids.length; from += MOST_AT_ONCE) {
        const { deleted, kept } = await api.send("POST", "/v1/library/delete", { json: { ids: ids.slice(from, from + MOST_AT_ONCE) } });
        deleted.forEach((id) => chosen.delete(id));
        if (kept.length) toast(t("library.kept", { count: kept.length }), { kind: "bad", hint: kept[0].message });
        else toast(words("deleted", deleted.length), { kind: "good" });
      }
      await shelf.refresh();
      if (shelf.total) grid.focus(grid.current);
      return true;
    } catch (error) {
      failed(error);
      return false;
    }
  }

  return {
    show(params) {
      shown = true;
      if (shelf.shape === null) look();
      else shelf.refresh();
      if (params?.id) api.get(`/v1/videos/${params.id}`).then((video) =>
        openDetails(video, studio, { position: () => null, step: async () => null, favour, remove: (one) => remove([one.id]), closed: () => {} }), failed);
    },
    hide() {
      shown = false;
      sample.stop();
    },
  };
}

//: A mark for what is copied elsewhere, or should be.
const copied = (upload) => (upload ? h("span.l-copy", { class: upload.state, title: uploadWords(upload), role: "img", aria: { label: uploadWords(upload) } }, icon(upload.state === "done" ? "check" : "upload")) : null);
