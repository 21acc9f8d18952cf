// The axes of a sweep as the form has them: a name and a text of values each. Know no screen.
//   draft() -> {prompt, title, axes: [{name, text}]}   count(draft)   toAxes(draft) -> as POST /v1/sweeps takes them
//   editor(draft, setup, set(axes, redraw)) -> elements
import { h, icon } from "../core/dom.js";
import { has, t } from "../core/i18n.js";
import * as prefs from "../core/prefs.js";

export const EMPTY = { prompt: "", title: "", axes: [{ name: "seed", text: "1, 2, 3" }, { name: "guidance", text: "" }] };
const NAMES = ["seed", "guidance", "num_inference_steps", "prompt", "flow_shift", "solver", "preset", "lora", "negative_prompt", "guided_steps", "boundary_ratio"];
const LINES = ["prompt", "negative_prompt"]; // whose values are lines, as commas may stand in them
const MOST = 4;

export const draft = () => ({ ...EMPTY, ...prefs.get("sweep", {}) });

const values = (axis) => axis.text.split(LINES.includes(axis.name) ? "\n" : /[,，\n]/).map((value) => value.trim()).filter(Boolean);
const used = (now) => now.axes.filter((axis) => values(axis).length > 0);

//: How many videos it would be; 0 where no axis has a value.
export const count = (now) => (used(now).length ? used(now).reduce((product, axis) => product * values(axis).length, 1) : 0);

export function toAxes(now) {
  return Object.fromEntries(used(now).map((axis) => [axis.name === "lora" ? `lora:${axis.lora ?? ""}` : axis.name, values(axis)]));
}

const label = (name) => t(has(`sweep.axis.${name}`) ? `sweep.axis.${name}` : `knob.${name}`);

export function editor(now, setup, set) {
  const change = (at, some, redraw) => set(now.axes.map((axis, n) => (n === at ? Object.assign(axis, some) : axis)), redraw);
  const rows = now.axes.map((axis, at) => row(axis, at, now, (some, redraw) => change(at, some, redraw), () => set(now.axes.filter((_, n) => n !== at), true)));
  const free = NAMES.filter((name) => !now.axes.some((axis) => axis.name === name));
  return [rows, now.axes.length < MOST && free.length > 0 && h("button.quiet#sw-add", { type: "button", onclick: () => set([...now.axes, { name: free[0], text: "" }], true) }, icon("plus"), t("sweep.axis.add"))];
}

function row(axis, at, now, set, remove) {
  const id = `sw-axis-${at}`;
  const choices = NAMES.filter((name) => name === axis.name || !now.axes.some((other) => other.name === name));
  const area = LINES.includes(axis.name);
  const example = t(has(`sweep.example.${axis.name}`) ? `sweep.example.${axis.name}` : "sweep.example");
  const text = h(area ? "textarea" : "input", { id: `${id}-values`, value: axis.text, placeholder: example, ...(area ? { rows: 3 } : { type: "text", autocomplete: "off" }),
    aria: { label: t("sweep.values", { name: label(axis.name) }) }, oninput: () => set({ text: text.value }, false) });
  return h("div.sw-axis", { dataset: { axis: axis.name } },
    h("div.sw-axis-head", h("select", { id: `${id}-name`, aria: { label: t("sweep.axis") }, onchange: (event) => set({ name: event.target.value, text: "" }, true) },
      choices.map((name) => h("option", { value: name, selected: name === axis.name }, label(name)))),
    h("button.bare", { type: "button", aria: { label: t("sweep.axis.remove", { name: label(axis.name) }) }, onclick: remove }, icon("close"))),
    axis.name === "lora" && lora(axis, id, set), text);
}

function lora(axis, id, set) {
  return h("input", { id: `${id}-lora`, type: "text", value: axis.lora ?? "", placeholder: t("sweep.lora.name"), autocomplete: "off", aria: { label: t("sweep.lora.name") },
    oninput: (event) => set({ lora: event.target.value.trim() }, false) });
}

