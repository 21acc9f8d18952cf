// A video's notes as people of the page's language read them. Those of a plan that was changed for want of memory are put together
// again from their parts; all others are the server's words.
import { has, t } from "../core/i18n.js";

const RUNG = /^plan_changed: out of memory \((\w+), step (\d+)\): (.+) → (.+), (the same|a slightly other) result$/;

const SHARED = /^shared by (\d+) ranks: (.+)$/, PART = /(cfg|ulysses|ring|fsdp)(?: (\d+))?/g;

export const isRung = (note) => RUNG.test(note);

export function said(note) {
  const found = RUNG.exec(note);
  if (!found) return shared(note) ?? note;
  const [, stage, step, before, after, result] = found;
  const where = has(`plan.stage.${stage}`) ? t(`plan.stage.${stage}`) : stage;
  return `${t(Number(step) ? "rung.step" : "rung", { stage: where, step, before, after })} ${t(result === "the same" ? "rung.same" : "rung.other")}`;
}

//: How several GPUs share a video, where a note says so; undefined for any other.
export function shared(note) {
  const [, n, plan] = SHARED.exec(note) ?? [];
  return n && t("shared", { n, parts: parts(plan) });
}

//: The parts of a plan, "cfg 2, ulysses 2, fsdp", in words.
export const parts = (plan) => [...plan.matchAll(PART)].map(([, part, n]) => t(`shared.${part}`, { n })).join(", ");
