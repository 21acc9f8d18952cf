// Optimizations: how memory is used. Which plan was chosen and why, what it takes, what else there is, and the knobs for it.
//   const panel = optimizations()   panel.root (kept while the form is drawn anew)   panel.draw()   panel.told(plan | null)   panel.open()
// Arithmetic is the server's (POST /v1/plan); what the operator fixed can't be changed here.
import { clock, fill, h, icon } from "../core/dom.js";
import { money, number, t } from "../core/i18n.js";
import { CHIPS, fit, gigabytes } from "../core/memory.js";
import { parts } from "../parts/notes.js";
import { checkbox, choice, seg } from "./controls.js";
import * as form from "./state.js";

const MODES = ["auto", "fastest", "balanced", "smallest", "custom"];
const TILES = [0, 256, 384, 512, 768];
let serial = 0;

export function optimizations() {
  const aside = h("span.soft.aside"), now = h("div.mem-now"), ways = h("div"), knobs = h("div");
  const root = h("details", { dataset: { part: "memory" } }, h("summary", t("part.memory"), aside), h("div.details", now, ways, knobs));
  let plan = null;

  //: What a plan says anew with each change; the knobs stay, so that nothing is taken from under a hand.
  function told(fresh) {
    plan = fresh;
    fill(aside, plan && (plan.memory.gpu_bytes ? `${t("plan.gb", { gb: gigabytes(plan.memory.gpu_bytes) })} · ${t(`memory.way.${plan.memory.plan}`)}` : t(plan.machine.gpu ? "memory.small" : "memory.cpu")));
    fill(now, plan ? outlook(plan) : h("p.help", t("plan.needs_picture")));
    drawWays();
    drawKnobs();
  }

  function drawWays() {
    const focus = ways.contains(document.activeElement) ? document.activeElement.value : null;
    fill(ways, plan?.alternatives.length > 0 && choices(plan));
    if (focus !== null) [...ways.querySelectorAll("input")].find((input) => input.value === focus)?.focus();
  }

  function drawKnobs() {
    if (knobs.contains(document.activeElement)) return; // drawn again with the form
    fill(knobs, plan && controls(plan));
  }

  return {
    root, told,
    draw() { fill(knobs, plan && controls(plan)); drawWays(); },
    open() { root.open = true; root.scrollIntoView({ block: "start", behavior: "smooth" }); root.firstElementChild.focus({ preventScroll: true }); },
  };
}

// What was chosen

function outlook({ memory, machine, estimate }) {
  if (!memory.gpu_bytes) return h("p.help", t(machine.gpu ? "memory.small.help" : "memory.cpu.help"));
  const fits = fit(memory), bits = memory.precision !== "native" && memory.precision !== "fp16";
  const seconds = estimate.seconds ?? memory.seconds;
  const cost = estimate.cost ?? memory.cost ?? null;
  const fact = (name, value, title) => h("div", { title }, h("dt", name), h("dd", value));
  return [
    h("p.mem-way", h("strong", t(`memory.way.${memory.plan}`)), h(`span.chip.${CHIPS[fits]}`, t(`fit.${fits}`)), bits && h("span.chip.warn", memory.precision), h("span.soft", t(`memory.way.${memory.plan}.help`))),
    h("dl.facts.mem-facts",
      fact(t("memory.gpu"), t("memory.of", { used: gigabytes(memory.gpu_bytes), all: gigabytes(machine.gpu_bytes) }), machine.gpu),
      memory.host_bytes > 0 && fact(t("memory.host"), t("memory.of", { used: gigabytes(memory.host_bytes), all: gigabytes(machine.host_bytes) })),
      memory.parallel.ranks > 1 && fact(t("memory.gpus"), sharing(memory.parallel)),
      fact(t("memory.time"), clock(seconds), estimate.seconds === null ? t("memory.time.predicted") : estimate.basis),
      cost !== null && fact(t("memory.cost"), money(cost)),
      fact(t("memory.result"), t(memory.exact ? "memory.exact" : "memory.rounded"))),
    stages(memory, machine),
    memory.reasons.length > 0 && h("ul.plan-notes.mem-why", memory.reasons.map((reason) => h("li", reason))),
  ];
}

//: How the GPUs of a machine share a video.
function sharing(parallel) {
  const plan = ["cfg", "ulysses", "ring"].filter((part) => parallel[part] > 1).map((part) => `${part} ${parallel[part]}`);
  return `${parallel.ranks}: ${parts([...plan, ...(parallel.fsdp ? ["fsdp"] : [])].join(", "))}`;
}

//: GPU memory of each stage, as bars against what there is.
function stages(memory, machine) {
  const most = Math.max(machine.gpu_bytes, memory.gpu_bytes);
  return h("ul.mem-stages", memory.stages.map((stage) => h("li", { class: stage.peak === memory.gpu_bytes ? "highest" : "" },
    h("span", t(`plan.stage.${stage.stage}`)),
    h("span.mem-bar", { aria: { hidden: "true" } },
      h("span.mem-weights", { style: { width: `${(100 * stage.weights) / most}%` } }), h("span.mem-rest", { style: { width: `${(100 * stage.activations) / most}%` } })),
    h("span.mem-figure", t("plan.gb", { gb: gigabytes(stage.peak) })))));
}

// What else there is

const openTo = (name) => form.memory().choices && !(name in form.memory().fixed);

function choices(plan) {
  const values = form.values(), group = `ways-${(serial += 1)}`;
  const free = values.offload === null && values.precision === null;
  const may = openTo("offload") && openTo("precision");
  const base = plan.memory.seconds || 1;
  const row = ({ value, checked, disabled, label, small, memory, relative, chip, pick }) => h("label.way", { class: disabled ? "off" : "" },
    h("input", { type: "radio", name: group, value, checked, disabled, onchange: pick }),
    h("span.way-name", h("span", label), small && h("small", small)), h("span.way-figure", memory), h("span.way-figure.soft", relative), chip);
  const ask = (offload, precision) => form.change({ offload, precision, ...(values.memory_mode === "custom" ? { memory_mode: null } : {}) });
  return h("fieldset.ways", { disabled: !may }, h("legend", t("memory.ways"), h("span.soft", t("memory.ways.columns"))),
    row({ value: "auto", checked: free, label: t("memory.ways.auto"), small: t(`memory.mode.${values.memory_mode ?? form.memory().fixed.memory_mode ?? "auto"}.short`), pick: () => ask(null, null) }),
    plan.alternatives.map((one) => {
      const bits = one.precision === "native" || one.precision === "fp16" ? null : one.precision;
      const current = one.plan === plan.memory.plan && one.precision === plan.memory.precision;
      return row({
        value: `${one.plan} ${one.precision}`, checked: !free && current, disabled: !one.fits, label: t(`memory.way.${one.plan}`),
        small: [one.plan, bits && t("memory.bits", { precision: bits }), one.fits && one.tile && t("memory.tiles", { size: one.tile }), free && current && t("memory.current")].filter(Boolean).join(" · "),
        memory: t("plan.gb", { gb: gigabytes(one.gpu_bytes) }), relative: one.fits ? t("memory.times", { n: number(one.seconds / base, 2) }) : "",
        chip: one.fits ? null : h("span.chip.bad", t("fit.no")), pick: () => ask(one.plan, bits),
      });
    }));
}

// The knobs

function controls(plan) {
  const values = form.values(), { choices: allowed, fixed } = form.memory();
  const gpu = plan.memory.gpu_bytes > 0;
  const set = (name) => fixed[name] ?? values[name];
  const told = (name) => (name in fixed ? t("memory.fixed") : null);
  const off = (field, name) => { if (!openTo(name)) for (const input of field.querySelectorAll("input, select")) input.disabled = true; return field; };
  const mode = set("memory_mode") ?? "auto";
  const pick = (name, options, help) => off(choice(name, { label: t(`knob.${name}`), help: told(name) ?? help, value: String(set(name) ?? "auto"), options: options.map(([value, text]) => ({ value, text })),
    onpick: (value) => form.change({ [name]: value === "auto" ? null : name === "vae_tile" ? Number(value) : value }) }), name);
  return [
    !allowed && h("p.note", icon("lock"), h("span", t("memory.closed"))),
    gpu && off(seg("memory_mode", { label: t("knob.memory_mode"), value: mode, options: MODES.map((name) => ({ value: name, text: t(`memory.mode.${name}`) })),
      help: told("memory_mode") ?? t(`memory.mode.${mode}.help`), onpick: (name) => form.change({ memory_mode: name === "auto" ? null : name }) }), "memory_mode"),
    h("div.mem-knobs",
      gpu && pick("precision", [["auto", t("memory.auto")], ...form.knob("precision").choices.map((name) => [name, t(`memory.precision.${name}`)])], t("memory.precision.help")),
      gpu && pick("offload", [["auto", t("memory.auto")], ...form.knob("offload").choices.map((name) => [name, t(`memory.way.${name}`)])], t("memory.offload.help")),
      pick("vae_tile", [["auto", t("memory.tile.auto")], ...tiles(set("vae_tile")).map((side) => [String(side), side ? t("memory.tile", { side }) : t("memory.tile.whole")])], t("memory.tile.help")),
      off(choice("on_oom", { label: t("knob.on_oom"), help: t("memory.on_oom.help"), value: values.on_oom ?? form.memory().on_oom,
        options: form.knob("on_oom").choices.map((value) => ({ value, text: t(`memory.on_oom.${value}`) })), onpick: (value) => form.change({ on_oom: value === form.memory().on_oom ? null : value }) }), "")),
    gpu && off(checkbox("quantize", { label: t("knob.quantize"), value: Boolean(set("quantize")), help: told("quantize") ?? t("memory.quantize.help"), onpick: (on) => form.change({ quantize: on || null }) }), "quantize"),
  ];
}

const tiles = (side) => (side === null || side === undefined || TILES.includes(side) ? TILES : [...TILES, side].sort((one, other) => one - other));
