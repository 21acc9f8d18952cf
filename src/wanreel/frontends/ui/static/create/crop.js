// Where the picture lies in the frame: drag, zoom, arrow keys; cover the frame, or show all of it over a blurred or plain ground.
//   await position(blob, {width, height}, name) -> PNG Blob with the frame's aspect, or null when given up
import { h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { dialog, seg } from "./controls.js";

const LONGEST = 2048; // px of the result
const SHOWN = { width: 640, height: 420 }; // px at most on the screen

export async function position(blob, frame, name) {
  const picture = await createImageBitmap(blob);
  const aspect = frame.width / frame.height;
  const view = { width: Math.min(SHOWN.width, SHOWN.height * aspect) };
  view.height = view.width / aspect;
  // In units of the frame's width: the picture's centre, and its scale over the one that covers.
  const place = { x: 0, y: 0, zoom: 1, fit: "cover", ground: "blur" };
  const cover = Math.max(1 / picture.width, 1 / aspect / picture.height), contain = Math.min(1 / picture.width, 1 / aspect / picture.height);

  const clamp = () => {
    const scale = (place.fit === "cover" ? cover : contain) * place.zoom;
    const spareX = (scale * picture.width - 1) / 2, spareY = (scale * picture.height - 1 / aspect) / 2;
    const within = (value, spare) => Math.max(-Math.abs(spare), Math.min(Math.abs(spare), value));
    place.x = within(place.x, spareX);
    place.y = within(place.y, spareY);
    return scale;
  };

  function paint(canvas) {
    const context = canvas.getContext("2d"), unit = canvas.width;
    const scale = clamp() * unit;
    const [width, height] = [picture.width * scale, picture.height * scale];
    context.imageSmoothingQuality = "high";
    context.fillStyle = place.ground === "white" ? "#fff" : "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (place.fit === "pad" && place.ground === "blur") {
      const wide = cover * unit * 1.15;
      context.filter = `blur(${unit / 28}px) brightness(.82)`;
      context.drawImage(picture, canvas.width / 2 - (picture.width * wide) / 2, canvas.height / 2 - (picture.height * wide) / 2, picture.width * wide, picture.height * wide);
      context.filter = "none";
    }
    context.drawImage(picture, canvas.width / 2 + place.x * unit - width / 2, canvas.height / 2 + place.y * unit - height / 2, width, height);
  }

  const canvas = h("canvas.crop", { width: Math.round(view.width * 2), height: Math.round(view.height * 2), tabIndex: 0, role: "application",
    aria: { label: t("crop.canvas") }, style: { width: `${view.width}px`, "aspect-ratio": String(aspect) } });
  const repaint = () => paint(canvas);
  const zoom = h("input", { type: "range", min: 1, max: 4, step: 0.01, value: 1, id: "crop-zoom", style: { "--at": "0%" }, oninput: () => {
    place.zoom = Number(zoom.value);
    zoom.style.setProperty("--at", `${((place.zoom - 1) / 3) * 100}%`);
    repaint();
  } });
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    place.x += (event.clientX - held[0]) / canvas.clientWidth;
    place.y += (event.clientY - held[1]) / canvas.clientWidth;
    held = [event.clientX, event.clientY];
    repaint();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom.value = place.zoom * Math.exp(-event.deltaY / 600); zoom.dispatchEvent(new Event("input")); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    place.x += move[0] * 0.01;
    place.y += move[1] * 0.01;
    repaint();
  });
  const grounds = seg("crop-ground", { label: t("crop.ground"), value: place.ground, onpick: (ground) => { place.ground = ground; repaint(); },
    options: ["blur", "black", "white"].map((value) => ({ value, text: t(`crop.${value}`) })) });
  grounds.hidden = true;
  const fits = seg("crop-fit", { label: t("crop.fit"), value: place.fit, onpick: (fit) => { place.fit = fit; grounds.hidden = fit !== "pad"; repaint(); },
    options: ["cover", "pad"].map((value) => ({ value, text: t(`crop.${value}`) })) });

  return new Promise((done) => {
    let result = null;
    const finish = async () => {
      const scale = Math.min(1, LONGEST / Math.max(frame.width, frame.height)) * Math.max(1, Math.min(2, 1 / (cover * frame.width)));
      const full = new OffscreenCanvas(Math.round(frame.width * scale), Math.round(frame.height * scale));
      paint(full);
      result = await full.convertToBlob({ type: "image/png" });
      box.close();
    };
    const box = dialog(t("crop.title", { name: name || "" }), [h("div.crop-stage", canvas), h("div.crop-tools", fits, grounds,
      h("div.field", h("label", { htmlFor: "crop-zoom" }, t("crop.zoom")), zoom)),
    h("div.buttons", h("button.primary", { type: "button", onclick: finish }, icon("check"), t("crop.use")), h("span.soft", `${frame.width} × ${frame.height}`))],
    { wide: true, onclose: () => done(result) });
    repaint();
    canvas.focus();
  });
}
