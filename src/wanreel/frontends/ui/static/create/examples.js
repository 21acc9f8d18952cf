// Prompts to begin with, by mode and topic, in a dialog: one click fills the form.
import { fill, h, icon } from "../core/dom.js";
import { language, t } from "../core/i18n.js";
import { dialog, seg } from "./controls.js";
import * as form from "./state.js";

let list = null;

export function examples(adopt) {
  return h("button.quiet#examples", { type: "button", onclick: () => open(adopt) }, icon("spark"), t("examples.button"));
}

async function open(adopt) {
  list ??= await (await fetch(new URL("./examples.json", import.meta.url))).json();
  const grid = h("div.examples");
  const box = dialog(t("examples.title"), [h("div.examples-modes"), grid], { wide: true });
  const demo = form.model().name === "demo";
  const show = (mode) => {
    const fitting = list.filter((example) => example.mode === mode);
    fitting.sort((one, other) => (demo ? Number(other.topic === "demo") - Number(one.topic === "demo") : Number(one.topic === "demo") - Number(other.topic === "demo")));
    fill(grid, fitting.map((example) => card(example, () => { box.close(); adopt({ ...example, text: words(example) }); })));
  };
  box.querySelector(".examples-modes").append(seg("example-mode", {
    label: t("mode.label"), hideLabel: true, value: form.state.mode, onpick: show, options: form.MODES.map((mode) => ({ value: mode, text: t(`mode.${mode}`) })) }));
  show(form.state.mode);
}

const words = (example) => (language() === "zh" && example.zh) || example.text;

function card(example, pick) {
  const shown = (name) => h("img", { src: new URL(`../images/examples/${name}`, import.meta.url).href, alt: "", loading: "lazy" });
  const art = example.last_picture ? h("span.example-pair", shown(example.picture), shown(example.last_picture)) : example.picture ? shown(example.picture)
    : h("span.example-art", { dataset: { topic: example.topic }, aria: { hidden: "true" } });
  return h("button.example", { type: "button", onclick: pick }, art,
    h("span.example-text", h("span.chip", t(`topic.${example.topic}`)), h("span", words(example))));
}
