// Settings: what belongs to this browser, what the operator set for the server, and the API keys.
import * as api from "../core/api.js";
import { $, $$, fill, h, icon } from "../core/dom.js";
import { has, language, number, setLanguage, t } from "../core/i18n.js";
import * as prefs from "../core/prefs.js";
import { toast } from "../core/toast.js";
import { fault, loading } from "../parts/notice.js";
import { styled } from "../parts/style.js";
import { keysCard } from "./keys.js";
import { storageCard, workersCard } from "./machines.js";

await styled("settings.css", import.meta.url);

const GROUPS = ["models", "memory", "queue", "folders", "page"];

export function mount(root, studio) {
  const server = h("div.s-server"), { admin } = studio.setup.account;
  const workers = admin && workersCard();
  fill(root, h("h1", t("settings.title")), h("div.s-screen", browserCard(studio), server, workers && workers.root, admin && keysCard(studio)));
  let given = null; // what the server last said

  async function read() {
    if (!studio.setup.account.admin) {
      fill(server, h("p.note", icon("info"), t("settings.admin")));
      return;
    }
    if (!given) fill(server, loading());
    try {
      given = await api.get("/v1/settings");
      draw();
    } catch (error) {
      fill(server, fault(error, read));
    }
  }

  function draw() {
    const waiting = given.data.filter((setting) => setting.pending);
    const save = h("button.primary", { type: "submit" }, t("settings.save"));
    const actions = h("div.s-save", { hidden: true }, h("span", { role: "status" }), h("button.quiet", { type: "button", onclick: draw }, t("settings.discard")), save);
    const form = h("form", { novalidate: true, aria: { label: t("settings.server") }, oninput: changed, onsubmit: submit },
      given.restart_needed && h("p.note.warn.s-restart", icon("warning"), h("span", t("settings.restart", { names: waiting.map((setting) => label(setting)).join(", ") }))),
      GROUPS.map((group) => card(group)).filter(Boolean), storageCard(given.storage),
      h("p.help", t("settings.file", { file: given.file })), actions);
    fill(server, form);

    function changed() {
      const count = Object.keys(changes(form)).length;
      actions.hidden = !count;
      $("span", actions).textContent = t(count === 1 ? "settings.changed.one" : "settings.changed", { count: number(count) });
    }

    async function submit(event) {
      event.preventDefault();
      save.disabled = true;
      for (const place of $$(".fault", form)) place.remove();
      for (const input of $$("[aria-invalid]", form)) input.removeAttribute("aria-invalid");
      try {
        given = await api.send("PATCH", "/v1/settings", { json: changes(form) });
        toast(t("settings.saved"), { kind: "good", hint: given.restart_needed ? t("settings.saved.restart") : "" });
        draw();
        await studio.refresh();
      } catch (error) {
        tell(form, error);
      } finally {
        save.disabled = false;
      }
    }
  }

  function card(group) {
    const rows = given.data.filter((setting) => setting.group === group);
    return rows.length && h("section.card.s-card", { aria: { labelledby: `s-${group}` } }, h(`h2#s-${group}`, t(`settings.group.${group}`)), rows.map(row));
  }

  function row(setting) {
    const id = `setting-${setting.name}`;
    const fixed = setting.origin === "environment" || setting.origin === "command line";
    const note = has(`settings.help.${setting.name}`) ? t(`settings.help.${setting.name}`) : setting.help;
    return h("div.field.s-row", { dataset: { name: setting.name } },
      h("label", { htmlFor: id }, h("span", label(setting)), h("span.s-chips",
        setting.pending && h("span.chip.warn", t("settings.pending")),
        fixed && h("span.chip", t(`settings.origin.${setting.origin.replace(" ", "_")}`)))),
      control(setting, id, fixed),
      h("p.help", { id: `${id}-help` }, note, setting.live ? "" : ` ${t("settings.later")}`,
        setting.origin === "file" && h("button.s-default", { type: "button", onclick: () => back(setting) }, t("settings.default", { value: shown(setting) }))));
  }

  //: Back to what would be without the file.
  async function back(setting) {
    try {
      given = await api.send("PATCH", "/v1/settings", { json: { [setting.name]: null } });
      draw();
      document.getElementById(`setting-${setting.name}`)?.focus();
    } catch (error) {
      tell(server, error);
    }
  }

  return { show() { read(); workers?.show(); } };
}

function browserCard(studio) {
  const theme = prefs.get("theme", "auto");
  return h("section.card.s-card", { aria: { labelledby: "s-browser" } }, h("h2#s-browser", t("settings.browser")),
    h("div.field", h("label", { htmlFor: "s-language" }, t("settings.language")),
      h("select#s-language", { onchange: (event) => setLanguage(event.target.value) }, Object.entries(studio.setup.languages).map(([name, words]) => h("option", { value: name, selected: language() === name, lang: name }, words)))),
    h("fieldset", h("legend", t("settings.theme")), h("div.seg", ["auto", "light", "dark"].map((name) =>
      h("label", h("input", { type: "radio", name: "s-theme", value: name, checked: theme === name, onchange: () => prefs.set("theme", name) }), t(`settings.theme.${name}`))))));
}

const label = (setting) => (has(`settings.name.${setting.name}`) ? t(`settings.name.${setting.name}`) : setting.name.replaceAll("_", " "));
const WORDS = { memory_mode: "memory.mode", offload: "memory.way", precision: "memory.precision", on_oom: "memory.on_oom" };

//: A choice as Create calls it, with the name that files and commands know it by.
function inWords(name, choice) {
  const key = `${WORDS[name]}.${choice}`;
  return choice === "auto" ? t("memory.auto") : has(key) ? `${t(key)} (${choice})` : choice;
}

const shown = ({ default: value }) => (value === null ? t("settings.automatic") : typeof value === "boolean" ? t(value ? "settings.on" : "settings.off") : typeof value === "number" ? number(value) : value);

function control(setting, id, fixed) {
  const own = { id, name: setting.name, disabled: fixed, aria: { describedby: `${id}-help` }, dataset: { kind: setting.kind, was: JSON.stringify(setting.value) } };
  if (setting.kind === "flag") return h("div", h("label.check", h("input", { ...own, type: "checkbox", checked: setting.value }), t("settings.on")));
  if (setting.kind === "choice") return h("select", own, setting.choices.map((choice) => h("option", { value: choice, selected: choice === setting.value }, inWords(setting.name, choice))));
  const text = setting.kind === "text" || setting.kind === "folder";
  const input = h("input", {
    ...own, type: text ? "text" : "number", value: setting.value ?? "", placeholder: has(`settings.empty.${setting.name}`) ? t(`settings.empty.${setting.name}`) : setting.optional ? shown(setting) : "", spellcheck: false,
    ...(text ? {} : { min: setting.minimum ?? "", max: setting.maximum ?? "", step: setting.kind === "integer" ? 1 : "any" }),
  });
  return setting.unit ? h("div.s-unit", input, h("span.soft", has(`settings.unit.${setting.unit}`) ? t(`settings.unit.${setting.unit}`) : setting.unit)) : input;
}

//: What differs from what the server said. An emptied field goes back to its default.
function changes(form) {
  const found = {};
  for (const input of $$("[data-was]", form)) {
    if (input.disabled) continue;
    const value = input.type === "checkbox" ? input.checked : input.value.trim() === "" ? (input.dataset.was === '""' ? "" : null) : input.type === "number" ? Number(input.value) : input.value.trim();
    if (JSON.stringify(value) !== input.dataset.was) found[input.name] = value;
  }
  return found;
}

//: Every problem at its field, and what belongs to none as a note.
function tell(form, error) {
  const rest = error.problems.filter((problem) => {
    const place = $(`[data-name="${CSS.escape(problem.field)}"]`, form);
    if (!place) return true;
    $("[name]", place).setAttribute("aria-invalid", "true");
    place.append(h("p.fault", { role: "alert" }, icon("warning"), `${problem.message} ${problem.hint}`.trim()));
    return false;
  });
  $("[aria-invalid]", form)?.focus();
  if (!error.problems.length || rest.length) toast(rest.length ? rest[0].message : error.message, { kind: "bad", hint: rest.length ? "" : error.hint });
}
