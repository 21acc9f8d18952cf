// Continue: a dialog that queues a video which goes on from the one shown, and is joined to it.
//   openExtend(video, adopt): adopt(video) shows the one that was queued
import * as api from "../core/api.js";
import { h } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { dialog, slider } from "../create/controls.js";

export function openExtend(video, adopt) {
  const { num_frames: frames, fps } = video.wanreel.request;
  const wish = { seconds: frames / fps, overlap: 0, colour_match: 0 };
  const prompt = h("textarea", { id: "extend-prompt", rows: 3, value: video.prompt });
  const fault = h("p.fault", { role: "alert", hidden: true });
  const most = Math.max(0, Math.min(16, frames - 3));
  const go = h("button.primary", { type: "submit" }, t("extend.go"));
  const form = h("form", { onsubmit: send },
    h("p.soft", t("extend.help")),
    h("div.field", h("label", { htmlFor: "extend-prompt" }, t("extend.prompt")), prompt),
    slider("extend-seconds", { label: t("extend.seconds"), min: 0.5, max: 10, step: 0.1, value: Number(wish.seconds.toFixed(2)), unit: "s", hard: { min: 0.1, max: 60 }, onpick: (value) => { wish.seconds = value; } }),
    slider("extend-overlap", { label: t("extend.overlap"), help: t("extend.overlap.help"), min: 0, max: most, step: 1, value: 0, official: 0, onpick: (value) => { wish.overlap = value ?? 0; } }),
    slider("extend-colour", { label: t("extend.colour"), help: t("extend.colour.help"), min: 0, max: 1, step: 0.05, value: 0, official: 0, onpick: (value) => { wish.colour_match = value ?? 0; } }),
    fault, h("div.buttons", go));
  const box = dialog(t("extend.title"), form);
  prompt.focus();

  async function send(event) {
    event.preventDefault();
    go.disabled = true;
    try {
      const json = { video: { id: video.id }, prompt: prompt.value, seconds: wish.seconds, overlap: wish.overlap, colour_match: wish.colour_match };
      const queued = await api.send("POST", "/v1/videos/extensions", { json });
      box.close();
      adopt(queued);
    } catch (error) {
      fault.hidden = false;
      fault.textContent = `${error.message} ${error.hint ?? ""}`.trim();
      go.disabled = false;
    }
  }
}
