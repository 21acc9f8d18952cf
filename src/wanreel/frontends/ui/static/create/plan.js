// The line above the button: what would run, and how that differs from what was asked (POST /v1/plan), a moment after each change.
import * as api from "../core/api.js";
import { clock, fill, h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { CHIPS, fit, gigabytes } from "../core/memory.js";
import * as form from "./state.js";

const WAIT = 300; // ms after the last change
//: Told by the form itself already.
const KNOWN = new Set(["seed", "model"]);

export function planLine({ faults }) {
  const root = h("div.plan", { role: "status", aria: { live: "polite" } });
  let timer = null, running = null, opened = false;

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
    if (incomplete) return fill(root, h("div.plan-main.soft", t("plan.needs_picture")));
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
    const facts = [
      `${request.export_width} × ${request.export_height}`,
      t("plan.frames", { n: request.num_frames, seconds: (request.num_frames / request.fps).toFixed(2) }),
      t("plan.steps", { n: request.num_inference_steps }),
      ...predicted(plan),
    ];
    const notes = [...plan.adjustments.filter((one) => !KNOWN.has(one.field) || /download/.test(one.reason)).map(sentence), ...plan.notes];
    const fits = fit(plan.memory);
    fill(root, h("div.plan-main", facts.map((fact) => h("span", fact)), fits && h(`i.chip.${CHIPS[fits]}`, t(`fit.${fits}`))),
      plan.queued > 0 && h("div.help", t("plan.queued", { n: plan.queued })),
      notes.length > 0 && h("ul.plan-notes", notes.map((note) => h("li", note))),
      explained(plan.memory));
  }

  //: Why it runs so, for those who ask. Stays open while the plan changes.
  function explained(memory) {
    if (!memory.reasons.length) return null;
    const share = (name, bytes) => bytes > 0 && h("div", h("dt", name), h("dd", t("plan.gb", { gb: gigabytes(bytes) })));
    return h("details.plan-why", { open: opened, ontoggle: (event) => { opened = event.target.open; } },
      h("summary", t("plan.why")),
      h("ul.plan-notes", memory.reasons.map((reason) => h("li", reason)), !memory.exact && h("li", t("plan.rounded", { precision: memory.precision }))),
      memory.gpu_bytes > 0 && h("dl.facts", memory.stages.map((stage) => share(t(`plan.stage.${stage.stage}`), stage.peak)), share(t("plan.host"), memory.host_bytes)));
  }

  return { root, ask };
}

//: Time and memory, where the server predicts them.
function predicted({ estimate, memory }) {
  return [
    ...(Number.isFinite(estimate.seconds) ? [t("plan.time", { time: clock(estimate.seconds) })] : []),
    ...(memory.gpu_bytes ? [t("plan.memory", { gb: gigabytes(memory.gpu_bytes) }), t(`plan.way.${memory.plan}`)] : []),
  ];
}

export function sentence({ field, asked, used, reason }) {
  const name = t(`knob.${field}`);
  const label = name === `knob.${field}` ? field : name;
  const change = asked === null || asked === undefined || asked === used ? used : `${asked} → ${used}`;
  return `${label}: ${change} (${reason})`;
}
