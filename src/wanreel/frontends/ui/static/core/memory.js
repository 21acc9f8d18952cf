// What models take of this machine's GPU at their own size (GET /studio/memory). Nothing where nothing is predicted, as on a CPU.
//   await look() -> {model: {plan, fits, gpu_bytes}}, asked once; await look({fresh: true}) asks again
//   known(model) -> the same of one model, or null      fit({plan, fits, gpu_bytes}) -> "yes" | "offload" | "no" | null where unknown
//   gigabytes(bytes) -> "13.6", as cards are sold (2^30)
import * as api from "./api.js";
import { number } from "./i18n.js";

let asked = null, answer = {};

export function look({ fresh = false } = {}) {
  if (fresh) asked = null;
  asked ??= api.get("/studio/memory").then((found) => (answer = found), () => { asked = null; return answer; });
  return asked;
}

export const known = (model) => answer[model] ?? null;

export function fit(memory) {
  if (!memory?.gpu_bytes) return null;
  if (!memory.fits) return "no";
  return memory.plan === "resident" ? "yes" : "offload";
}

export const gigabytes = (count) => number(count / 2 ** 30, 1);
export const CHIPS = { yes: "good", offload: "tint", no: "bad" };
