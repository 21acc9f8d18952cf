// Telling that a video is done when nobody looks: title, and where it was asked for, a notification of the browser and a sound.
import { h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import * as live from "../core/live.js";
import * as prefs from "../core/prefs.js";
import { failed, toast } from "../core/toast.js";

const TITLE = "Wanreel";

export function title(video, running) {
  document.title = running ? `${video.progress} % · ${TITLE}` : TITLE;
  live.keep("create", running);
}

export function finished(video) {
  const good = video.wanreel.status === "completed";
  if (video.wanreel.status === "cancelled") return;
  toast(t(good ? "done.good" : "done.bad"), { kind: good ? "good" : "bad", hint: good ? short(video.prompt) : video.error?.message ?? "" });
  if (prefs.get("sound", false)) chime(good);
  if (document.hidden && prefs.get("notify", false) && window.Notification?.permission === "granted") {
    const note = new Notification(t(good ? "done.good" : "done.bad"), { body: short(video.prompt), tag: video.id });
    note.onclick = () => { focus(); note.close(); };
  }
}

export function bell() {
  const box = h("details.bell", h("summary", { aria: { label: t("bell.label") }, title: t("bell.label") }, icon("bell")));
  const asked = h("input", { type: "checkbox", id: "notify", checked: prefs.get("notify", false), onchange: async () => {
    if (asked.checked && (!window.Notification || (await Notification.requestPermission()) !== "granted")) {
      asked.checked = false;
      failed(new Error(t("bell.refused")));
    }
    prefs.set("notify", asked.checked);
  } });
  const sound = h("input", { type: "checkbox", id: "sound", checked: prefs.get("sound", false), onchange: () => { prefs.set("sound", sound.checked); if (sound.checked) chime(true); } });
  box.append(h("div.bell-menu", h("label.check", asked, t("bell.notify")), h("label.check", sound, t("bell.sound"))));
  return box;
}

const short = (text) => (text.length > 90 ? `${text.slice(0, 89)}…` : text);

function chime(good) {
  const context = new AudioContext();
  for (const [n, pitch] of (good ? [523, 784] : [330, 247]).entries()) {
    const tone = context.createOscillator(), gain = context.createGain(), at = context.currentTime + n * 0.14;
    tone.frequency.value = pitch;
    gain.gain.setValueAtTime(0.0001, at);
    gain.gain.exponentialRampToValueAtTime(0.12, at + 0.02);
    gain.gain.exponentialRampToValueAtTime(0.0001, at + 0.4);
    tone.connect(gain).connect(context.destination);
    tone.start(at);
    tone.stop(at + 0.45);
  }
  setTimeout(() => context.close(), 1200);
}
