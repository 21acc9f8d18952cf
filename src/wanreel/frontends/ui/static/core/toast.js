// Short notes at the edge of the page.
//   toast("Saved.", {kind: "info" | "good" | "bad", hint: "..", action: {label, run}, seconds: 6})
// Faults stay until closed and interrupt screen readers; the others go by themselves.
//   failed(error): an ApiError, or whatever was thrown, as a toast
import { h, icon } from "./dom.js";
import { t } from "./i18n.js";

let region = null;

export function toast(text, { kind = "info", hint = "", action = null, seconds = 6 } = {}) {
  region ??= document.body.appendChild(h("div.toasts", { role: "region", aria: { label: t("toast.region") } }));
  const close = () => note.remove();
  const note = h(`div.toast.${kind}`, { role: kind === "bad" ? "alert" : "status" },
    icon(kind === "bad" ? "warning" : kind === "good" ? "check" : "info"),
    h("div.toast-text", h("strong", text), hint && h("span", hint)),
    action && h("button.quiet", { type: "button", onclick: () => { action.run(); close(); } }, action.label),
    h("button.bare", { type: "button", aria: { label: t("close") }, onclick: close }, icon("close")));
  region.append(note);
  while (region.childElementCount > 4) region.firstElementChild.remove();
  if (kind !== "bad") setTimeout(close, seconds * 1000);
  return close;
}

export function failed(error) {
  if (error?.name === "AbortError") return;
  toast(error?.message || t("error.unknown", { status: "" }), { kind: "bad", hint: error?.hint ?? "" });
}
