// API keys: who may come in. A new key is shown once. With the first one this browser signs in, as from then on all must.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { moment, t } from "../core/i18n.js";
import { failed, toast } from "../core/toast.js";
import { ask } from "../parts/ask.js";
import { fault } from "../parts/notice.js";

const SCOPES = ["read", "submit", "admin"];

//: Exchanges a key for this browser's cookie, as the sign-in screen does.
const enter = (key) => fetch(api.address("/sign-in"), { method: "POST", body: new URLSearchParams({ key }), redirect: "manual", credentials: "same-origin" });

export function keysCard() {
  const list = h("div"), fresh = h("div", { role: "status" });
  const name = h("input#key-name", { type: "text", required: true, maxLength: 64, autocomplete: "off" });
  const ticks = SCOPES.map((scope) => h("input", { type: "checkbox", value: scope, checked: scope !== "admin" }));
  const warn = h("p.note.warn", { hidden: true }, icon("warning"), h("span", t("keys.first")));
  const make = h("button.primary", { type: "submit", disabled: true }, icon("plus"), t("keys.create")); // until it is known which keys there are
  const form = h("form.s-new", { onsubmit: create },
    h("div.field", h("label", { htmlFor: "key-name" }, t("keys.name")), name),
    h("fieldset", h("legend", t("keys.scopes")), h("div.s-scopes", SCOPES.map((scope, at) => h("label.check", ticks[at], t(`keys.scope.${scope}`))))),
    warn, make);
  const root = h("section.card.s-card.s-keys", { aria: { labelledby: "s-keys" } }, h("h2#s-keys", t("keys.title")), h("p.soft", t("keys.text")), list, fresh, form);
  read();
  return root;

  async function read() {
    try {
      const { data } = await api.get("/v1/keys");
      warn.hidden = data.length > 0;
      if (!data.length) ticks[2].checked = true;
      ticks[2].disabled = !data.length;
      make.disabled = false;
      fill(list, data.length ? h("ul.s-list", data.map(row)) : h("p", t("keys.none")));
    } catch (error) {
      fill(list, fault(error, read));
    }
  }

  function row(key) {
    return h("li", h("span.s-key", h("strong", key.name), h("span.soft", t("keys.facts", { owner: key.owner, when: moment(key.created_at) }))),
    key.scopes.map((scope) => h("span.chip", t(`keys.scope.${scope}`))),
    h("button.bare", { type: "button", title: t("keys.revoke"), aria: { label: `${t("keys.revoke")}: ${key.name}` }, onclick: () => revoke(key) }, icon("trash")));
  }

  async function create(event) {
    event.preventDefault();
    const first = !warn.hidden;
    const scopes = ticks.filter((tick) => tick.checked).map((tick) => tick.value);
    try {
      const made = await api.send("POST", "/v1/keys", { json: { name: name.value.trim(), scopes } });
      name.value = "";
      if (first) await enter(made.key); // else this browser would be shut out by its own key
      show(made, first);
      await read();
    } catch (error) {
      failed(error);
    }
  }

  //: The key itself, this once.
  function show(made, first) {
    const text = h("input", { type: "text", readOnly: true, value: made.key, aria: { label: t("keys.key") }, onfocus: (event) => event.target.select() });
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(made.key);
        toast(t("keys.copied"), { kind: "good" });
      } catch {
        text.focus(); // selected, to be copied by hand: without https there is no clipboard
      }
    };
    fill(fresh, h("div.note.tint.s-fresh", h("div", h("strong", t("keys.made", { name: made.name })), h("p", t(first ? "keys.once.first" : "keys.once"))),
      h("div.s-copy", text, h("button.button", { type: "button", onclick: copy }, icon("copies"), t("keys.copy")))));
    text.focus();
  }

  async function revoke(key) {
    const agreed = await ask({ title: t("keys.revoke.title", { name: key.name }), text: t("keys.revoke.text"), agree: t("keys.revoke"), danger: true });
    if (!agreed) return;
    try {
      await api.send("DELETE", `/v1/keys/${encodeURIComponent(key.name)}`);
      toast(t("keys.revoked", { name: key.name }), { kind: "good" });
      await read();
    } catch (error) {
      failed(error);
    }
  }
}
