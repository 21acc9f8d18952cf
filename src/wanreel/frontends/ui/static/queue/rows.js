// The rows of the queue: a video that runs, one that waits, one that ended. Knows nothing of where they stand.
import { address } from "../core/api.js";
import { $, h, icon } from "../core/dom.js";
import { has, number, t } from "../core/i18n.js";
import { ago, duration } from "../parts/format.js";
import { shared } from "../parts/notes.js";
import { remedy } from "./cures.js";

const PREVIEW_REST = 1200; // ms between two looks at a preview

const titleOf = (video, studio) => studio.setup.models.find((model) => model.name === video.model)?.title ?? video.model;
const facts = (video, studio) => `${titleOf(video, studio)} · ${video.size.replace("x", " × ")} · ${number(Number(video.seconds), 1)} s`;

const press = (name, mark, video, run, more = {}) => h("button.bare", {
  type: "button", title: t(name), aria: { label: `${t(name)}: ${video.prompt.slice(0, 60)}` }, dataset: { keep: `${name} ${video.id}` }, onclick: run, ...more,
}, icon(mark));

export function running(video, { studio, may, cancel }) {
  const { stage, step, total_steps: total, cancel_requested: leaving, notes } = video.wanreel;
  const gpus = notes.map(shared).findLast(Boolean);
  return h("article.card.q-card", { dataset: { id: video.id } },
    h("div.q-preview", step > 0 && stage === "denoise" ? preview(video.id, step) : icon("film")),
    h("div.q-body",
      h("p.q-words", video.prompt), h("p.soft.q-facts", facts(video, studio)), gpus && h("p.soft.q-facts.q-gpus", gpus),
      h("div.meter", { role: "progressbar", aria: { label: t("queue.progress"), valuemin: 0, valuemax: 100, valuenow: video.progress } }, h("div", { style: { width: `${video.progress}%` } })),
      h("p.q-told", h("span", told(leaving ? "leaving" : stage, step, total)), h("span.q-eta"))),
    may && h("button.quiet", { type: "button", disabled: leaving, dataset: { keep: `cancel ${video.id}` }, onclick: () => cancel(video) }, icon("stop"), t("queue.cancel")));
}

//: An event of a running video goes into its card; false where there is none.
export function follow(root, event) {
  const card = $(`[data-id="${event.job_id}"]`, root);
  if (!card) return false;
  const percent = event.total_steps ? Math.floor((95 * event.step) / event.total_steps) : 0;
  const meter = $("[role=progressbar]", card);
  meter.setAttribute("aria-valuenow", percent);
  meter.firstElementChild.style.width = `${percent}%`;
  $(".q-told span", card).textContent = told(event.stage, event.step, event.total_steps);
  $(".q-eta", card).textContent = event.eta_seconds ? t("queue.eta", { time: duration(event.eta_seconds) }) : "";
  const box = $(".q-preview", card);
  if (event.stage === "denoise" && Date.now() - Number(box.dataset.at ?? 0) > PREVIEW_REST) {
    box.dataset.at = Date.now();
    const image = preview(event.job_id, event.step);
    image.addEventListener("load", () => box.replaceChildren(image), { once: true });
  }
  return true;
}

function told(stage, step, total) {
  const words = has(`stage.${stage}`) ? t(`stage.${stage}`) : has(`queue.stage.${stage}`) ? t(`queue.stage.${stage}`) : stage;
  return stage === "denoise" && total ? `${words} · ${t("queue.step", { step: number(step), total: number(total) })}` : words;
}

function preview(id, step) {
  const image = h("img", { src: address(`/v1/videos/${id}/preview?step=${step}`), alt: "" });
  image.addEventListener("error", () => image.replaceWith(icon("film")), { once: true });
  return image;
}

export function waiting(video, { studio, may, cancel, edit, move, drag, at, of, before, after }) {
  const { starts_in: starts } = video.wanreel;
  const keys = (event) => {
    if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "ArrowUp" && at > 0) move(video, before, at);
    if (event.key === "ArrowDown" && at < of - 1) move(video, after, at + 2);
  };
  return h("li.q-row", {
    draggable: may, dataset: { id: video.id }, onkeydown: keys,
    ondragstart: (event) => { event.dataTransfer.effectAllowed = "move"; event.dataTransfer.setData("text/plain", video.id); drag(video.id); },
    ondragend: () => drag(null),
  },
    h("span.q-place", { aria: { label: t("queue.place", { place: at + 1 }) } }, number(at + 1)),
    h("div.q-body", h("p.q-words", video.prompt), h("p.soft.q-facts", facts(video, studio))),
    h("span.q-start.soft", starts === null ? t("queue.start.unknown") : starts < 5 ? t("queue.start.next") : t("queue.start", { time: duration(starts) })),
    may && h("div.q-tools",
      press("queue.up", "up", video, () => move(video, before, at), { disabled: at === 0 }),
      press("queue.down", "down", video, () => move(video, after, at + 2), { disabled: at === of - 1 }),
      press("queue.edit", "edit", video, () => edit(video)),
      press("queue.cancel", "close", video, () => cancel(video))));
}

export function ended(video, { studio, may, retry, cure, remove }) {
  const done = video.status === "completed";
  const open = () => studio.go("library", { id: video.id });
  return h("article.q-row.q-end", { dataset: { id: video.id } },
    done ? h("button.q-thumb", { type: "button", aria: { label: t("queue.open", { prompt: video.prompt }) }, dataset: { keep: `open ${video.id}` }, onclick: open },
      h("img", { src: address(`/v1/videos/${video.id}/content?variant=thumbnail`), alt: "", loading: "lazy" }), icon("play"))
      : h("span.q-thumb.q-bad", icon("warning")),
    h("div.q-body", h("p.q-words", video.prompt),
      h("p.soft.q-facts", facts(video, studio), " · ", ago(video.completed_at ?? video.created_at)),
      video.error && h("p.q-error", video.error.message)),
    may && !done && h("div.q-cures", remedy(video, { studio, cure }), h("button.quiet", { type: "button", dataset: { keep: `retry ${video.id}` }, onclick: () => retry(video) }, icon("retry"), t("queue.retry")),
      press("library.delete", "trash", video, () => remove(video))));
}
