// The part of the form for those who know: negative prompt, sampling, output, LoRAs. Only what the model listens to.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { number as said, t } from "../core/i18n.js";
import { checkbox, choice, seg, slider, withFault } from "./controls.js";
import { finishing, told } from "./finishing.js";
import * as form from "./state.js";

//: memory: the panel of plans, which keeps itself.
export function advanced(now, opened, memory) {
  const own = form.official(), one = form.model();
  const part = (name, label, aside, ...content) => h("details", { open: opened.has(name), dataset: { part: name } },
    h("summary", label, aside && h("span.soft.aside", aside)), h("div.details", content));
  return [
    !one.few_step && (own.negative_prompt || form.readsNegative()) && part("negative", t("knob.negative_prompt"), now.negative_prompt === null ? t("official") : t("own"), negative(now, own)),
    part("sampling", t("part.sampling"), "", sampling(now, own, one)),
    memory,
    part("output", t("part.output"), `${now.output_format.toUpperCase()} · ${t(`quality.${now.quality}`)}`, output(now, own)),
    part("finish", t("part.finish"), told(now), finishing(now, form.change, { seconds: form.frames().value / (now.fps ?? own.fps), fps: now.fps ?? own.fps, upscalers: form.upscalers() })),
    part("loras", t("part.loras"), now.loras.length ? String(now.loras.length) : "", loras(now, one)),
  ];
}

function negative(now, own) {
  const area = h("textarea#knob-negative_prompt", {
    rows: 3, value: now.negative_prompt ?? own.negative_prompt, maxLength: form.knob("negative_prompt").maximum,
    oninput: () => form.change({ negative_prompt: area.value === own.negative_prompt ? null : area.value }),
  });
  return withFault(h("div.field", h("label", { htmlFor: "knob-negative_prompt" }, t("negative.label"),
    h("button.quiet", { type: "button", onclick: () => { area.value = own.negative_prompt; form.change({ negative_prompt: null }); } }, t("negative.reset"))), area,
  h("div.help", form.readsNegative() ? t("negative.help") : t("negative.unread"))), "negative_prompt");
}

function sampling(now, own, one) {
  const number = (name, more) => {
    const knob = form.knob(name);
    return slider(name, { label: t(`knob.${name}`), help: t(`knob.${name}.help`), value: now[name] ?? own[name], official: own[name],
      hard: { min: knob.minimum, max: knob.maximum }, onpick: (value) => form.change({ [name]: value }), ...more });
  };
  return [
    !one.few_step && number("num_inference_steps", { min: 1, max: 100, step: 1 }),
    own.solver !== "dmd" && number("flow_shift", { min: 1, max: 20, step: 0.5 }),
    !one.few_step && one.two_experts && h("div.note.tint", icon("info"), h("span", t("experts.note", { percent: said((now.boundary_ratio ?? own.boundary_ratio) * 100, 1) }))),
    !one.few_step && number("guidance_high", { min: 0, max: 12, step: 0.1, ...(one.two_experts ? {} : { label: t("knob.guidance"), help: t("knob.guidance.help") }) }),
    !one.few_step && one.two_experts && number("guidance_low", { min: 0, max: 12, step: 0.1 }),
    !one.few_step && one.two_experts && number("boundary_ratio", { min: 0.5, max: 0.99, step: 0.005 }),
    !one.few_step && number("guided_steps", { min: 0, max: Math.max(8, now.num_inference_steps ?? own.num_inference_steps), step: 1 }),
    one.solvers.length > 1 && choice("solver", { label: t("knob.solver"), help: t("knob.solver.help"), value: now.solver ?? own.solver,
      options: one.solvers.map((name) => ({ value: name, text: name === own.solver ? t("solver.official", { name }) : name })), onpick: (name) => form.change({ solver: name === own.solver ? null : name }) }),
    h("button.quiet", { type: "button", onclick: form.reset }, icon("retry"), t("reset.all")),
  ];
}

function output(now, own) {
  return [
    seg("output_format", { label: t("knob.output_format"), value: now.output_format, onpick: (output_format) => form.change({ output_format }),
      options: form.knob("output_format").choices.map((name) => ({ value: name, text: name.toUpperCase() })), help: t(`format.${now.output_format}.help`) }),
    seg("quality", { label: t("knob.quality"), value: now.quality, onpick: (quality) => form.change({ quality }),
      options: form.knob("quality").choices.map((name) => ({ value: name, text: t(`quality.${name}`) })) }),
    slider("fps", { label: t("knob.fps"), help: t("knob.fps.help", { fps: own.fps }), min: 4, max: 60, step: 1, unit: "fps", value: now.fps ?? own.fps, official: own.fps,
      hard: { min: form.knob("fps").minimum, max: form.knob("fps").maximum }, onpick: (fps) => form.change({ fps }) }),
    form.places().length > 0 && choice("storage", { label: t("knob.storage"), help: t("knob.storage.help"), value: now.storage ?? form.usualPlace(),
      options: form.places().map((name) => ({ value: name, text: name === "local" ? t("storage.local") : name })), onpick: (name) => form.change({ storage: name === form.usualPlace() ? null : name }) }),
    checkbox("metadata", { label: t("knob.metadata"), help: t("knob.metadata.help"), value: now.metadata, onpick: (metadata) => form.change({ metadata }) }),
  ];
}

const shelf = new Map(); // model: the LoRAs that fit it

function loras(now, one) {
  const place = h("div.loras");
  if (shelf.has(one.name)) return fillLoras(place, now, one, shelf.get(one.name));
  api.get(`/v1/loras?model=${encodeURIComponent(one.name)}`).then(({ data }) => {
    const fitting = data.filter((lora) => !lora.fault && lora.fits.some((fit) => fit.model === one.name && fit.ok));
    shelf.set(one.name, fitting);
    if (place.isConnected) fillLoras(place, form.values(), one, fitting);
  }, (fault) => fill(place, h("div.help", fault.message)));
  return fill(place, h("div.help", t("loading")));
}

export const forgetLoras = () => shelf.clear();

function fillLoras(place, now, one, fitting) {
  const free = fitting.filter((lora) => !now.loras.some((used) => used.name === lora.name));
  const change = (list) => form.change({ loras: list });
  return fill(place,
    now.loras.map((used) => loraRow(used, one, (next) => {
      const list = form.values().loras;
      const at = list.findIndex((other) => other.name === used.name);
      if (next === null) change(list.toSpliced(at, 1));
      else { Object.assign(list[at], next); form.change({ prompt: form.values().prompt }); } // sliders keep their place: no redraw
    })),
    free.length ? h("select#add-lora", { aria: { label: t("loras.add") }, onchange: (event) => change([...form.values().loras, { name: event.target.value, strength_high: 1, strength_low: 1 }]) },
      h("option", { value: "", selected: true, disabled: true }, t("loras.add")), free.map((lora) => h("option", { value: lora.name }, lora.name))) : null,
    h("div.help", fitting.length ? t("loras.help") : t("loras.none")));
}

function loraRow(used, one, set) {
  const strength = (name, label) => slider(`${used.name}-${name}`, { label, min: -2, max: 2, step: 0.05, value: used[name], official: 1, hard: { min: -10, max: 10 },
    onpick: (value) => set(one.two_experts ? { [name]: value ?? 1 } : { strength_high: value ?? 1, strength_low: value ?? 1 }) });
  return h("div.lora", h("div.lora-head", h("strong", used.name), h("button.bare", { type: "button", aria: { label: t("loras.remove", { name: used.name }) }, onclick: () => set(null) }, icon("close"))),
    one.two_experts ? [strength("strength_high", t("loras.high")), strength("strength_low", t("loras.low"))] : strength("strength_high", t("loras.strength")));
}
