// sparkline(values, most): a small line of what was, newest at the right. The figure beside it says what is, so readers skip it.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 240, HEIGHT = 40; // of the drawing, stretched to the room there is

export function sparkline(values, most = 0) {
  const top = Math.max(most, ...values, 1e-9);
  const step = WIDTH / Math.max(1, values.length - 1);
  const points = values.map((value, at) => [at * step, HEIGHT - 1 - (HEIGHT - 3) * Math.max(0, value) / top]);
  const line = points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const drawing = element("svg", { class: "q-spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  if (values.length > 1) {
    drawing.append(element("path", { class: "area", d: `${line}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z` }), element("path", { class: "line", d: line, "vector-effect": "non-scaling-stroke" }));
  }
  return drawing;
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
