// What helps against an error: its button, and the dialog that proposes a change before the video is tried again.
//   remedy(video, {studio, cure}) -> button | null     openCure(video, studio, advice, done): done(video) once it is queued again
import * as api from "../core/api.js";
import { h } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { styled } from "../parts/style.js";
import { openEdit } from "./edit.js";
import { openReduce } from "./reduce.js";

await styled("edit.css", import.meta.url);

//: By the error's code: a change of knobs, or another screen. Else trying again is all there is.
const CURES = {
  out_of_memory: { edit: "smaller" },
  timeout: { edit: "shorter" },
  numerical_fault: { edit: "seed" },
  invalid_request: { edit: "request" },
  model_not_installed: { go: "models" },
  broken_weights: { go: "models" },
  missing_dependency: { go: "models" },
  insufficient_storage: { go: "library" },
};

export function remedy(video, { studio, cure }) {
  const known = CURES[video.error?.code];
  if (!known) return null;
  const own = { type: "button", dataset: { act: "cure" } };
  if (known.go) return h("button.primary", { ...own, onclick: () => studio.go(known.go) }, t(`queue.go.${known.go}`));
  return h("button.primary", { ...own, onclick: () => cure(video, known.edit) }, t(`queue.cure.${known.edit}`));
}

export function openCure(video, studio, advice, done) {
  if (advice === "smaller") openReduce(video, { done, other: () => openChange(video, studio, advice, done) });
  else openChange(video, studio, advice, done);
}

function openChange(video, studio, advice, done) {
  openEdit(video, studio, { title: t("queue.cure.title"), text: video.error.message, agree: t("queue.cure.agree"), advice, send: (changes) => api.send("POST", `/v1/videos/${video.id}/retry`, { json: changes }), done });
}
