// Finishing: what is done to the video between decoder and file. For the form, and for writing a finished video again.
//   KNOBS   asked(values) -> those that ask for something   told(values) -> words for the summary
//   finishing(values, set(some), {seconds, fps, upscalers}) -> elements; null means that a stage does nothing
import * as api from "../core/api.js";
import { h, icon } from "../core/dom.js";
import { number, t } from "../core/i18n.js";
import { failed } from "../core/toast.js";
import { choice, seg, slider, withFault } from "./controls.js";

export const KNOBS = ["trim_start", "trim_end", "loop", "speed", "interpolate_fps", "upscale", "upscaler", "audio"];
const LOOPS = ["none", "boomerang", "seamless"];
const RATES = [24, 30, 48, 60];
const SIZES = [1, 1.5, 2, 3, 4];
const ANIMATIONS = ["gif", "webp"];

const active = (name, value) => value !== null && value !== undefined && !(name === "loop" && value === "none");

export function asked(values) {
  const found = {};
  for (const name of KNOBS) if (active(name, values[name])) found[name] = name === "audio" ? values.audio.id : values[name];
  if (!found.audio) delete found.audio; // what a finished video has already
  return found;
}

export function told(values) {
  const count = Object.keys(asked(values)).length;
  return count ? number(count) : "";
}

export function finishing(values, set, { seconds, fps, upscalers }) {
  const whole = Math.round(seconds * 100) / 100;
  return [
    slider("trim_start", { label: t("knob.trim_start"), help: t("knob.trim_start.help"), unit: "s", min: 0, max: whole, step: 0.05, value: values.trim_start ?? 0, official: 0, hard: { min: 0, max: 240 }, onpick: (value) => set({ trim_start: value }) }),
    slider("trim_end", { label: t("knob.trim_end"), help: t("knob.trim_end.help"), unit: "s", min: 0, max: whole, step: 0.05, value: values.trim_end ?? whole, official: whole, hard: { min: 0, max: 240 }, onpick: (value) => set({ trim_end: value }) }),
    seg("loop", { label: t("knob.loop"), help: t("knob.loop.help"), value: values.loop ?? "none", options: LOOPS.map((value) => ({ value, text: t(`loop.${value}`) })), onpick: (value) => set({ loop: value === "none" ? null : value }) }),
    slider("speed", { label: t("knob.speed"), help: t("knob.speed.help"), unit: "×", min: 0.25, max: 4, step: 0.05, value: values.speed ?? 1, official: 1, onpick: (value) => set({ speed: value }) }),
    choice("interpolate_fps", { label: t("knob.interpolate_fps"), help: t("knob.interpolate_fps.help"), value: values.interpolate_fps ?? "",
      options: [{ value: "", text: t("interpolate.off") }, ...[...new Set([...RATES, values.interpolate_fps ?? fps * 2, fps * 2])].filter((rate) => rate > fps && rate <= 120).sort((a, b) => a - b).map((rate) => ({ value: rate, text: `${number(rate)} fps` }))],
      onpick: (value) => set({ interpolate_fps: value === "" ? null : Number(value) }) }),
    seg("upscale", { label: t("knob.upscale"), help: t("knob.upscale.help"), value: String(values.upscale ?? 1), options: SIZES.map((value) => ({ value: String(value), text: `${number(value)}×` })), onpick: (value) => set({ upscale: value === "1" ? null : Number(value) }) }),
    upscalers.length > 0 && choice("upscaler", { label: t("knob.upscaler"), help: t("knob.upscaler.help"), value: values.upscaler ?? "",
      options: [{ value: "", text: t("upscaler.lanczos") }, ...upscalers.map(({ name, scale }) => ({ value: name, text: `${name} (${number(scale)}×)` }))],
      onpick: (value) => set({ upscaler: value || null, ...(value && !values.upscale ? { upscale: Math.min(4, upscalers.find((one) => one.name === value).scale) } : {}) }) }),
    !ANIMATIONS.includes(values.output_format) && sound(values, set),
  ];
}

function sound(values, set) {
  const file = h("input.sr", { type: "file", accept: "audio/*", id: "knob-audio", aria: { label: t("knob.audio") }, onchange: () => { if (file.files.length) take(file.files[0], set); } });
  const button = h("button.quiet", { type: "button", onclick: () => file.click() }, icon("upload"), t("audio.choose"));
  return withFault(h("div.field", h("label", { htmlFor: "knob-audio" }, t("knob.audio")), file,
    values.audio ? h("div.lora-head", h("span", `${values.audio.name} · ${number(values.audio.seconds, 1)} s`),
      values.audio.id && h("button.bare", { type: "button", aria: { label: t("audio.remove") }, onclick: () => set({ audio: null }) }, icon("close"))) : h("div", button),
    h("div.help", t("knob.audio.help"))), "audio");
}

async function take(file, set) {
  const body = new FormData();
  body.append("file", file, file.name);
  body.append("purpose", "user_data");
  try {
    const kept = await api.upload("/v1/files", body);
    if (!kept.seconds) throw new api.ApiError(t("knob.audio.help"));
    set({ audio: { id: kept.id, name: file.name, seconds: kept.seconds } });
  } catch (fault) {
    failed(fault);
  }
}
