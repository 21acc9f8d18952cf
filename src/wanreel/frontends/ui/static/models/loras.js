// The shelf of LoRAs: what each fits, taking one in, forgetting it.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { number, t } from "../core/i18n.js";
import { failed, toast } from "../core/toast.js";
import { ask } from "../parts/ask.js";
import { bytes } from "../parts/format.js";
import { fault, loading } from "../parts/notice.js";

export class LoraShelf {
  #list = h("div.m-list");
  #busy = h("p.note", { role: "status", hidden: true });

  constructor(studio) {
    this.studio = studio;
    this.admin = studio.setup.account.admin;
    const pick = h("input.sr", { type: "file", accept: ".safetensors", tabIndex: -1, aria: { label: t("loras.add") }, onchange: () => { if (pick.files[0]) this.#add(pick.files[0]); pick.value = ""; } });
    this.root = h("section.m-part", { aria: { labelledby: "m-loras" } },
      h("div.m-head", h("h2#m-loras", t("loras.title")), this.admin && h("span", pick, h("button.quiet", { type: "button", onclick: () => pick.click() }, icon("upload"), t("loras.add")))),
      this.#busy, this.#list);
  }

  async read() {
    if (!this.#list.childElementCount) fill(this.#list, loading());
    try {
      const { data } = await api.get("/v1/loras");
      fill(this.#list, data.length ? data.map((lora) => this.#card(lora)) : h("p.soft", t(this.admin ? "loras.none" : "loras.none.user")));
    } catch (error) {
      fill(this.#list, fault(error, () => this.read()));
    }
  }

  #card(lora) {
    const range = (pair) => (pair[0] === pair[1] ? number(pair[0]) : `${number(pair[0])} – ${number(pair[1])}`);
    const fact = (name, value) => value && [h("dt", t(`loras.${name}`)), h("dd", value)];
    return h("article.card.m-card", { dataset: { lora: lora.name } },
      h("div.m-top", h("h3", lora.name), lora.target !== "both" && h("span.chip.tint", t(`loras.target.${lora.target}`)), lora.builtin && h("span.chip", t("loras.builtin"))),
      lora.fault && h("p.fault", icon("warning"), lora.fault),
      h("dl.m-facts", fact("base", lora.base), fact("format", lora.format), fact("rank", lora.rank && range(lora.rank)), fact("scale", lora.scale && range(lora.scale)), fact("size", lora.size_bytes && bytes(lora.size_bytes)), fact("partner", lora.partner)),
      this.#fits(lora),
      this.admin && !lora.builtin && h("div.buttons", h("button.danger", { type: "button", aria: { label: `${t("loras.remove")}: ${lora.name}` }, onclick: () => this.#remove(lora) }, icon("trash"), t("loras.remove"))));
  }

  #fits(lora) {
    if (!lora.fits.length) return h("p.soft", t("loras.fits.nothing"));
    return h("div", h("p.label", t("loras.fits")), h("ul.m-fits", lora.fits.map((fit) =>
      h("li", h(`span.chip.${fit.ok ? "good" : "bad"}`, icon(fit.ok ? "check" : "close"), fit.model),
        h("span.soft", fit.ok ? t(fit.unmatched ? "loras.fit.partly" : "loras.fit", { matched: number(fit.matched), unmatched: number(fit.unmatched) }) : fit.fault ?? t("loras.fit.none"))))));
  }

  async #add(file) {
    const form = new FormData();
    form.append("file", file, file.name);
    this.#busy.hidden = false;
    fill(this.#busy, h("span.p-spin.m-spin"), h("span", t("loras.adding", { name: file.name, size: bytes(file.size) })));
    try {
      const lora = await api.upload("/v1/loras", form);
      const fitting = lora.fits.filter((fit) => fit.ok).map((fit) => fit.model);
      toast(t("loras.added", { name: lora.name }), { kind: "good", hint: fitting.length ? t("loras.added.fits", { models: fitting.join(", ") }) : t("loras.added.nothing") });
      await this.#changed();
    } catch (error) {
      failed(error);
    } finally {
      this.#busy.hidden = true;
    }
  }

  async #remove(lora) {
    if (!(await ask({ title: t("loras.remove.title", { name: lora.name }), text: t("loras.remove.text"), agree: t("loras.remove"), danger: true }))) return;
    try {
      await api.send("DELETE", `/v1/loras/${encodeURIComponent(lora.name)}`);
      await this.#changed();
    } catch (error) {
      failed(error);
    }
  }

  async #changed() {
    await Promise.all([this.read(), this.studio.refresh()]);
  }
}
