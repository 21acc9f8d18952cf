// Elements from text only: nothing here reads HTML, so nothing a user typed can become any.
//   h("div.card#id", {class, dataset: {..}, aria: {label: ".."}, onclick: f, hidden: true, style: {..}}, ...children)
//     children: nodes, text, numbers, arrays; null, undefined and false are left out.
//   fill(element, ...children)  replaces the children         icon("play")  an SVG that screen readers skip
//   $(selector, root), $$(selector, root)                     clock(seconds) -> "1:05"      bytes(n) -> "3.1 GB"
const SVG = "http://www.w3.org/2000/svg";

export function h(what, props = {}, ...children) {
  if (props === null || typeof props !== "object" || props instanceof Node || Array.isArray(props)) {
    return h(what, {}, props, ...children);
  }
  const [, tag = "div", id] = /^([a-z0-9-]*)?(?:[.\w-]*)(?:#([\w-]+))?/.exec(what);
  const element = document.createElement(tag || "div");
  const classes = [...what.matchAll(/\.([\w-]+)/g)].map((match) => match[1]);
  if (classes.length) element.classList.add(...classes);
  const named = /#([\w-]+)/.exec(what);
  if (named || id) element.id = named ? named[1] : id;
  assign(element, props);
  append(element, children);
  return element;
}

function assign(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "class") element.classList.add(...String(value).split(" ").filter(Boolean));
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "aria") for (const [key, text] of Object.entries(value)) element.setAttribute(`aria-${key}`, text);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && name !== "form") element[name] = value;
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
}

function append(element, children) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// Paths on a 24 px grid, drawn with a stroke.
const ICONS = {
  create: "M12 3v4M12 17v4M3 12h4M17 12h4M6 6l2 2M16 16l2 2M18 6l-2 2M8 16l-2 2",
  timeline: "M3 6h18v5H3zM3 14h7v4H3zM13 14h8v4h-8zM8 6v5M15 6v5",
  queue: "M4 6h16M4 12h10M4 18h7M18 14v6M15 17l3 3 3-3",
  library: "M3 5h7v6H3zM14 5h7v6h-7zM3 14h7v5H3zM14 14h7v5h-7z",
  models: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM12 12l8-4.5M12 12v9M12 12L4 7.5",
  sweep: "M5 5h.01M12 5h.01M19 5h.01M5 12h.01M12 12h.01M19 12h.01M5 19h.01M12 19h.01M19 19h.01M5 5h14M5 12h14M5 19h14",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  play: "M7 5l12 7-12 7z", pause: "M8 5v14M16 5v14", stop: "M6 6h12v12H6z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14", upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  dice: "M5 4h14a1 1 0 011 1v14a1 1 0 01-1 1H5a1 1 0 01-1-1V5a1 1 0 011-1zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  lock: "M7 11V8a5 5 0 0110 0v3M6 11h12v9H6z", unlock: "M7 11V8a5 5 0 019.6-2M6 11h12v9H6z",
  close: "M6 6l12 12M18 6L6 18", check: "M5 12.5l4.5 4.5L19 7.5", plus: "M12 5v14M5 12h14", minus: "M5 12h14",
  down: "M6 9l6 6 6-6", up: "M6 15l6-6 6 6", left: "M15 6l-6 6 6 6", right: "M9 6l6 6-6 6",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9h.01", camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.5 3.5 0 100-7 3.5 3.5 0 000 7",
  history: "M4 12a8 8 0 108-8 8 8 0 00-6.5 3.3M4 4v4h4M12 8v4l3 2", compare: "M12 3v18M4 6h5v12H4zM15 6h5v12h-5z",
  retry: "M5 12a7 7 0 0112-5l2 2M19 4v5h-5M19 12a7 7 0 01-12 5l-2-2M5 20v-5h5", next: "M5 5l9 7-9 7zM19 5v14",
  copies: "M8 8h12v12H8zM16 8V4H4v12h4", trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13", edit: "M5 19l1-4L16 5l3 3L9 18z",
  info: "M12 21a9 9 0 100-18 9 9 0 000 18M12 11v5M12 8h.01", warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
  sun: "M12 16a4 4 0 100-8 4 4 0 000 8M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6L7 7M17 17l1.4 1.4M18.4 5.6L17 7M7 17l-1.4 1.4",
  moon: "M20 14a8 8 0 01-10-10 8 8 0 1010 10z", auto: "M12 21a9 9 0 100-18 9 9 0 000 18M12 3v18",
  globe: "M12 21a9 9 0 100-18 9 9 0 000 18M3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18", bell: "M6 16V11a6 6 0 0112 0v5l2 2H4zM10 21h4",
  star: "M12 4l2.5 5.2 5.5.8-4 4 1 5.6-5-2.7-5 2.7 1-5.6-4-4 5.5-.8z", search: "M11 18a7 7 0 100-14 7 7 0 000 14M16 16l5 5",
  crop: "M7 3v14h14M3 7h14v14", out: "M14 4h6v16h-6M10 12H3M6 9l-3 3 3 3", film: "M4 5h16v14H4zM8 5v14M16 5v14M4 12h16", spark: "M12 4l1.8 5.2L19 11l-5.2 1.8L12 18l-1.8-5.2L5 11l5.2-1.8z",
  frame: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name] ?? "");
  svg.append(path);
  return svg;
}

export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count, unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}
