// Sample: plays a video within its card while it is pointed at or has the focus; one at a time, silent, for nobody who asked
// for less motion.
import { address } from "../core/api.js";
import { h } from "../core/dom.js";

const PATIENCE = 180; // ms of rest before it plays

export class Sample {
  #timer = null;
  #video = null;

  attach(control, frame, id) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const begin = () => {
      this.stop();
      this.#timer = setTimeout(() => this.#play(frame, id), PATIENCE);
    };
    control.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") begin(); });
    control.addEventListener("focus", () => { if (control.matches(":focus-visible")) begin(); });
    control.addEventListener("pointerleave", () => this.stop());
    control.addEventListener("blur", () => this.stop());
  }

  stop() {
    clearTimeout(this.#timer);
    if (!this.#video) return;
    this.#video.removeAttribute("src"); // lets go of the connection
    this.#video.load();
    this.#video.remove();
    this.#video = null;
  }

  #play(frame, id) {
    const video = h("video", { src: address(`/v1/videos/${id}/content`), muted: true, loop: true, autoplay: true, playsInline: true, aria: { hidden: "true" } });
    video.addEventListener("error", () => this.stop());
    this.#video = video;
    frame.append(video);
  }
}
