// A video of Wanreel's dropped on the page, or picked: its settings go to Create. The server reads and checks them.
import * as api from "../core/api.js";
import { h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { failed } from "../core/toast.js";

const WHOLE = 30e6; // bytes; of a larger file the beginning is sent, where its recipe stands
const BEGINNING = 8e6;

export async function restore(file, studio) {
  const form = new FormData();
  form.append("file", file.size > WHOLE ? file.slice(0, BEGINNING) : file, file.name);
  try {
    sessionStorage.setItem("wanreel.recipe", JSON.stringify(await api.upload("/v1/recipes", form)));
    studio.go("create", { recipe: "1" });
  } catch (error) {
    failed(error);
  }
}

export function restoreButton(studio) {
  const pick = h("input.sr", { type: "file", accept: ".mp4,.webm,.webp,.gif", tabIndex: -1, aria: { label: t("library.restore") }, onchange: () => { if (pick.files[0]) restore(pick.files[0], studio); pick.value = ""; } });
  return h("span", pick, h("button.quiet", { type: "button", title: t("library.restore.hint"), onclick: () => pick.click() }, icon("upload"), t("library.restore")));
}

export function dropZone(root, studio) {
  if (!studio.setup.account.can_submit) return;
  const carries = (event) => [...event.dataTransfer.types].includes("Files");
  let depth = 0;
  const over = (on) => root.firstElementChild?.classList.toggle("l-over", on);
  root.ondragenter = (event) => { if (carries(event)) { depth += 1; over(true); } };
  root.ondragleave = (event) => { if (carries(event) && (depth -= 1) <= 0) { depth = 0; over(false); } };
  root.ondragover = (event) => { if (carries(event)) event.preventDefault(); };
  root.ondrop = (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    over(false);
    if (event.dataTransfer.files[0]) restore(event.dataTransfer.files[0], studio);
  };
}
