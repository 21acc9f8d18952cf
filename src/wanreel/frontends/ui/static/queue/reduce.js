// A smaller video in the place of one that ran out of memory: every change is shown before, and the new one is linked to the old.
//   openReduce(video, {other, done}): other() is asked for a change of one's own; done(video) once the new one is queued
import * as api from "../core/api.js";
import { clock, fill, h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { gigabytes } from "../core/memory.js";
import { toast } from "../core/toast.js";
import { dialog } from "../create/controls.js";
import { styled } from "../parts/style.js";

await styled("edit.css", import.meta.url);

export async function openReduce(video, { other, done }) {
  const place = h("div", h("p.help", { role: "status" }, t("loading")));
  const go = h("button.primary", { type: "button", disabled: true, onclick: send }, icon("minus"), t("reduce.agree"));
  const box = dialog(t("reduce.title"), [h("p.soft", t("reduce.text")), place,
    h("div.buttons.p-answers", h("button.quiet", { type: "button", onclick: () => { box.close(); other(); } }, icon("edit"), t("reduce.other")), go)]);
  try {
    const plan = await api.get(`/v1/videos/${video.id}/reduce`);
    fill(place, changes(video.wanreel.request, plan.request), expected(plan));
    go.disabled = false;
    go.focus();
  } catch (fault) {
    tell(fault);
  }

  function tell(fault) {
    fill(place, h("p.note.bad", { role: "alert" }, icon("warning"), h("span", fault.message, fault.hint ? ` ${fault.hint}` : "")));
  }

  async function send() {
    go.disabled = true;
    try {
      const made = await api.send("POST", `/v1/videos/${video.id}/reduce`);
      box.close();
      toast(t("reduce.done"), { kind: "good" });
      done(made);
    } catch (fault) {
      tell(fault);
    }
  }
}

//: What differs, in the words of people: the size of the file, and the length.
function changes(before, after) {
  const size = (request) => `${request.export_width} × ${request.export_height}`;
  const length = (request) => t("length.told", { seconds: (request.num_frames / request.fps).toFixed(2), frames: request.num_frames });
  const known = [[t("size.label"), size(before), size(after)], [t("length.label"), length(before), length(after)]];
  const told = new Set(["width", "height", "export_width", "export_height", "num_frames"]);
  const more = Object.keys(after).filter((name) => !told.has(name) && JSON.stringify(before[name]) !== JSON.stringify(after[name])).map((name) => [t(`knob.${name}`), String(before[name]), String(after[name])]);
  return h("dl.r-changes", [...known, ...more].filter(([, old, now]) => old !== now).map(([name, old, now]) => h("div", h("dt", name), h("dd", h("s", old), icon("right"), h("strong", now)))));
}

function expected({ memory, estimate, machine }) {
  const seconds = estimate.seconds ?? memory.seconds;
  const told = [seconds ? t("plan.time", { time: clock(seconds) }) : "", memory.gpu_bytes ? t("reduce.memory", { used: gigabytes(memory.gpu_bytes), all: gigabytes(machine.gpu_bytes) }) : ""].filter(Boolean);
  return told.length ? h("p.help", told.join(" · ")) : null;
}
