// A better prompt beside the one that was written: asked of POST /v1/prompts/enhance, taken only by a click, taken back by another.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { has, t } from "../core/i18n.js";
import { failed } from "../core/toast.js";
import * as form from "./state.js";

//: {button, panel}: the button stands in the prompt's label, the panel below the prompt. `written(text)` shows a text in the form.
export function improve(help, written) {
  const panel = h("div.improve", { id: "improve-panel", role: "region", aria: { label: t("improve.title"), live: "polite" }, hidden: true });
  const button = h("button.quiet#improve", { type: "button", aria: { expanded: "false", controls: "improve-panel" }, onclick: ask }, icon("spark"), t("improve.button"));
  const show = (...content) => {
    panel.hidden = content.length === 0;
    button.setAttribute("aria-expanded", String(content.length > 0));
    fill(panel, content);
  };
  const undo = () => {
    const { original_prompt } = form.values();
    form.change({ prompt: original_prompt, original_prompt: null });
    written(original_prompt);
    show();
  };
  if (form.values().original_prompt) show(taken(undo));

  async function ask() {
    const now = form.values();
    if (!now.prompt.trim()) { document.getElementById("knob-prompt")?.focus(); return; }
    button.disabled = true;
    show(h("div.help", t(help.model ? "improve.asking" : "loading")));
    const json = { prompt: now.prompt, model: form.model().name, mode: form.state.mode === "text" ? "text" : "picture", seed: now.locked && now.seed !== null ? now.seed : 0 };
    if (help.sees && form.state.mode !== "text" && now.image) json.image = now.image.id;
    try {
      const found = await api.send("POST", "/v1/prompts/enhance", { json });
      show(sideBySide(found, () => accept(found), () => { show(); button.focus(); }));
      panel.querySelector("button")?.focus();
    } catch (fault) {
      show();
      failed(fault);
    } finally { button.disabled = false; }
  }

  function accept(found) {
    const first = form.values().original_prompt ?? found.original;
    form.change({ prompt: found.enhanced, original_prompt: first });
    written(found.enhanced);
    show(taken(undo));
    panel.querySelector("button")?.focus();
  }

  return { button, panel };
}

const taken = (undo) => h("div.improve-taken", h("span.chip.good", t("improve.taken")), h("button.quiet", { type: "button", onclick: undo }, icon("retry"), t("improve.undo")));

function sideBySide(found, accept, keep) {
  const { before, after, limit, exact } = found.tokens;
  const count = (n) => t(exact ? "improve.tokens" : "improve.tokens.about", { n, limit });
  const text = (title, words, n, mark) => h("div.improve-text", { class: mark }, h("div.improve-head", h("strong", title), h("span.soft", count(n))), h("p", { lang: found.language }, words));
  return [
    h("div.improve-pair", text(t("improve.yours"), found.original, before, ""), text(t(found.by === "model" ? "improve.model" : "improve.rules"), found.enhanced, after, "better")),
    found.changes.length > 0 && found.by === "rules" && h("ul.improve-changes", found.changes.map((change) => h("li", h("span.chip", t(`improve.${change.kind}`)), " ", h("span", { lang: found.language }, change.text)))),
    found.hints.map((hint) => h("div.note.tint", icon("info"), h("span", has(`improve.hint.${hint.code}`) ? t(`improve.hint.${hint.code}`) : hint.text))),
    h("div.improve-answers",
      found.changed && h("button.button", { type: "button", onclick: accept }, t("improve.accept")),
      h("button.quiet", { type: "button", onclick: keep }, t(found.changed ? "improve.keep" : "improve.nothing"))),
  ];
}
