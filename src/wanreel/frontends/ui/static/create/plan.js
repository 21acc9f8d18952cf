// The line above the button: what would run, and how that differs from what was asked (POST /v1/plan), a moment after each change.
import * as api from "../core/api.js";
import { clock, fill, h, icon } from "../core/dom.js";
import { money, t } from "../core/i18n.js";
import { CHIPS, fit, gigabytes } from "../core/memory.js";
import * as form from "./state.js";

const WAIT = 300; // ms after the last change
//: Told by the form itself already.
const KNOWN = new Set(["seed", "model"]);

//: faults(problems) shows those of fields and returns the rest; told(plan | null) at each answer; explain() shows why it runs so.
export function planLine({ faults, told, explain }) {
  const root = h("div.plan", { role: "status", aria: { live: "polite" } });
  let timer = null, running = null;

  function ask() {
    clearTimeout(timer);
    timer = setTimeout(look, WAIT);
  }

  async function look() {
    running?.abort();
    running = new AbortController();
    const request = form.toRequest();
    const now = form.values();
    const incomplete = (form.state.mode !== "text" && !now.image) || (form.state.mode === "first_last" && !now.last_image);
    if (incomplete) { told(null); return fill(root, h("div.plan-main.soft", t("plan.needs_picture"))); }
    try {
      show(await api.send("POST", "/v1/plan", { json: { ...request, prompt: request.prompt.trim() || "-" }, signal: running.signal }));
      faults([]);
    } catch (fault) {
      if (fault.name === "AbortError") return;
      const rest = faults(fault.problems ?? []);
      const told = fault.problems?.length ? rest : [{ message: fault.message, hint: fault.hint }];
      fill(root, told.map(({ message, hint }) => h("div.note.bad", icon("warning"), h("span", message, hint ? ` ${hint}` : ""))));
    }
  }

  function show(plan) {
    const { request } = plan;
    told(plan);
    const facts = [
      `${request.export_width} × ${request.export_height}`,
      t("plan.frames", { n: request.num_frames, seconds: (request.num_frames / request.fps).toFixed(2) }),
      t("plan.steps", { n: request.num_inference_steps }),
      ...predicted(plan),
    ];
    const notes = [...plan.adjustments.filter((one) => !KNOWN.has(one.field) || /download/.test(one.reason)).map(sentence), ...plan.notes];
    const fits = fit(plan.memory);
    fill(root, h("div.plan-main", facts.map((fact) => h("span", fact)), fits && h(`i.chip.${CHIPS[fits]}`, t(`fit.${fits}`)),
      plan.memory.gpu_bytes > 0 && h("button.plan-why", { type: "button", onclick: explain }, t("plan.why"))),
      plan.queued > 0 && h("div.help", t("plan.queued", { n: plan.queued })),
      notes.length > 0 && h("ul.plan-notes", notes.map((note) => h("li", note))));
  }

  return { root, ask };
}

//: Time and memory, where the server predicts them.
function predicted({ estimate, memory }) {
  const seconds = estimate.seconds ?? memory.seconds, cost = estimate.cost ?? memory.cost;
  return [
    ...(seconds ? [t("plan.time", { time: clock(seconds) })] : []),
    ...(Number.isFinite(cost) ? [t("plan.cost", { cost: money(cost) })] : []),
    ...(memory.gpu_bytes ? [t("plan.memory", { gb: gigabytes(memory.gpu_bytes) }), t(`plan.way.${memory.plan}`)] : []),
  ];
}

export function sentence({ field, asked, used, reason }) {
  const name = t(`knob.${field}`);
  const label = name === `knob.${field}` ? field : name;
  const change = asked === null || asked === undefined || asked === used ? used : `${asked} → ${used}`;
  return `${label}: ${change} (${reason})`;
}
