// "Change the picture first": an instruction after which the start picture is edited before the video is made.
import { h } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { withFault } from "./controls.js";
import * as form from "./state.js";

export function keyframeField(now, opened) {
  const area = h("textarea#knob-edit_prompt", {
    rows: 2, value: now.edit_prompt ?? "", maxLength: form.knob("edit_prompt").maximum, placeholder: t("keyframe.placeholder"),
    oninput: () => { form.change({ edit_prompt: area.value.trim() ? area.value : null }); box.fault(""); },
  });
  const box = withFault(h("div.field", h("label", { htmlFor: "knob-edit_prompt" }, t("knob.edit_prompt")), area, h("div.help", t("knob.edit_prompt.help"))), "edit_prompt");
  return h("details", { open: opened.has("keyframe") || Boolean(now.edit_prompt), dataset: { part: "keyframe" } },
    h("summary", t("part.keyframe"), now.edit_prompt && h("span.soft.aside", t("own"))), h("div.details", box));
}
