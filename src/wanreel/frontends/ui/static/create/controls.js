// Controls of the form, each with its label, help, value, official value and place for a fault. Know nothing of models.
//   seg(name, {label, options: [{value, text, small, disabled, title}], value, onpick, help})
//   slider(name, {label, help, min, max, step, value, official, show, onpick, hard: {min, max}})
//   Each returns an element with .fault(text, hint); a control inside has the id "knob-NAME".
import { $, fill, h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";

let serial = 0;

export function withFault(element, name) {
  element.dataset.knob = name;
  const place = h("div.fault", { hidden: true, id: `fault-${name}`, role: "alert" });
  element.append(place);
  element.fault = (text, hint = "") => {
    place.hidden = !text;
    fill(place, text ? [icon("warning"), h("span", text, hint ? ` ${hint}` : "")] : null);
    const control = $("textarea, input, select", element);
    if (!control) return;
    if (text) { control.setAttribute("aria-invalid", "true"); control.setAttribute("aria-describedby", place.id); }
    else { control.removeAttribute("aria-invalid"); control.removeAttribute("aria-describedby"); }
  };
  return element;
}

export function seg(name, { label, options, value, onpick, help = null, hideLabel = false }) {
  const group = `${name}-${(serial += 1)}`;
  const box = h("fieldset", h("legend", { class: hideLabel ? "sr" : "" }, label),
    h("div.seg", options.map((option) =>
      h("label", { title: option.title }, h("input", {
        type: "radio", name: group, value: option.value, checked: option.value === value, disabled: Boolean(option.disabled), onchange: () => onpick(option.value),
      }), h("span", option.text, option.small ? h("small", option.small) : null)))),
    help && h("div.help", help));
  return withFault(box, name);
}

export function slider(name, { label, help, min, max, step, value, official, onpick, unit = "", hard = {}, show = null }) {
  const id = `knob-${name}`;
  const at = (now) => `${Math.max(0, Math.min(100, ((now - min) / (max - min)) * 100))}%`;
  const range = h("input", { type: "range", min, max, step, value, id: `${id}-range`, aria: { labelledby: `${id}-label` }, style: { "--at": at(value) } });
  const box = h("input.number", { type: "number", min: hard.min ?? min, max: hard.max ?? max, step: "any", value, id, inputmode: "decimal" });
  const back = h("button.bare.back", { type: "button", title: t("reset.one"), aria: { label: t("reset.named", { name: label }) }, hidden: official === undefined || value === official }, icon("retry"));
  const told = show ? h("span.soft", show(value)) : null;
  const set = (now, from) => {
    if (!Number.isFinite(now)) return;
    range.style.setProperty("--at", at(now));
    if (from !== range) range.value = now;
    if (from !== box) box.value = now;
    back.hidden = official === undefined || now === official;
    if (told) fill(told, show(now));
    onpick(official !== undefined && now === official ? null : now);
  };
  range.addEventListener("input", () => set(Number(range.value), range));
  box.addEventListener("change", () => set(box.value === "" ? official : Number(box.value), null));
  back.addEventListener("click", () => { set(official, null); range.focus(); });
  return withFault(h("div.field.slider",
    h("label", { htmlFor: id, id: `${id}-label` }, label, told),
    h("div.slider-row", range, box, unit && h("span.soft.unit", unit), back),
    help && h("div.help", help)), name);
}

export function choice(name, { label, help, options, value, onpick }) {
  const id = `knob-${name}`;
  return withFault(h("div.field", h("label", { htmlFor: id }, label),
    h("select", { id, onchange: (event) => onpick(event.target.value) },
      options.map((option) => h("option", { value: option.value, selected: option.value === value }, option.text))),
    help && h("div.help", help)), name);
}

export function checkbox(name, { label, value, onpick, help }) {
  return h("div.field", h("label.check", h("input", { type: "checkbox", id: `knob-${name}`, checked: value, onchange: (event) => onpick(event.target.checked) }), label),
    help && h("div.help", help));
}

export function dialog(title, content, { wide = false, onclose = null } = {}) {
  const box = h("dialog", { aria: { label: title }, class: wide ? "wide" : "" },
    h("div.dialog-head", h("h2", title), h("button.bare", { type: "button", aria: { label: t("close") }, onclick: () => box.close() }, icon("close"))), content);
  box.addEventListener("close", () => { box.remove(); onclose?.(); });
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  document.body.append(box);
  box.showModal();
  return box;
}
