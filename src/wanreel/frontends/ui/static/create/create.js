// Create: inputs on the left, the result on the right. Builds the form from the knobs' declarations and the models' facts,
// asks POST /v1/plan what would run, and hands requests in. Decides nothing itself.
import * as api from "../core/api.js";
import { $, $$, fill, h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import * as memory from "../core/memory.js";
import { failed, toast } from "../core/toast.js";
import { openResult } from "../result/result.js";
import { advanced } from "./advanced.js";
import { seg, withFault } from "./controls.js";
import { examples } from "./examples.js";
import { improve } from "./improve.js";
import { keyframeField } from "./keyframe.js";
import { optimizations } from "./optimizations.js";
import { pictureField, takeFiles } from "./pictures.js";
import { planLine } from "./plan.js";
import * as form from "./state.js";

let studio, result, plan, panel, parts, wired = false, shown = false;

export function mount(root, given) {
  studio = given;
  form.open(studio.setup);
  result = openResult(studio, { reuse, useFrame, again: submit });
  panel = optimizations();
  plan = planLine({ faults: showFaults, told: panel.told, explain: panel.open });
  parts = { left: h("form.inputs", { aria: { label: t("create.form") }, novalidate: true, onsubmit: (event) => { event.preventDefault(); submit(); } }), right: result.root };
  fill(root, h("h1.sr", t("nav.create")), h("div.create", parts.left, parts.right));
  draw();
  memory.look().then((found) => { if (Object.keys(found).length) draw(); });
  wire();
  return { show: shownNow, hide: () => { shown = false; } };
}

async function shownNow(params) {
  shown = true;
  await result.show(params.id);
  if (params.again) await again(params.again);
  if (params.recipe) await adoptRecipe();
  if (params.still) await useStill(params.still, params.number ?? "1");
  if (params.id || params.again || params.recipe || params.still) history.replaceState(null, "", "#/create");
}

function wire() {
  if (wired) return;
  wired = true;
  form.onChange(changed);
  studio.onSetup((setup) => { form.open(setup); if (shown) draw(); });
  addEventListener("keydown", (event) => {
    if (!shown || document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(); }
    if (event.key === "Escape" && result.running()) { event.preventDefault(); result.cancel(); }
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (!shown || !files.length) return;
    event.preventDefault();
    takePicture(files);
  });
  for (const name of ["dragover", "drop"]) {
    addEventListener(name, (event) => {
      if (!shown || ![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
      event.preventDefault();
      if (name === "drop" && event.dataTransfer.files.length) dropped([...event.dataTransfer.files]);
    });
  }
}

//: A picture that comes in while the text tab is open goes to the tab that takes one.
async function takePicture(files) {
  if (form.state.mode === "text") {
    form.switchTo("picture");
    toast(t("create.switched", { tab: t("mode.picture") }));
  }
  const knob = form.state.mode === "first_last" && form.values().image && !form.values().last_image ? "last_image" : "image";
  await takeFiles(files, knob);
}

async function dropped(files) {
  const video = files.find((file) => /\.(mp4|webm)$/i.test(file.name));
  if (!video) return takePicture(files);
  try {
    const body = new FormData();
    body.append("file", video.slice(0, 8_000_000, video.type), video.name);
    useRecipe(await api.upload("/v1/recipes", body));
  } catch (fault) { failed(fault); }
}

function useRecipe(recipe) {
  const known = form.adopt(recipe.request, recipe.mode, recipe.pictures);
  toast(t("recipe.used"), { kind: "good", hint: [...recipe.notes, known ? "" : t("recipe.other_model", { model: recipe.request.model })].filter(Boolean).join(" ") });
}

//: Another screen left a recipe for the form.
async function adoptRecipe() {
  const recipe = JSON.parse(sessionStorage.getItem("wanreel.recipe") ?? "null");
  sessionStorage.removeItem("wanreel.recipe");
  if (recipe) useRecipe(recipe);
}

async function again(id) {
  try {
    const { request, mode, pictures } = await api.send("POST", `/studio/again/${id}`);
    form.adopt(request, mode, pictures);
    toast(t("reuse.done"), { kind: "good" });
    $("#knob-prompt")?.focus();
  } catch (fault) { failed(fault); }
}

const reuse = (video) => again(video.id);

//: The last frame of a video becomes the start of the next one.
async function useFrame(blob, from) {
  if (form.state.mode === "text") form.switchTo("picture");
  await takeFiles([new File([blob], `${from}.png`, { type: "image/png" })], "image");
  toast(t("continue.done"), { kind: "good" });
  $("#knob-prompt")?.focus();
  $("#knob-prompt")?.scrollIntoView({ block: "center" });
}

//: A still picture of the library becomes the first one of a video.
async function useStill(id, at) {
  const response = await api.raw("GET", `/v1/images/${encodeURIComponent(id)}/content?number=${encodeURIComponent(at)}`);
  if (!response.ok) return failed(new api.ApiError(t("past.gone")));
  await takePicture([new File([await response.blob()], `${id}.png`, { type: "image/png" })]);
  $("#knob-prompt")?.focus();
}

// Drawing

const REDRAWS = new Set(["memory_mode", "mode", "model", "image", "last_image", "aspect", "resolution", "preset", "loras", "output_format", "upscaler"]);

function changed(names) {
  if (names.some((name) => REDRAWS.has(name))) draw();
  plan.ask();
}

function draw() {
  const focus = document.activeElement?.id;
  const radio = document.activeElement?.type === "radio" && parts.left.contains(document.activeElement)
    ? [document.activeElement.closest("[data-knob]")?.dataset.knob, document.activeElement.value] : null;
  const opened = new Set($$("details[open]", parts.left).map((one) => one.dataset.part));
  const now = form.values();
  fill(parts.left,
    tabs(),
    form.state.mode !== "text" && h("div.pictures", { class: form.state.mode === "first_last" ? "two" : "" },
      pictureField("image", form.state.mode === "first_last" ? t("knob.image.first") : t("knob.image")),
      form.state.mode === "first_last" && pictureField("last_image", t("knob.last_image"))),
    form.state.mode === "picture" && keyframeField(now, opened),
    promptField(now),
    modelField(),
    presetField(now),
    sizeFields(now),
    lengthField(),
    seedField(now),
    advanced(now, opened, panel.root),
    h("div.go", plan.root, h("div.go-row", h("button.primary.big", { type: "submit", id: "generate", disabled: !studio.setup.account.can_submit }, icon("spark"), t("generate"), h("kbd", "Ctrl ↵")), copies(now)),
      !studio.setup.account.can_submit && h("div.help", t("read_only"))));
  panel.draw();
  showFaults([]);
  if (focus) document.getElementById(focus)?.focus();
  else if (radio) $(`[data-knob="${radio[0]}"] input[value="${radio[1]}"]`, parts.left)?.focus();
  plan.ask();
}

function tabs() {
  return h("div.tabs", seg("mode", {
    label: t("mode.label"), hideLabel: true, value: form.state.mode, onpick: form.switchTo,
    options: form.MODES.map((mode) => ({ value: mode, text: t(`mode.${mode}`) })),
  }));
}

function promptField(now) {
  const most = form.knob("prompt").maximum;
  const area = h("textarea#knob-prompt", {
    rows: 4, value: now.prompt, maxLength: most, placeholder: t(`prompt.placeholder.${form.state.mode}`),
    oninput: (event) => { form.change({ prompt: event.target.value }); box.fault(""); },
  });
  const help = improve(studio.setup.prompt_help, (text) => { area.value = text; });
  const box = withFault(h("div.field", h("label", { htmlFor: "knob-prompt" }, t("knob.prompt"), help.button, examples(adoptExample)), area, help.panel), "prompt");
  return box;
}

async function adoptExample(example) {
  if (example.mode !== form.state.mode) form.switchTo(example.mode);
  form.change({ prompt: example.text, original_prompt: null });
  const wanted = [["image", example.picture], ["last_image", example.last_picture]].filter(([knob, name]) => name && !form.values()[knob]);
  await Promise.all(wanted.map(async ([knob, name]) => {
    const blob = await (await fetch(new URL(`../images/examples/${name}`, import.meta.url))).blob();
    await takeFiles([new File([blob], name, { type: blob.type })], knob);
  }));
  draw();
  $("#knob-prompt").focus();
}

function modelField() {
  const one = form.model();
  const all = studio.setup.models;
  const fit = (model) => memory.fit(memory.known(model.name));
  const told = (model, other) => [model.title, model.name, other && model.installed && t("model.installed"), fit(model) && t(`fit.${fit(model)}`)].filter(Boolean).join(" · ");
  const group = (label, list, other = false) => list.length ? h("optgroup", { label }, list.map((model) => h("option", { value: model.name, selected: model.name === one.name }, told(model, other)))) : null;
  const fits = (model) => model.modes.includes(form.state.mode);
  const select = h("select#knob-model", { onchange: (event) => {
    if (form.chooseModel(event.target.value)) toast(t("create.switched", { tab: t(`mode.${form.state.mode}`) }));
  } },
    group(t("model.here"), all.filter((model) => model.installed && fits(model))),
    group(t("model.elsewhere"), all.filter((model) => !model.installed && fits(model))),
    group(t("model.other_tab"), all.filter((model) => !fits(model)), true));
  const facts = [one.parameters, one.licence, t("model.fps", { fps: one.fps })].filter(Boolean).join(" · ");
  return withFault(h("div.field", h("label", { htmlFor: "knob-model" }, t("knob.model"),
    one.installed ? h("span.chip.good", t(one.builtin ? "model.builtin" : "model.installed")) : h("span.chip.warn", t("model.missing")),
    fit(one) && h(`span.chip.${memory.CHIPS[fit(one)]}`, { title: t("fit.hint", { gb: memory.gigabytes(memory.known(one.name).gpu_bytes) }) }, t(`fit.${fit(one)}`))), select,
    h("div.help", facts, one.installed ? "" : ` · ${t(one.pulled ? "model.pulled" : "model.not_pulled")}`)), "model");
}

function presetField(now) {
  const one = form.model();
  if (one.few_step) return null;
  return seg("preset", {
    label: t("knob.preset"), value: now.preset in one.presets ? now.preset : "standard", onpick: (preset) => form.change({ preset, num_inference_steps: null }),
    options: Object.keys(one.presets).map((name) => ({
      value: name, text: t(`preset.${name}`), small: t("preset.steps", { n: one.presets[name] }), title: t(`preset.${name}.help`) })),
    help: t(`preset.${now.preset in one.presets ? now.preset : "standard"}.help`),
  });
}

function sizeFields(now) {
  const one = form.model(), own = form.official(), shape = form.aspect();
  const shapes = [...(form.state.mode !== "text" && now.image ? ["picture"] : []), ...Object.keys(form.ASPECTS), "exact"];
  const sizes = seg("resolution", {
    label: t("knob.resolution"), value: own.resolution, onpick: (resolution) => form.change({ resolution }),
    options: Object.keys(one.sizes).map((name) => {
      const { width, height } = form.sizeOf(name, shape === "exact" ? form.nativeAspect(name) : shape);
      return { value: name, text: name, small: `${width} × ${height}` };
    }),
    help: t(one.sizes[own.resolution].trained ? `resolution.${own.resolution}.help` : "resolution.untrained", { model: one.name }),
  });
  const aspects = seg("aspect", {
    label: t("aspect.label"), value: shape, onpick: (aspect) => form.change({ aspect }),
    options: shapes.map((name) => ({ value: name, text: t(`aspect.${name}`) })),
  });
  aspects.classList.add("aspects");
  return [shape === "exact" ? exactField(now, own) : sizes, aspects];
}

function exactField(now, own) {
  const size = form.sizeOf(own.resolution, "exact");
  const side = (name) => h("input", { type: "number", id: `knob-${name}`, value: size[name], min: form.knob(name).minimum, max: form.knob(name).maximum, step: 2,
    inputmode: "numeric", aria: { label: t(`knob.${name}`) }, onchange: (event) => form.change({ [name]: Number(event.target.value) || null }) });
  return withFault(h("fieldset", h("legend", t("size.exact")), h("div.exact", side("width"), h("span.soft", "×"), side("height"), h("span.soft", "px")),
    h("div.help", t("size.exact.help", { multiple: form.model().size_multiple }))), "width");
}

function lengthField() {
  const { least, most, stride, value, trained } = form.frames();
  const one = form.model();
  const told = (frames) => [t("length.told", { seconds: (frames / one.fps).toFixed(2), frames }), frames > trained ? ` · ${t("length.beyond", { trained })}` : ""].join("");
  const id = "knob-num_frames";
  const at = (frames) => `${((frames - least) / (most - least)) * 100}%`;
  const shownText = h("output.soft", { htmlFor: id }, told(value));
  const range = h("input", { type: "range", id, min: least, max: most, step: stride, value, style: { "--at": at(value) }, aria: { valuetext: told(value) },
    oninput: () => {
      const frames = Number(range.value);
      range.style.setProperty("--at", at(frames));
      range.setAttribute("aria-valuetext", told(frames));
      fill(shownText, told(frames));
      form.change({ num_frames: frames === one.num_frames ? null : frames });
    } });
  return withFault(h("div.field", h("label", { htmlFor: id }, t("length.label"), shownText), range), "num_frames");
}

function seedField(now) {
  const lock = h("button.bare", { type: "button", aria: { pressed: String(now.locked), label: t("seed.lock") }, title: t(now.locked ? "seed.locked" : "seed.free"),
    onclick: () => { form.change({ locked: !form.values().locked }); swap(); } }, icon(now.locked ? "lock" : "unlock"));
  const number = h("input#knob-seed", { type: "number", min: 0, max: form.knob("seed").maximum, step: 1, value: now.seed ?? "", inputmode: "numeric", placeholder: t("seed.random"),
    onchange: () => { const seed = number.value === "" ? null : Math.trunc(Number(number.value)); form.change({ seed, locked: seed !== null }); swap(); } });
  const dice = h("button.bare", { type: "button", title: t("seed.dice"), aria: { label: t("seed.dice") }, onclick: () => {
    form.change({ seed: crypto.getRandomValues(new Uint32Array(1))[0], locked: true }); swap(); } }, icon("dice"));
  const field = withFault(h("div.field", h("label", { htmlFor: "knob-seed" }, t("knob.seed"), h("span.soft", t(now.locked ? "seed.locked" : "seed.free"))),
    h("div.with-buttons", number, dice, lock)), "seed");
  const swap = () => {
    const focus = document.activeElement?.getAttribute("aria-label");
    const fresh = seedField(form.values());
    field.replaceWith(fresh);
    $$("button", fresh).find((button) => button.getAttribute("aria-label") === focus)?.focus();
  };
  return field;
}

function copies(now) {
  return h("label.copies", { title: t("copies.help") }, h("span.sr", t("copies.label")),
    h("select#knob-copies", { onchange: (event) => form.change({ copies: Number(event.target.value) }) },
      [1, 2, 3, 4, 6, 8].map((n) => h("option", { value: n, selected: n === now.copies }, `× ${n}`))));
}

// Handing in

//: What was missing when somebody asked for a video: said until it is there, whatever a plan that comes in later says.
let missed = [];

function showFaults(problems) {
  const missing = new Set(missingInputs().map((one) => one.field));
  missed = missed.filter((one) => missing.has(one.field));
  for (const field of $$("[data-knob]", parts.left)) field.fault?.("");
  const left = [];
  for (const problem of [...missed, ...problems]) {
    const name = { width: "resolution", height: "resolution", seconds: "num_frames" }[problem.field] ?? problem.field;
    const field = $(`[data-knob="${problem.field}"]`, parts.left) ?? $(`[data-knob="${name}"]`, parts.left);
    if (field?.fault) {
      field.fault(problem.message, problem.hint);
      field.closest("details")?.setAttribute("open", "");
    } else left.push(problem);
  }
  return left;
}

let submitting = false;

async function submit() {
  if (submitting) return;
  missed = missingInputs();
  if (missed.length) {
    showFaults([]);
    $(`[data-knob="${missed[0].field}"] :is(textarea, input, button)`, parts.left)?.focus();
    return;
  }
  submitting = true;
  const button = $("#generate");
  button.disabled = true;
  try {
    await handIn();
  } catch (fault) {
    const rest = showFaults(fault.problems ?? []);
    if (rest.length || !fault.problems?.length) failed(fault);
    else $("[aria-invalid]", parts.left)?.scrollIntoView({ block: "center" });
  } finally {
    submitting = false;
    if ($("#generate")) $("#generate").disabled = !studio.setup.account.can_submit;
  }
}

async function handIn() {
  const count = form.values().copies;
  const base = form.toRequest();
  const first = base.seed >= 0 ? base.seed : count > 1 ? crypto.getRandomValues(new Uint32Array(1))[0] : -1;
  showFaults([]);
  for (let n = 0; n < count; n += 1) {
    const seed = first < 0 ? -1 : first + n;
    const video = await api.send("POST", "/v1/videos", { json: { ...base, seed }, headers: { "Idempotency-Key": unique() } });
    result.adopt(video, { follow: n === 0 });
    if (n === 0 && !form.values().locked) form.change({ seed: video.seed });
  }
  const number = $("#knob-seed");
  if (number) number.value = form.values().seed ?? "";
  toast(count > 1 ? t("submitted.many", { n: count }) : t("submitted.one"), { kind: "good", seconds: 3 });
  if (matchMedia("(max-width: 980px)").matches) parts.right.scrollIntoView({ behavior: "smooth", block: "start" });
}

const unique = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function missingInputs() {
  const now = form.values(), found = [];
  if (!now.prompt.trim()) found.push({ field: "prompt", message: t("missing.prompt"), hint: "" });
  if (form.state.mode !== "text" && !now.image) found.push({ field: "image", message: t("missing.image"), hint: "" });
  if (form.state.mode === "first_last" && !now.last_image) found.push({ field: "last_image", message: t("missing.last_image"), hint: "" });
  return found;
}
