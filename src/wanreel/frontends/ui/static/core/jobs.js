// Videos that some screen shows, kept up to date from the one event stream.
//   await look(id) -> Video (reads it and follows it)   follow(video)   known(id)   on(f) -> stop: f(video, event | null) at each change
// A step event changes {wanreel: {stage, step, total_steps}, progress, eta_seconds, eta_at}; any other reads the video again.
import * as api from "./api.js";
import * as live from "./live.js";

const MOST = 500;
const videos = new Map();
const listeners = new Set();
const ended = (video) => ["completed", "failed", "cancelled"].includes(video.wanreel.status);

export const known = (id) => videos.get(id) ?? null;
export const on = (f) => { listeners.add(f); return () => listeners.delete(f); };
export const running = (video) => Boolean(video) && !ended(video);

export function follow(video) {
  const before = videos.get(video.id);
  // Adjustments are told once, when the video is accepted.
  if (before && !video.wanreel.adjustments.length) video.wanreel.adjustments = before.wanreel.adjustments;
  if (before && running(video)) Object.assign(video, { eta_seconds: before.eta_seconds, eta_at: before.eta_at, detail: before.detail });
  videos.delete(video.id);
  videos.set(video.id, video);
  for (const id of videos.keys()) {
    if (videos.size <= MOST) break;
    if (ended(videos.get(id))) videos.delete(id);
  }
  return video;
}

export async function look(id) {
  const video = follow(await api.get(`/v1/videos/${id}`));
  for (const f of listeners) f(video, null);
  return video;
}

const reading = new Map(); // id: a second read is wanted

async function reread(id, event) {
  if (reading.has(id)) return reading.set(id, event);
  reading.set(id, null);
  try {
    const video = follow(await api.get(`/v1/videos/${id}`));
    for (const f of listeners) f(video, event);
  } catch (fault) {
    if (fault.status === 404) videos.delete(id);
  } finally {
    const next = reading.get(id);
    reading.delete(id);
    if (next) reread(id, next);
  }
}

live.on((event) => {
  const video = videos.get(event.job_id);
  if (!video) return;
  if (event.kind !== "step" || video.wanreel.status !== "in_progress") return reread(event.job_id, event);
  Object.assign(video.wanreel, { stage: event.stage, step: event.step, total_steps: event.total_steps });
  const share = event.stage === "decode" && event.total_frames ? 0.95 + 0.04 * (event.frames / event.total_frames) : 0.95 * (event.step / Math.max(1, event.total_steps));
  Object.assign(video, { progress: Math.round(100 * share), eta_seconds: event.eta_seconds ?? null, eta_at: Date.now(), detail: event });
  for (const f of listeners) f(video, event);
});

live.onResync(() => { for (const video of [...videos.values()]) if (running(video)) reread(video.id, null); });
