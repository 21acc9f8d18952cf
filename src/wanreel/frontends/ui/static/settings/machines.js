// What the settings are carried out with: the workers that are there, and the profiles of S3 storage. Both are only shown here.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { moment, t } from "../core/i18n.js";
import { gigabytes } from "../core/memory.js";
import { fault } from "../parts/notice.js";

export function workersCard() {
  const list = h("div", h("p.soft", t("parts.loading")));
  const root = h("section.card.s-card", { aria: { labelledby: "s-workers" } }, h("h2#s-workers", t("workers.title")), list);

  async function show() {
    try {
      const { workers } = await api.get("/v1/system");
      fill(list, workers.length ? h("ul.s-list", workers.map(row)) : h("p.note.warn", icon("warning"), h("span", t("workers.none"))));
    } catch (error) {
      fill(list, fault(error, show));
    }
  }

  return { root, show };
}

function row({ name, description, alive, draining, started_at: since, model, gpu }) {
  const state = !alive ? "gone" : draining ? "leaving" : "alive";
  return h("li", h("div.s-key", h("strong", description || name),
    h("span.soft", [gpu ? t("workers.gpu", { name: gpu.name, gb: gigabytes(gpu.memory_total_bytes) }) : "", model ? t("stats.holds", { model }) : t("stats.holds.none"), since ? t("workers.since", { when: moment(since) }) : ""].filter(Boolean).join(" · "))),
    h("span.chip", { class: alive ? "good" : "bad" }, t(`stats.${state}`)));
}

export function storageCard(profiles) {
  return h("section.card.s-card", { aria: { labelledby: "s-storage" } }, h("h2#s-storage", t("storage.title")),
    h("p.help", t(profiles.length ? "storage.text" : "storage.none")),
    profiles.length > 0 && h("ul.s-list", profiles.map(({ name, bucket, prefix, endpoint, default: first }) => h("li",
      h("div.s-key", h("strong", name), h("span.soft.mono", `s3://${[bucket, prefix].filter(Boolean).join("/")}`), endpoint && h("span.soft", endpoint)),
      first && h("span.chip.tint", t("storage.default"))))));
}
