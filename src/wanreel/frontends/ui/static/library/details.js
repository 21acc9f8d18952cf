// One video, or one request for pictures: it plays, with everything that made it, and what can be done with it. Arrows go to its neighbours.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { has, moment, money, number, t } from "../core/i18n.js";
import { isRung, said } from "../parts/notes.js";
import { uploadLine } from "../parts/upload.js";
import { fileOf, isStill, stillRows, stillStage } from "./stills.js";

const HIDDEN = ["prompt", "negative_prompt", "image", "last_image", "loras", "metadata", "mode", "width", "height", "export_width", "export_height", "num_frames", "fps"];

//: gallery: {position(), step(by), favour(video), remove(video), closed()}
export function openDetails(video, studio, gallery) {
  let at = 1; // of several pictures
  const box = h("dialog.l-details", { aria: { label: t(isStill(video) ? "library.still.details" : "library.details") } });
  box.addEventListener("keydown", keys);
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  box.addEventListener("close", () => {
    box.querySelector("video")?.pause();
    box.remove();
    gallery.closed();
  });
  document.querySelector(".studio-screen:not([hidden])").append(box);
  draw();
  box.showModal();

  function draw() {
    const { request, status, favourite } = video.wanreel;
    const still = isStill(video), may = studio.setup.account.can_submit;
    const place = gallery.position();
    const button = (name, mark, run, kind = "quiet") => h(`button.${kind}`, { type: "button", onclick: run }, icon(mark), t(name));
    const star = h("button.bare", { type: "button", title: t("library.favourite"), aria: { label: t("library.favourite"), pressed: String(favourite) }, onclick: favour }, icon("star"));
    fill(box,
      h("div.l-top",
        place && h("button.bare", { type: "button", disabled: place.at === 1, aria: { label: t("library.previous") }, onclick: () => step(-1) }, icon("left")),
        place && h("span.soft", t("library.place", { at: number(place.at), of: number(place.of) })),
        place && h("button.bare", { type: "button", disabled: place.at === place.of, aria: { label: t("library.next") }, onclick: () => step(1) }, icon("right")),
        h("span.l-gap"), star,
        h("button.bare", { type: "button", aria: { label: t("close") }, onclick: () => box.close() }, icon("close"))),
      h("div.l-body",
        h("div.l-stage", stage()),
        h("div.l-about",
          h("h2", video.prompt),
          h("p.soft", [title(), video.size.replace("x", " × "), !still && `${number(Number(video.seconds), 1)} s`, moment(video.created_at)].filter(Boolean).join(" · ")),
          h("div.buttons",
            status === "completed" && h("a.primary", { href: fileOf(video, "video", at), download: "" }, icon("download"), t("library.save")),
            still && status === "completed" && may && button("library.begin", "create", begin),
            !still && may && button("library.reuse", "retry", reuse),
            !still && status === "completed" && may && button("library.show", "create", open),
            button("library.delete", "trash", remove, "danger")),
          !still && uploadLine(video, { names: studio.setup.storage.names, may: studio.setup.account.can_submit, done: (fresh) => { video = fresh; draw(); } }),
          video.error && h("p.note.bad", icon("warning"), video.error.message),
          video.wanreel.notes.map((note) => h("p.note", { class: isRung(note) ? "warn" : "" }, icon(isRung(note) ? "warning" : "info"), h("span", said(note)))),
          h("dl.l-recipe", still ? stillRows(video) : rows(request)),
          request.negative_prompt && h("details", h("summary", t("library.negative")), h("p.soft", request.negative_prompt)),
          status === "completed" && manifest())));
  }

  function stage() {
    if (video.wanreel.status !== "completed") return h("div.empty", icon("film"), h("span", t(`library.status.${video.wanreel.status}`)));
    if (isStill(video)) return stillStage(video, at, (other) => { at = other; draw(); box.querySelector(".l-stills [aria-pressed=true]").focus(); });
    const format = video.wanreel.request.output_format;
    if (format === "mov") return h("figure", h("img", { src: fileOf(video, "thumbnail"), alt: video.prompt }), h("figcaption.soft", t("result.mov")));
    if (format === "webp" || format === "gif") return h("img", { src: fileOf(video, "video"), alt: video.prompt });
    const player = h("video", { src: fileOf(video, "video"), poster: fileOf(video, "thumbnail"), controls: true, loop: true, autoplay: true, muted: true, playsInline: true, aria: { label: video.prompt } });
    player.addEventListener("error", () => player.replaceWith(h("div.empty", icon("warning"), h("span", t("library.gone")))));
    return player;
  }

  function title() {
    return studio.setup.models.find((model) => model.name === video.model)?.title ?? video.model;
  }

  function rows(request) {
    const size = (width, height) => `${width} × ${height}`;
    const generated = size(request.width, request.height), written = size(request.export_width, request.export_height);
    const usual = (name, value) => value === null || value === "" || value === 0 || (name === "on_oom" && value === "fail");
    const one = request.guidance_high === request.guidance_low;
    const shown = Object.entries(request).filter(([name, value]) => !HIDDEN.includes(name) && !usual(name, value) && !(one && name === "guidance_low"))
      .map(([name, value]) => (one && name === "guidance_high" ? ["guidance", value] : [name, inWords(name, value)]));
    if (!shown.some(([name]) => name === "seed")) shown.push(["seed", request.seed]);
    shown.splice(1, 0, ["mode", t(`library.mode.${request.mode}`)], ["size", written], ["length", t("library.length", { frames: number(request.num_frames), rate: number(request.fps) })]);
    if (generated !== written) shown.splice(3, 0, ["generated", generated]);
    if (video.wanreel.cost !== undefined) shown.push(["cost", money(video.wanreel.cost)]);
    if (request.loras.length) shown.push(["loras", request.loras.map((lora) => `${lora.name} ${lora.strength_high} / ${lora.strength_low}`).join(", ")]);
    return shown.flatMap(([name, value]) => {
      const label = [`library.knob.${name}`, `knob.${name}`].find(has);
      return [h("dt", label ? t(label) : name.replaceAll("_", " ")), h("dd", typeof value === "object" ? JSON.stringify(value) : String(value))];
    });
  }

  //: What it was made from, fetched when it is asked for.
  function manifest() {
    const shown = h("pre.l-manifest", { tabIndex: 0 });
    return h("details", {
      async ontoggle(event) {
        if (!event.target.open || shown.textContent) return;
        try {
          shown.textContent = JSON.stringify(await api.get(isStill(video) ? `/v1/images/${video.id}/content?variant=manifest` : `/v1/videos/${video.id}/manifest`), null, 2);
        } catch (error) {
          shown.textContent = error.message;
        }
      },
    }, h("summary", t("library.manifest")), shown);
  }

  async function step(by) {
    const next = await gallery.step(by);
    if (!next) return;
    video = next;
    at = 1;
    draw();
    box.focus();
  }

  async function favour() {
    video = await gallery.favour(video);
    draw();
    box.querySelector(".l-top [aria-pressed]").focus();
  }

  async function remove() {
    if (await gallery.remove(video)) box.close();
  }

  function reuse() {
    box.close();
    studio.go("create", { again: video.id });
  }

  //: The picture becomes the first one of a video.
  function begin() {
    box.close();
    studio.go("create", { still: video.id, number: String(at) });
  }

  //: Beside the form, where it can be gone on from, varied and compared.
  function open() {
    box.close();
    studio.go("create", { id: video.id });
  }

  function keys(event) {
    if (event.target.matches("video, pre, input")) return;
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "Delete") remove();
    else if (event.key === "f" && !event.ctrlKey && !event.metaKey) favour();
    else return;
    event.preventDefault();
  }
}

//: What a knob's value is called on the page.
function inWords(name, value) {
  if (name === "output_format") return value.toUpperCase();
  if (typeof value === "boolean") return t(value ? "settings.on" : "settings.off");
  const key = { quality: `quality.${value}`, memory_mode: `memory.mode.${value}`, offload: `memory.way.${value}`, precision: `memory.precision.${value}`, on_oom: `memory.on_oom.${value}` }[name];
  return key && has(key) ? t(key) : value;
}
