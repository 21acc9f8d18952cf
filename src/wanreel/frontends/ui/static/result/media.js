// What a finished video is shown with: a looping player, or a picture for the animated formats; from our own authorised routes.
//   file(video, variant) -> address    player(video, {controls}) -> element     compare(one, other): both side by side, in step
import { address } from "../core/api.js";
import { clock, h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { dialog } from "../create/controls.js";

export const file = (video, variant = "video") => address(`/v1/videos/${video.id}/content${variant === "video" ? "" : `?variant=${variant}`}`);
const isAnimation = (video) => ["webp", "gif"].includes(video.wanreel.request.output_format);

export function player(video, { controls = true } = {}) {
  if (video.wanreel.request.output_format === "mov") {
    return h("figure.player-still", h("img.player", { src: file(video, "thumbnail"), alt: video.prompt }), h("figcaption.soft", t("result.mov")));
  }
  if (isAnimation(video)) return h("img.player", { src: file(video), alt: video.prompt });
  const element = h("video.player", { src: file(video), poster: file(video, "thumbnail"), loop: true, muted: true, autoplay: true, playsInline: true, controls, aria: { label: video.prompt } });
  element.disablePictureInPicture = false;
  return element;
}

const DRIFT = 0.06; // s that two players may be apart before one is set right

export function compare(one, other) {
  const pair = [one, other].map((video) => player(video, { controls: false }));
  const [first, second] = pair;
  const moving = pair.every((element) => element.tagName === "VIDEO");
  const seek = h("input", { type: "range", min: 0, max: 1, step: 0.001, value: 0, aria: { label: t("compare.seek") } });
  const told = h("span.soft.mono", "0:00");
  const toggle = h("button.primary", { type: "button", aria: { label: t("compare.play") } }, icon("pause"));
  let frame = 0;

  const step = () => {
    if (first.duration) {
      const share = first.currentTime / first.duration;
      seek.value = share;
      seek.style.setProperty("--at", `${share * 100}%`);
      told.textContent = clock(first.currentTime);
      const wanted = Math.min(first.currentTime, second.duration || first.currentTime);
      if (Math.abs(second.currentTime - wanted) > DRIFT && !second.seeking) second.currentTime = wanted;
    }
    frame = requestAnimationFrame(step);
  };
  const play = (on) => {
    for (const element of pair) { if (on) element.play().catch(() => {}); else element.pause(); }
    toggle.replaceChildren(icon(on ? "pause" : "play"));
  };
  toggle.addEventListener("click", () => play(first.paused));
  seek.addEventListener("input", () => { for (const element of pair) if (element.duration) element.currentTime = seek.value * first.duration; });

  const column = (video, element) => h("figure", element, h("figcaption", h("strong", `${video.model} · ${t("seed.told", { seed: video.seed })}`),
    h("span.soft", differences(video, video === one ? other : one)), h("span.compare-prompt", video.prompt)));
  dialog(t("compare.title"), [h("div.compare", column(one, first), column(other, second)),
    moving ? h("div.compare-bar", toggle, seek, told) : null], { wide: true, onclose: () => { cancelAnimationFrame(frame); for (const element of pair) element.pause?.(); } });
  if (moving) { play(true); step(); }
}

const SHOWN = ["num_inference_steps", "guidance_high", "guidance_low", "flow_shift", "solver", "num_frames", "export_width", "export_height", "fps"];

function differences(video, other) {
  const [mine, theirs] = [video.wanreel.request, other.wanreel.request];
  const found = SHOWN.filter((name) => mine[name] !== theirs[name]).map((name) => `${t(`knob.${name}`)} ${mine[name]}`);
  return found.length ? found.join(" · ") : t("compare.same");
}
