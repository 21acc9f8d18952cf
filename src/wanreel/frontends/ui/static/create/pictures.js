// The picture inputs: drop, choose, paste, webcam, a frame of an earlier video; then position it in the frame.
// What the server does not read but the browser does (GIF, BMP, AVIF …) is handed in as PNG.
import * as api from "../core/api.js";
import { fill, h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { failed } from "../core/toast.js";
import { dialog, withFault } from "./controls.js";
import { position } from "./crop.js";
import * as form from "./state.js";

const READ_BY_SERVER = new Set(["image/png", "image/jpeg", "image/webp"]);
const LARGEST = 25 * 2 ** 20; // bytes; larger ones are made again as PNG of at most LONGEST
const LONGEST = 4096;
const originals = new Map(); // upload id: the picture as it was given, for another crop
const busy = new Set();

export async function takeFiles(files, knob) {
  const wanted = files.slice(0, form.state.mode === "first_last" ? 2 : 1);
  const knobs = wanted.length === 2 ? ["image", "last_image"] : [knob];
  await Promise.all(wanted.map((file, n) => take(file, knobs[n])));
}

async function take(file, knob, original = null) {
  const mode = form.state.mode;
  busy.add(knob);
  form.change({ [knob]: form.values()[knob] });
  try {
    const sent = await readable(file);
    const body = new FormData();
    body.append("file", sent, sent.name);
    body.append("purpose", "user_data");
    const kept = await api.upload("/v1/files", body);
    originals.set(kept.id, original ?? file);
    form.change({ [knob]: { id: kept.id, width: kept.width, height: kept.height, name: file.name, notes: kept.notes } }, { mode });
  } catch (fault) {
    failed(fault);
  } finally {
    busy.delete(knob);
    form.change({ [knob]: form.values()[knob] });
  }
}

async function readable(file) {
  if (READ_BY_SERVER.has(file.type) && file.size <= LARGEST) return file;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    throw new api.ApiError(t("picture.unreadable", { name: file.name }), { hint: t("picture.unreadable.hint") });
  }
  const scale = Math.min(1, LONGEST / Math.max(picture.width, picture.height));
  const canvas = new OffscreenCanvas(Math.round(picture.width * scale), Math.round(picture.height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  return new File([blob], `${file.name.replace(/\.\w+$/, "")}.png`, { type: "image/png" });
}

export function pictureField(knob, label) {
  const held = form.values()[knob];
  const input = h("input.sr", { type: "file", accept: "image/*", id: `knob-${knob}-file`, tabIndex: -1, aria: { hidden: "true" },
    onchange: () => { if (input.files.length) takeFiles([...input.files], knob); } });
  const drop = {
    ondragover: (event) => { event.preventDefault(); box.classList.add("over"); },
    ondragleave: () => box.classList.remove("over"),
    ondrop: (event) => {
      const files = [...event.dataTransfer.files].filter((file) => !file.type.startsWith("video/"));
      if (!files.length) return;
      event.preventDefault();
      event.stopPropagation();
      box.classList.remove("over");
      takeFiles(files, knob);
    },
  };
  const box = h("div.picture", { class: held ? "held" : "", ...drop }, input, held ? shown(knob, held, label, input) : empty(knob, label, input));
  return withFault(h("div.field.picture-field", h("span.label", label, held ? h("span.soft", `${held.width} × ${held.height}`) : null), box), knob);
}

function empty(knob, label, input) {
  if (busy.has(knob)) return h("div.picture-empty", h("span.spinner"), t("picture.taking"));
  return h("div.picture-empty",
    h("button.picture-pick", { type: "button", id: `knob-${knob}`, aria: { label: `${label}: ${t("picture.choose")}` }, onclick: () => input.click() },
      icon("image"), h("strong", t("picture.choose")), h("span.soft", t("picture.ways"))),
    h("div.buttons",
      h("button.quiet", { type: "button", onclick: () => pastFrames(knob) }, icon("history"), t("picture.past")),
      navigator.mediaDevices?.getUserMedia ? h("button.quiet", { type: "button", onclick: () => webcam(knob) }, icon("camera"), t("picture.webcam")) : null));
}

function shown(knob, held, label, input) {
  const source = api.address(`/studio/pictures/${held.id}`);
  return [
    h("img", { src: source, alt: t("picture.alt", { label }), onerror: () => form.change({ [knob]: null }) }),
    h("div.picture-tools",
      h("button.quiet", { type: "button", id: `knob-${knob}`, onclick: () => crop(knob, held, source) }, icon("crop"), t("picture.position")),
      h("button.quiet", { type: "button", onclick: () => input.click() }, icon("image"), t("picture.other")),
      h("button.bare", { type: "button", aria: { label: t("picture.remove", { label }) }, title: t("picture.remove", { label }), onclick: () => form.change({ [knob]: null }) }, icon("close"))),
    held.notes?.length ? h("div.help.picture-notes", held.notes.join(" ")) : null,
  ];
}

async function crop(knob, held, source) {
  const original = originals.get(held.id) ?? (await (await api.raw("GET", `/studio/pictures/${held.id}`)).blob());
  const { resolution } = form.official();
  const shape = form.aspect();
  const frame = shape === "picture" ? { width: held.width, height: held.height } : form.sizeOf(resolution, shape);
  const blob = await position(original, frame, held.name);
  if (blob) await take(new File([blob], held.name || "picture.png", { type: "image/png" }), knob, original);
}

async function pastFrames(knob) {
  const grid = h("div.past", h("div.help", t("loading")));
  const box = dialog(t("past.title"), [h("p.soft", t("past.help")), grid], { wide: true });
  try {
    const [videos, stills] = await Promise.all(["videos", "images"].map((kind) => api.get(`/v1/${kind}?status=completed&limit=60`)));
    const data = [...videos.data, ...stills.data].sort((one, other) => other.created_at - one.created_at).slice(0, 60);
    fill(grid, data.length ? data.map((made) => past(made, async (path) => {
      box.close();
      const response = await api.raw("GET", path);
      if (!response.ok) return failed(new api.ApiError(t("past.gone")));
      const blob = await response.blob();
      await take(new File([blob], `${made.id}.${blob.type === "image/png" ? "png" : "jpg"}`, { type: blob.type }), knob);
    })) : h("div.empty", icon("film"), t("past.none")));
  } catch (fault) {
    fill(grid, h("div.note.bad", fault.message));
  }
}

function past(made, use) {
  const button = (path, label) => h("button.quiet", { type: "button", onclick: () => use(path) }, label);
  const still = made.object === "image";
  const path = (what) => (still ? `/v1/images/${made.id}/content?number=${what}` : `/v1/videos/${made.id}/content?variant=${what}`);
  return h("div.past-video", h("img", { src: api.address(still ? path(1) : path("last_frame")), alt: made.prompt, loading: "lazy" }),
    h("div.buttons", still
      ? Array.from({ length: made.wanreel.request.num_images }, (_, n) => button(path(n + 1), made.wanreel.request.num_images > 1 ? t("library.still.number", { number: n + 1 }) : t("past.still")))
      : [button(path("last_frame"), t("past.last")), button(path("thumbnail"), t("past.poster"))]));
}

async function webcam(knob) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
  } catch (fault) {
    return failed(new api.ApiError(t("webcam.refused"), { hint: fault.message }));
  }
  const video = h("video.webcam", { autoplay: true, muted: true, playsInline: true });
  video.srcObject = stream;
  const stop = () => { for (const track of stream.getTracks()) track.stop(); };
  const box = dialog(t("picture.webcam"), [video, h("div.buttons", h("button.primary", { type: "button", onclick: async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" });
    box.close();
    take(new File([blob], "webcam.png", { type: "image/png" }), knob);
  } }, icon("camera"), t("webcam.take")))], { onclose: stop });
}
