// The studio: the bar, the screens and what they share.
//
// A screen is a module static/NAME/NAME.js with
//   export function mount(root, studio)  -> {show(params), hide()} (both optional)
// mount is called once, when the screen is first opened, and again with an emptied root when the language changes; keep state in the
// module, not in the DOM. show is called each time it is opened, with the parameters behind "?" in the address (#/library?id=..).
//
// studio: {setup, go(name, params), refresh(), screens}
//   setup: GET /studio/setup (see ui/form.py): version, languages, account {owner, admin, can_submit, signed_in}, knobs, models, defaults
//   refresh(): reads it again and calls every f given to onSetup(f)
// Words: core/i18n.js. API: core/api.js. Events: core/live.js. Elements: core/dom.js. Toasts: core/toast.js. Browser's own: core/prefs.js.
import * as api from "./core/api.js";
import { $, fill, h, icon } from "./core/dom.js";
import { language, load, onLanguage, setLanguage, t } from "./core/i18n.js";
import * as live from "./core/live.js";
import * as prefs from "./core/prefs.js";

const SCREENS = ["create", "timeline", "sweep", "queue", "library", "models", "settings"];
const screens = new Map(); // name: {root, module, handle}
const setupListeners = new Set();

export const studio = {
  setup: null,
  screens: SCREENS,
  go(name, params = {}) {
    const query = new URLSearchParams(params).toString();
    const hash = `#/${name}${query ? `?${query}` : ""}`;
    if (location.hash === hash) open();
    else location.hash = hash;
  },
  async refresh() {
    studio.setup = await api.get("/studio/setup");
    for (const f of setupListeners) f(studio.setup);
  },
  onSetup: (f) => { setupListeners.add(f); return () => setupListeners.delete(f); },
};

function here() {
  const [name, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return [SCREENS.includes(name) ? name : "create", Object.fromEntries(new URLSearchParams(query))];
}

async function open() {
  const [name, params] = here();
  for (const [other, screen] of screens) {
    if (other !== name && !screen.root.hidden) { screen.handle?.hide?.(); screen.root.hidden = true; }
  }
  const screen = screens.get(name);
  screen.root.hidden = false;
  for (const link of document.querySelectorAll(".nav a")) {
    if (link.dataset.screen === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  screen.module ??= await import(`./${name}/${name}.js`);
  screen.handle ??= screen.module.mount(screen.root, studio) ?? {};
  screen.handle.show?.(params);
}

function bar() {
  const dot = h("span.live", { role: "status" });
  const told = (state) => {
    dot.dataset.state = state;
    fill(dot, state === "lost" ? t("live.lost") : "");
    dot.hidden = state !== "lost";
  };
  told(live.state());
  live.onState(told);
  fill($("#studio-bar"),
    h("header.bar",
      h("a.brand", { href: "#/create", aria: { label: t("brand.home") } }, h("span.mark", { aria: { hidden: "true" } }), h("span", "Wanreel")),
      h("nav.nav", { aria: { label: t("nav.label") } }, SCREENS.map((name) =>
        h("a", { href: `#/${name}`, dataset: { screen: name } }, icon(name), h("span", t(`nav.${name}`))))),
      h("div.bar-end", dot, languageButton(), themeButton(), account())));
}

function languageButton() {
  const other = language() === "zh" ? "en" : "zh";
  return h("button.bare", { type: "button", lang: other, title: t("language.switch"), aria: { label: t("language.switch") }, onclick: () => setLanguage(other) },
    other === "zh" ? "中" : "EN");
}

const THEMES = ["auto", "light", "dark"];

export function setTheme(theme) {
  prefs.set("theme", theme);
}

function applyTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function themeButton() {
  const theme = prefs.get("theme", "auto");
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return h("button.bare", {
    type: "button", title: t(`theme.${theme}`), aria: { label: t("theme.switch", { now: t(`theme.${theme}`) }) },
    onclick: (event) => { setTheme(next); const fresh = themeButton(); event.currentTarget.replaceWith(fresh); fresh.focus(); },
  }, icon({ auto: "auto", light: "sun", dark: "moon" }[theme]));
}

function account() {
  if (!studio.setup.account.signed_in) return null;
  return h("form", { method: "post", action: api.address("/sign-out") },
    h("button.bare", { type: "submit", title: t("sign_out"), aria: { label: t("sign_out") } }, icon("out")));
}

function roots() {
  const found = () => SCREENS.every((name) => document.getElementById(`studio-${name}`)) && $("#studio-bar");
  return new Promise((done) => {
    if (found()) return done();
    const watch = new MutationObserver(() => { if (found()) { watch.disconnect(); done(); } });
    watch.observe(document.documentElement, { childList: true, subtree: true });
  });
}

async function begin() {
  await Promise.all([load(), studio.refresh(), roots()]);
  for (const name of SCREENS) {
    const root = document.getElementById(`studio-${name}`);
    root.hidden = true;
    root.setAttribute("role", "region");
    root.setAttribute("aria-label", t(`nav.${name}`));
    screens.set(name, { root, module: null, handle: null });
  }
  bar();
  prefs.watch("theme", applyTheme);
  onLanguage(() => {
    bar();
    for (const [name, screen] of screens) {
      screen.handle?.hide?.();
      screen.root.replaceChildren();
      screen.root.setAttribute("aria-label", t(`nav.${name}`));
      screen.handle = null;
    }
    open();
  });
  addEventListener("hashchange", open);
  await open();
  document.documentElement.dataset.ready = "true";
  live.start();
}

begin();
