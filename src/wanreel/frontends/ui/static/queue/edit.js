// Changing a video that waits, or one that failed before it is tried again. Fields, bounds and words come from the knobs.
import { fill, h, icon } from "../core/dom.js";
import { has, t } from "../core/i18n.js";
import { toast } from "../core/toast.js";

const FIELDS = ["prompt", "negative_prompt", "size", "num_frames", "num_inference_steps", "seed", "guidance_high", "flow_shift"];

//: job: {title, text, agree, advice, send(changes), done(answer)}. advice names what is changed for a start; see `advised`.
export function openEdit(video, studio, job) {
  const { request } = video.wanreel;
  const model = studio.setup.models.find((one) => one.name === video.model);
  const before = { ...request, size: `${request.export_width}x${request.export_height}` };
  const after = { ...before, ...advised(job.advice, before, model) };
  const problems = h("div", { role: "alert" });
  const save = h("button.primary", { type: "submit" }, job.agree);
  const form = h("form", { method: "dialog", onsubmit: submit },
    h("h2#q-edit", job.title), job.text && h("p.note.bad", icon("warning"), job.text),
    FIELDS.map(field), problems,
    h("div.buttons.p-answers", h("button.button", { type: "button", onclick: () => box.close() }, t("parts.keep")), save));
  const box = h("dialog.q-edit", { aria: { labelledby: "q-edit" } }, form);
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  box.addEventListener("close", () => box.remove());
  document.querySelector(".studio-screen:not([hidden])").append(box);
  box.showModal();

  function field(name) {
    const knob = studio.setup.knobs[name];
    const id = `q-edit-${name}`;
    const label = has(`knob.${name}`) ? t(`knob.${name}`) : t(`queue.knob.${name}`);
    const help = name === "num_frames" ? t("queue.frames.hint", { stride: model?.stride ?? 4 }) : "";
    const changed = after[name] !== before[name];
    return h("div.field", h("label", { htmlFor: id }, label, changed && h("span.chip.tint", t("queue.suggested"))), control(name, knob, id), help && h("p.help", help));
  }

  function control(name, knob, id) {
    const own = { id, name };
    if (name === "size") {
      const known = Object.values(model?.sizes ?? {}).flatMap((size) => [`${size.width}x${size.height}`, `${size.height}x${size.width}`]);
      const sizes = [...new Set([after.size, before.size, ...known])];
      return h("select", own, sizes.map((size) => h("option", { value: size, selected: size === after.size }, size.replace("x", " × "))));
    }
    if (knob.kind === "text") return h("textarea", { ...own, rows: name === "prompt" ? 3 : 2, maxLength: knob.maximum, value: after[name], required: name === "prompt" });
    return h("input", { ...own, type: "number", min: knob.minimum, max: knob.maximum, step: knob.kind === "integer" ? 1 : "any", value: after[name], required: true });
  }

  //: Only what differs is sent: everything else stays as it was resolved.
  function changes() {
    const given = Object.fromEntries(FIELDS.map((name) => {
      const value = form.elements[name].value;
      return [name, typeof before[name] === "number" ? Number(value) : value];
    }));
    return Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== before[name]).flatMap(([name, value]) => {
      if (name !== "size") return [[name, value]];
      const [width, height] = value.split("x").map(Number);
      return [["width", width], ["height", height]];
    }));
  }

  async function submit(event) {
    event.preventDefault();
    save.disabled = true;
    try {
      const answer = await job.send(changes());
      box.close();
      toast(t("queue.saved"), { kind: "good" });
      job.done(answer);
    } catch (error) {
      const told = error.problems?.length ? error.problems : [{ message: error.message, hint: error.hint }];
      fill(problems, told.map((one) => h("p.fault", icon("warning"), [one.field, one.message, one.hint].filter(Boolean).join(" "))));
    } finally {
      save.disabled = false;
    }
  }
}

//: A first proposal against what went wrong, for a person to accept or change.
function advised(advice, before, model) {
  const stride = model?.stride ?? 4;
  const half = Math.max(1, Math.round(before.num_frames / 2 / stride) * stride + 1);
  if (advice === "smaller") {
    const area = before.width * before.height;
    const smaller = Object.values(model?.sizes ?? {}).filter((size) => size.width * size.height < area).sort((a, b) => b.width * b.height - a.width * a.height)[0];
    if (!smaller) return { num_frames: half };
    const upright = before.height > before.width;
    return { size: upright ? `${Math.min(smaller.width, smaller.height)}x${Math.max(smaller.width, smaller.height)}` : `${smaller.width}x${smaller.height}` };
  }
  if (advice === "shorter") return { num_frames: half };
  if (advice === "seed") return { seed: (before.seed + 1) % 2 ** 31 };
  return {};
}
