// What the form holds: one set of values per tab, kept in this browser. Knows no element.
//   state.mode, state.values (of the current tab), model(), defaults(), change(values), switchTo(mode), toRequest()
// null means "as the model's authors do". Everything derived (sizes, frames) only shows what the server will resolve.
import * as prefs from "../core/prefs.js";
import { asked as finishingAsked } from "./finishing.js";

export const MODES = ["text", "picture", "first_last"];
export const ASPECTS = { "16:9": 16 / 9, "9:16": 9 / 16, "1:1": 1, "4:3": 4 / 3, "3:4": 3 / 4 };
const EMPTY = {
  prompt: "", original_prompt: null, edit_prompt: null, negative_prompt: null, model: null, image: null, last_image: null, aspect: null, resolution: null, width: null, height: null,
  preset: "standard", num_frames: null, seed: null, locked: false, num_inference_steps: null, flow_shift: null, guidance_high: null,
  guidance_low: null, guided_steps: null, boundary_ratio: null, solver: null, fps: null, output_format: "mp4", quality: "high", metadata: true, loras: [], copies: 1,
  memory_mode: null, precision: null, offload: null, vae_tile: null, quantize: null, on_oom: null, storage: null,
  trim_start: null, trim_end: null, loop: null, speed: null, interpolate_fps: null, upscale: null, upscaler: null, audio: null,
};
const MEMORY = ["memory_mode", "precision", "offload", "vae_tile", "quantize"];
const listeners = new Set();
let setup = null;

export const state = { mode: "text", tabs: {} };

export function open(fresh) {
  const first = setup === null;
  setup = fresh;
  if (!first) return;
  const kept = prefs.get("draft", {});
  state.mode = MODES.includes(kept.mode) ? kept.mode : "text";
  for (const mode of MODES) state.tabs[mode] = { ...EMPTY, ...(kept.tabs?.[mode] ?? {}) };
}

export const values = () => state.tabs[state.mode];
export const onChange = (f) => { listeners.add(f); return () => listeners.delete(f); };

export function change(some, { mode = state.mode } = {}) {
  Object.assign(state.tabs[mode], some);
  keep();
  for (const f of listeners) f(Object.keys(some));
}

export function switchTo(mode) {
  const before = values();
  state.mode = mode;
  if (!values().prompt && before.prompt) values().prompt = before.prompt;
  keep();
  for (const f of listeners) f(["mode"]);
}

export function reset() {
  const { prompt, image, last_image, model } = values();
  state.tabs[state.mode] = { ...EMPTY, prompt, image, last_image, model };
  keep();
  for (const f of listeners) f(["mode"]);
}

function keep() {
  prefs.set("draft", { mode: state.mode, tabs: state.tabs });
}

// Models

export const models = (mode = state.mode) => setup.models.filter((model) => model.modes.includes(mode));
export const knob = (name) => setup.knobs[name];
//: What the operator says of memory: {choices: whether requests may choose, fixed: {knob: value}, on_oom}.
export const memory = () => setup.memory;
export const upscalers = () => setup.upscalers;
//: Where results can go besides: the operator's profiles of storage, and "local" for nowhere else; empty where there are none.
export const places = () => (setup.storage.names.length ? ["local", ...setup.storage.names] : []);
export const usualPlace = () => setup.storage.default || "local";

export function model(mode = state.mode) {
  const all = setup.models;
  const wanted = state.tabs[mode].model ?? setup.defaults[mode];
  return all.find((one) => one.name === wanted && one.modes.includes(mode)) ?? all.find((one) => one.name === setup.defaults[mode]) ?? all[0];
}

//: Choosing a model that this tab can't use goes to the tab that can.
export function chooseModel(name) {
  const found = setup.models.find((one) => one.name === name);
  const mode = found.modes.includes(state.mode) ? state.mode : found.modes[0];
  const moved = mode !== state.mode;
  // Values that the other model may not take go back to its own.
  Object.assign(state.tabs[mode], { model: name, num_frames: null, solver: null, num_inference_steps: null, flow_shift: null, guidance_high: null,
    guidance_low: null, guided_steps: null, boundary_ratio: null, precision: null, offload: null, negative_prompt: null, resolution: null, aspect: null, fps: null, preset: found.few_step ? "fast" : "standard", loras: [] });
  if (moved) switchTo(mode);
  else change({ model: name });
  return moved;
}

// What the model's authors do

export function official() {
  const one = model();
  const kind = state.mode === "text" ? "text" : "picture";
  const [high, low] = one.guidance[kind];
  const resolution = values().resolution ?? one.resolution[kind];
  return {
    resolution, guidance_high: high, guidance_low: low, flow_shift: one.sizes[resolution].shift, guided_steps: 0, boundary_ratio: one.boundary, solver: one.solver, fps: one.fps,
    num_frames: one.num_frames, negative_prompt: one.negative_prompt, num_inference_steps: one.presets[values().preset] ?? one.steps,
  };
}

//: Guidance 1 on every expert: the negative prompt is not read.
export function readsNegative() {
  const own = official();
  return (values().guidance_high ?? own.guidance_high) > 1 || (model().two_experts && (values().guidance_low ?? own.guidance_low) > 1);
}

// Sizes

const nearest = (value, multiple) => Math.max(multiple, Math.round(value / multiple) * multiple);

export function nativeAspect(resolution = official().resolution) {
  const size = model().sizes[resolution];
  const distance = ([, ratio]) => Math.abs(Math.log(size.width / size.height / ratio));
  return Object.entries(ASPECTS).sort((one, other) => distance(one) - distance(other))[0][0];
}

export const aspect = () => values().aspect ?? (state.mode !== "text" && values().image ? "picture" : nativeAspect());

//: The size that a resolution has with an aspect, of which the server is told when it is not the model's own.
export function sizeOf(resolution, shape = aspect()) {
  const one = model();
  const own = one.sizes[resolution];
  if (shape === "exact") return { width: values().width ?? own.width, height: values().height ?? own.height };
  const picture = values().image;
  if (shape !== "picture" && shape === nativeAspect(resolution)) return { width: own.width, height: own.height };
  const ratio = shape === "picture" ? (picture ? picture.width / picture.height : own.width / own.height) : ASPECTS[shape];
  const area = own.width * own.height;
  let width = Math.sqrt(area * ratio), height = Math.sqrt(area / ratio);
  const longest = one.hard_max_side;
  if (longest && Math.max(width, height) > longest) [width, height] = [(width * longest) / Math.max(width, height), (height * longest) / Math.max(width, height)];
  return { width: nearest(width, one.size_multiple), height: nearest(height, one.size_multiple) };
}

// Length

export function frames() {
  const one = model();
  const most = one.hard_max_frames ?? Math.min(knob("num_frames").maximum, one.max_frames * 2 - 1);
  return { least: 1 + one.stride, most, stride: one.stride, value: values().num_frames ?? one.num_frames, trained: one.max_frames };
}

// The request

export function toRequest() {
  const now = values(), own = official(), mode = state.mode;
  const request = { prompt: now.prompt, model: model().name };
  if (now.original_prompt && now.original_prompt !== now.prompt) Object.assign(request, { original_prompt: now.original_prompt, wildcards: false });
  if (mode !== "text" && now.image) request.image = now.image.id;
  if (mode === "picture" && now.edit_prompt) request.edit_prompt = now.edit_prompt;
  if (mode === "first_last" && now.last_image) request.last_image = now.last_image.id;
  Object.assign(request, sizeAsked(now, own));
  for (const name of ["num_frames", "num_inference_steps", "flow_shift", "guidance_high", "guidance_low", "guided_steps", "boundary_ratio", "solver", "fps", "negative_prompt"]) {
    if (now[name] !== null && now[name] !== own[name]) request[name] = now[name];
  }
  if (!model().two_experts) for (const name of ["guidance_low", "boundary_ratio"]) delete request[name];
  if (!model().few_step) request.preset = now.preset in model().presets ? now.preset : "standard";
  request.seed = now.locked && now.seed !== null ? now.seed : -1;
  request.output_format = now.output_format;
  request.quality = now.quality;
  request.metadata = now.metadata;
  if (now.loras.length) request.loras = now.loras;
  Object.assign(request, finishingAsked(now));
  for (const name of MEMORY) if (now[name] !== null && setup.memory.choices && !(name in setup.memory.fixed)) request[name] = now[name];
  if (now.on_oom !== null) request.on_oom = now.on_oom;
  if (now.storage !== null && places().includes(now.storage)) request.storage = now.storage;
  return request;
}

function sizeAsked(now, own) {
  const shape = aspect();
  if (shape === "exact") return { width: now.width ?? sizeOf(own.resolution).width, height: now.height ?? sizeOf(own.resolution).height };
  const named = shape === "picture" || (shape === nativeAspect(own.resolution) && !(state.mode !== "text" && now.image));
  return named ? { resolution: own.resolution } : sizeOf(own.resolution, shape);
}

//: The form as a request says, for "use these settings again" and for recipes. `pictures`: {image: {id, width, height}}
export function adopt(request, mode, pictures = {}) {
  const target = MODES.includes(mode) ? mode : "text";
  const found = setup.models.find((one) => one.name === request.model);
  const own = { ...EMPTY };
  for (const name of Object.keys(EMPTY)) if (request[name] !== undefined && request[name] !== null) own[name] = request[name];
  Object.assign(own, { image: pictures.image ?? null, last_image: pictures.last_image ?? null, audio: pictures.audio ?? null, locked: request.seed >= 0, copies: 1 });
  own.model = found?.modes.includes(target) ? found.name : null;
  if (request.width && request.height) own.aspect = "exact";
  if (own.resolution && found && !(own.resolution in found.sizes)) own.resolution = null;
  state.tabs[target] = own;
  state.mode = target;
  keep();
  for (const f of listeners) f(["mode"]);
  return own.model !== null;
}
