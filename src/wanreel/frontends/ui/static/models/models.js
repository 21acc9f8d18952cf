// Models: what is here, what can be fetched and how far that is, and the shelf of LoRAs.
import * as api from "../core/api.js";
import { $, fill, h, icon } from "../core/dom.js";
import { number, t } from "../core/i18n.js";
import * as memory from "../core/memory.js";
import { failed, toast } from "../core/toast.js";
import { ask } from "../parts/ask.js";
import { bytes } from "../parts/format.js";
import { fault, loading } from "../parts/notice.js";
import { styled } from "../parts/style.js";
import { LoraShelf } from "./loras.js";

await styled("models.css", import.meta.url);

const REST = 1500; // ms between two looks while something is on its way
const BUSY = ["starting", "downloading", "verifying"];
const PATIENCE = 600_000; // ms until an order that no worker obeyed is no longer told

let timer = null, shown = false;
let order = null; // {verb, model, at}: asked of the workers, not yet done. The newest is the one that counts.

export function mount(root, studio) {
  const here = h("div.m-list"), there = h("div.m-list"), state = h("div");
  const shelf = new LoraShelf(studio);
  const admin = studio.setup.account.admin;
  const part = (name, body) => h("section.m-part", { aria: { labelledby: `m-${name}` } }, h(`h2#m-${name}`, t(`models.${name}`)), body);
  const parts = [part("installed", here), shelf.root, part("available", there)];
  fill(root, h("h1", t("models.title")), state, parts);
  fill(state, loading());
  let before = "", workers = [];
  document.addEventListener("visibilitychange", () => { if (shown && !document.hidden) read(); });

  async function read() {
    clearTimeout(timer);
    if (!shown || document.hidden) return;
    try {
      const [{ data }, system] = await Promise.all([api.get("/v1/models"), admin ? api.get("/v1/system") : { workers: [] }, memory.look()]);
      workers = system.workers.filter((worker) => worker.alive);
      if (order && (obeyed() || Date.now() - order.at > PATIENCE)) order = null;
      draw(data);
      const installed = data.filter((model) => model.installed).map((model) => model.id).join();
      if (before && before !== installed) studio.refresh(); // Create offers what is here
      before = installed;
      if (order || data.some((model) => BUSY.includes(model.download?.state))) timer = setTimeout(read, REST);
    } catch (error) {
      fill(state, fault(error, read));
    }
  }

  const holders = (id) => workers.filter((worker) => worker.model === id);
  const obeyed = () => (order.verb === "load" ? workers.every((worker) => worker.model === order.model) : !holders(order.model).length);

  function draw(models) {
    fill(state);
    const focus = document.activeElement?.dataset.keep;
    const [mine, others] = [models.filter((model) => model.installed), models.filter((model) => !model.installed)];
    fill(here, mine.map(card));
    fill(there, others.map(card));
    parts[2].hidden = !others.length;
    if (focus) $(`[data-keep="${focus}"]`, root)?.focus({ preventScroll: true });
  }

  function card(model) {
    const facts = studio.setup.models.find((one) => one.name === model.id);
    return h("article.card.m-card", { dataset: { id: model.id }, aria: { labelledby: `m-${model.id}` } },
      h("div.m-top", h(`h3`, { id: `m-${model.id}` }, model.title), model.qualified ? h("span.chip.good", { title: t("models.qualified.hint") }, icon("check"), t("models.qualified")) : null,
        holders(model.id).length > 0 && h("span.chip.tint", { title: t("models.held.hint", { workers: holders(model.id).map((worker) => worker.description).join(", ") }) }, t("models.held"))),
      h("p.soft.m-id.mono", model.id),
      h("div.m-chips", model.modes.map((mode) => h("span.chip.tint", t(`library.mode.${mode}`))), facts?.few_step && h("span.chip", t("models.few"))),
      h("dl.m-facts",
        fact("parameters", model.parameters), fact("size", model.size_bytes === null ? null : bytes(model.size_bytes)), fact("licence", model.licence),
        fact("gpu", needs(model.id)), fact("sizes", model.sizes.join(", ").replaceAll("x", " × ")), fact("length", t("models.length.value", { frames: number(model.num_frames), seconds: number(model.num_frames / model.fps, 1) })),
        fact("steps", number(model.num_inference_steps))),
      progress(model),
      order?.model === model.id && h("p.soft.m-asked", { role: "status" }, h("span.p-spin.m-spin"), h("span", t(`models.asked.${order.verb}`))),
      admin && h("div.buttons", actions(model)));
  }

  const fact = (name, value) => value && [h("dt", t(`models.${name}`)), h("dd", value)];

  function needs(id) {
    const known = memory.known(id), fits = memory.fit(known);
    return fits && [t("models.gpu.value", { gb: memory.gigabytes(known.gpu_bytes) }), " ", h(`span.chip.${memory.CHIPS[fits]}`, t(`fit.${fits}`))];
  }

  function progress({ id, download }) {
    if (!download || download.state === "complete") return null;
    const { state: now, received_bytes: got, total_bytes: all, message } = download;
    const share = all ? got / all : 0;
    const busy = BUSY.includes(now);
    const bad = now === "failed" || now === "damaged";
    return h("div.m-progress",
      busy || now === "paused" || now === "interrupted" ? h("div.meter", { role: "progressbar", aria: { label: t(`models.state.${now}`), valuemin: 0, valuemax: 100, valuenow: Math.floor(share * 100) } }, h("div", { style: { width: `${share * 100}%` } })) : null,
      h(`p.${bad ? "fault" : "soft"}`, { id: `m-told-${id}` }, bad && icon("warning"),
        h("span", t(`models.state.${now}`), all ? ` · ${t("stats.of", { used: bytes(got), all: bytes(all) })} (${number(share * 100)} %)` : "", message ? ` · ${message}` : "")));
  }

  function actions(model) {
    const now = model.download?.state;
    const press = (name, mark, run, kind = "quiet") => h(`button.${kind}`, { type: "button", dataset: { keep: `${name} ${model.id}` }, aria: { label: `${t(`models.${name}`)}: ${model.title}` }, onclick: run }, icon(mark), t(`models.${name}`));
    if (now === "starting" || now === "downloading") return press("pause", "pause", () => act(model, "pull/pause"));
    if (now === "verifying") return null;
    const found = [];
    const fetched = model.repository !== null && !model.builtin;
    if (fetched && !model.installed) found.push(press(now === "paused" || now === "interrupted" || now === "failed" ? "resume" : "pull", "download", () => pull(model), "primary"));
    if (fetched && model.installed && now === "damaged") found.push(press("mend", "download", () => act(model, "pull"), "primary"));
    const held = holders(model.id).length;
    if (model.installed && held < workers.length && now !== "damaged") found.push(press("load", "play", () => command(model, "load")));
    if (held) found.push(press("unload", "stop", () => command(model, "unload")));
    if (fetched && model.installed) found.push(press("verify", "check", () => act(model, "verify")));
    if (fetched && (model.installed || now)) found.push(press("delete", "trash", () => remove(model), "danger"));
    return found;
  }

  async function act(model, what, method = "POST") {
    try {
      const answer = await api.send(method, `/v1/models/${encodeURIComponent(model.id)}${what ? `/${what}` : ""}`);
      await read();
      return answer;
    } catch (error) {
      failed(error);
      return null;
    }
  }

  //: 202: the workers do it when they can. Looked at until they have.
  async function command(model, verb) {
    try {
      await api.send("POST", `/v1/models/${encodeURIComponent(model.id)}/${verb}`);
      order = { verb, model: model.id, at: Date.now() };
      await read();
    } catch (error) {
      failed(error);
    }
  }

  async function pull(model) {
    const terms = t("models.pull.text", { licence: model.licence, from: model.repository });
    if (await ask({ title: t("models.pull.title", { title: model.title }), text: terms, agree: t("models.pull") })) act(model, "pull");
  }

  async function remove(model) {
    const agreed = await ask({ title: t("models.delete.title", { title: model.title }), text: t("models.delete.text"), agree: t("models.delete"), danger: true });
    const answer = agreed && (await act(model, "", "DELETE"));
    if (answer) toast(t("models.deleted", { size: bytes(answer.freed_bytes) }), { kind: "good" });
  }

  return {
    show() {
      shown = true;
      read();
      shelf.read();
    },
    hide() {
      shown = false;
      clearTimeout(timer);
    },
  };
}
