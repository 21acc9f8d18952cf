// Still pictures among what the library shows: where their files are, how one is looked at, and what is said of it.
import * as api from "../core/api.js";
import { h, icon } from "../core/dom.js";
import { has, number, t } from "../core/i18n.js";

export const isStill = (one) => one.object === "image";

//: Address of a file of either: a video's by its variant; of pictures a "thumbnail", the "manifest" or the one with a number.
export const fileOf = (one, variant, at = 1) => (isStill(one)
  ? api.address(`/v1/images/${one.id}/content?${["thumbnail", "manifest"].includes(variant) ? `variant=${variant}` : `number=${at}`}`)
  : api.address(`/v1/videos/${one.id}/content?variant=${variant}`));

export const count = (one) => one.wanreel.request.num_images ?? 1;

//: The picture with that number, and where there are several a row to choose from.
export function stillStage(one, at, pick) {
  const shown = h("img", { src: fileOf(one, "picture", at), alt: one.prompt });
  shown.addEventListener("error", () => shown.replaceWith(h("div.empty", icon("warning"), h("span", t("library.still.gone")))));
  const several = count(one) > 1 && h("div.l-stills", { role: "group", aria: { label: t("library.stills") } }, Array.from({ length: count(one) }, (_, n) =>
    h("button.bare", { type: "button", aria: { pressed: String(n + 1 === at), label: t("library.still.number", { number: n + 1 }) }, onclick: () => pick(n + 1) },
      h("img", { src: fileOf(one, "picture", n + 1), alt: "", loading: "lazy" }))));
  return h("div.l-still", shown, several);
}

const KNOBS = ["num_inference_steps", "guidance_scale", "solver", "strength", "seed", "refiner", "refiner_inference_steps", "high_noise_frac"];

//: What it was made with, as rows of a list.
export function stillRows(one) {
  const { request } = one.wanreel;
  const used = (name) => request[name] !== null && request[name] !== 0 && !(name === "strength" && !request.image);
  const rows = [["mode", t(`library.mode.${request.image ? "picture" : "text"}`)], ["size", one.size.replace("x", " × ")],
    ...KNOBS.filter((name) => name === "seed" || used(name)).map((name) => [name, typeof request[name] === "number" && name !== "seed" ? number(request[name], 2) : String(request[name])])];
  if (count(one) > 1) rows.push(["num_images", number(count(one))]);
  return rows.flatMap(([name, value]) => {
    const label = [`library.knob.${name}`, `knob.${name}`].find(has);
    return [h("dt", label ? t(label) : name.replaceAll("_", " ")), h("dd", value)];
  });
}
