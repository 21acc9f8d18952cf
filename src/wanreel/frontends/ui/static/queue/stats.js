// The machine: CPU, memory, GPUs, disk and throughput of the last minutes. Looks only while it is seen.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { money, number, t } from "../core/i18n.js";
import { bytes, duration } from "../parts/format.js";
import { fault, loading } from "../parts/notice.js";
import { sparkline } from "./sparkline.js";

const SLOWEST = 30; // s between two looks where the server gives no better figure

export class Stats {
  #timer = null;
  #running = false;

  constructor() {
    this.root = h("div.q-stats", loading());
    document.addEventListener("visibilitychange", () => { if (this.#running && !document.hidden) this.#look(); });
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#look();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
  }

  async #look() {
    clearTimeout(this.#timer);
    if (!this.#running || document.hidden) return;
    let rest = SLOWEST;
    try {
      const system = await api.get("/v1/system");
      rest = Math.min(SLOWEST, Math.max(1, system.refresh_seconds));
      this.#draw(system);
    } catch (error) {
      fill(this.root, fault(error, () => this.#look()));
    }
    if (this.#running) this.#timer = setTimeout(() => this.#look(), rest * 1000);
  }

  #draw(system) {
    const { host, history, workers } = system;
    const of = (read) => history.map(read);
    const ended = history.reduce((sum, moment) => sum + moment.completed, 0);
    const span = history.length > 1 ? history.at(-1).at - history[0].at : 0;
    fill(this.root,
      system.warnings.map((text) => h("p.note.warn", icon("warning"), h("span", text))),
      h("section.card.q-machine", h("h2", t("stats.server")),
        host ? [
          chart("cpu", `${number(host.cpu_percent, 0)} %`, of((moment) => moment.cpu_percent), 100),
          chart("ram", t("stats.of", { used: bytes(host.ram_used_bytes), all: bytes(host.ram_total_bytes) }), of((moment) => moment.ram_used_bytes), host.ram_total_bytes),
          level("disk", t("stats.free", { free: bytes(host.disk_free_bytes), all: bytes(host.disk_total_bytes) }), 1 - host.disk_free_bytes / host.disk_total_bytes),
        ] : h("p.soft", t("parts.loading"))),
      workers.map((worker, at) => this.#worker(worker, of((moment) => moment.workers[at]))),
      h("section.card.q-machine", h("h2", t("stats.throughput")),
        chart("steps", t("stats.per_second", { steps: number(history.at(-1)?.steps_per_second ?? 0, 2) }), of((moment) => moment.steps_per_second)),
        chart("waiting", number(history.at(-1)?.queued ?? 0), of((moment) => moment.queued)),
        h("p.soft.q-sum", t("stats.ended", { count: number(ended), time: duration(span) })),
        system.cost !== undefined && h("div.q-figure.q-cost", h("span", t("stats.cost", { time: duration(system.run_seconds) })), h("strong", money(system.cost)))));
  }

  #worker(worker, moments) {
    const { gpu, host } = worker;
    return h("section.card.q-machine",
      h("h2", t("stats.worker", { name: worker.description || worker.name }), h(`span.chip.${worker.alive ? "good" : "bad"}`, t(!worker.alive ? "stats.gone" : worker.draining ? "stats.leaving" : "stats.alive"))),
      h("p.soft.q-sum", worker.model ? t("stats.holds", { model: worker.model }) : t("stats.holds.none"), host && ` · ${t("stats.process", { ram: bytes(host.process_bytes) })}`),
      gpu && [
        h("p.soft.q-sum", [gpu.name, gpu.temperature_celsius && `${gpu.temperature_celsius} °C`].filter(Boolean).join(" · ")),
        gpu.utilisation_percent !== null && chart("gpu", `${number(gpu.utilisation_percent, 0)} %`, moments.map((moment) => moment?.gpu_utilisation_percent ?? 0), 100),
        chart("vram", t("stats.of", { used: bytes(gpu.memory_used_bytes), all: bytes(gpu.memory_total_bytes) }), moments.map((moment) => moment?.gpu_memory_used_bytes ?? 0), gpu.memory_total_bytes),
      ]);
  }
}

const chart = (name, told, values, most) =>
  h("div.q-chart", h("div.q-figure", h("span", t(`stats.${name}`)), h("strong", told)), sparkline(values, most));

const level = (name, told, share) =>
  h("div.q-chart", h("div.q-figure", h("span", t(`stats.${name}`)), h("strong", told)),
    h("div.meter", { role: "meter", aria: { label: `${t(`stats.${name}`)}: ${told}`, valuemin: 0, valuemax: 100, valuenow: Math.round(share * 100) } }, h("div", { style: { width: `${share * 100}%` } })));
