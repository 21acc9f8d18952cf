// The page's words.   await load(language)   t("key", {name: value}) -> text   language()   onLanguage(f)
// Words lie in locales/LANGUAGE.json; {name} in them is replaced. A missing key falls back to English, then shows itself.
// Knob labels and helps: "knob.NAME" and "knob.NAME.help".
import * as prefs from "./prefs.js";

let english = {}, current = {}, chosen = "en";
const listeners = new Set();

export async function load(wanted = document.documentElement.lang) {
  chosen = ["en", "zh"].includes(wanted) ? wanted : "en";
  const read = async (name) => (await fetch(new URL(`../locales/${name}.json`, import.meta.url))).json();
  english = await read("en");
  current = chosen === "en" ? english : await read(chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : chosen;
}

export async function setLanguage(name) {
  prefs.set("language", name);
  await load(name);
  for (const f of listeners) f(name);
}

export const language = () => chosen;
export const onLanguage = (f) => listeners.add(f);
export const has = (key) => key in current || key in english;

export function t(key, values = {}) {
  const text = current[key] ?? english[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export const number = (value, digits = 2) => new Intl.NumberFormat(chosen, { maximumFractionDigits: digits }).format(value);
//: An amount in the operator's currency, whatever that is: "0.042", "12.30".
export const money = (value) => new Intl.NumberFormat(chosen, value < 1 ? { maximumSignificantDigits: 2 } : { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);
export const moment = (seconds) => new Intl.DateTimeFormat(chosen, { dateStyle: "medium", timeStyle: "short" }).format(new Date(seconds * 1000));
