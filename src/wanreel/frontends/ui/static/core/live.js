// Events of the caller's jobs, on ONE connection per browser.
//   on(f) -> stop: f({kind, job_id, seq, at, ...data}, id) for each event of any job, in order
//   onState(f) -> stop: f("off" | "connecting" | "open" | "lost")        state()
//   onResync(f) -> stop: f() when events may have been missed: read again what is shown
//   keep(key, wanted): a hidden tab normally lets go; with keep it holds on, to tell when its video is done
// The visible tab that holds the Web Lock reads /v1/events and hands each event to the others over a BroadcastChannel.
// It goes on after the last event it saw (Last-Event-ID), so nothing is missed over a lost connection or a restart.
// Where there are no Web Locks (plain http to another machine), each visible tab reads for itself.
import { address } from "./api.js";

const LOCK = "wanreel.live";
const RETRY = [500, 1000, 2000, 4000];
const SILENCE = 40_000; // ms; the server says something every 15 s
const channel = "BroadcastChannel" in window ? new BroadcastChannel(LOCK) : null;
const listeners = new Set(), watchers = new Set(), resyncers = new Set(), keepers = new Set();
let current = "off", lastId = null, leading = false, wanting = null;

export const state = () => current;
export const on = (f) => add(listeners, f);
export const onState = (f) => add(watchers, f);
export const onResync = (f) => add(resyncers, f);

export function keep(key, wanted) {
  if (wanted) keepers.add(key);
  else keepers.delete(key);
  attend();
}

export function start() {
  document.addEventListener("visibilitychange", attend);
  addEventListener("pagehide", () => wanting?.abort());
  addEventListener("pageshow", (event) => { if (event.persisted) attend(); });
  attend();
}

function add(set, f) {
  set.add(f);
  return () => set.delete(f);
}

function attend() {
  const wanted = !document.hidden || keepers.size > 0;
  if (wanted && !wanting) begin();
  else if (!wanted && wanting) {
    wanting.abort();
    wanting = null;
    tell("off");
  }
}

async function begin() {
  const stop = new AbortController();
  wanting = stop;
  channel?.postMessage({ hello: true });
  if (current === "off") tell("connecting");
  const lead = async () => {
    leading = true;
    try { await read(stop.signal); } finally { leading = false; }
  };
  try {
    if (channel && navigator.locks) await navigator.locks.request(LOCK, { signal: stop.signal }, lead);
    else await lead();
  } catch (fault) {
    if (fault.name !== "AbortError") throw fault;
  }
}

async function read(signal) {
  for (let tries = 0; !signal.aborted; tries += 1) {
    try {
      for await (const opened of stream(signal)) {
        if (opened === "open") { tries = 0; share({ state: "open" }); }
      }
    } catch { /* the connection broke: told below, and tried again */ }
    if (signal.aborted) return;
    share({ state: "lost" });
    await pause(RETRY[Math.min(tries, RETRY.length - 1)], signal);
  }
}

async function* stream(signal) {
  const quiet = new AbortController();
  const both = AbortSignal.any([signal, quiet.signal]);
  let timer = setTimeout(() => quiet.abort(), SILENCE);
  try {
    const headers = { Accept: "text/event-stream", ...(lastId === null ? {} : { "Last-Event-ID": String(lastId) }) };
    const response = await fetch(address("/v1/events"), { headers, signal: both, cache: "no-store" });
    if (response.status === 401) location.assign(address("/sign-in"));
    if (!response.ok) return;
    yield "open";
    if (lastId === null) share({ resync: true });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => quiet.abort(), SILENCE);
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      for (const part of parts) parse(part);
    }
  } finally {
    clearTimeout(timer);
  }
}

function parse(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const at = line.indexOf(": ");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 2);
  }
  if (fields.data && fields.id) share({ event: JSON.parse(fields.data), id: Number(fields.id) });
}

function share(message) {
  receive(message);
  channel?.postMessage(message);
}

function receive(message) {
  if (message.state) tell(message.state);
  if (message.resync) for (const f of resyncers) f();
  if (message.event && (lastId === null || message.id > lastId)) {
    lastId = message.id;
    for (const f of listeners) f(message.event, message.id);
  }
}

function tell(next) {
  if (next === current) return;
  const back = next === "open" && current === "lost";
  current = next;
  for (const f of watchers) f(next);
  if (back) for (const f of resyncers) f();
}

if (channel) {
  channel.onmessage = ({ data }) => {
    if (data.hello) {
      if (leading) channel.postMessage({ state: current });
    } else if (wanting && !leading) receive(data);
  };
}

const pause = (time, signal) => new Promise((done) => {
  const timer = setTimeout(done, time);
  signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
});
