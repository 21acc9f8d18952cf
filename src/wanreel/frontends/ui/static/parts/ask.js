// await ask({title, text, agree, danger}): a question before anything is lost; true when the person agrees.
import { h } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { styled } from "./style.js";

await styled("parts.css", import.meta.url);

export function ask({ title, text, agree, danger = false }) {
  return new Promise((answer) => {
    const no = h("button.button", { type: "button", onclick: () => box.close("") }, t("parts.keep"));
    const yes = h(danger ? "button.danger" : "button.primary", { type: "button", onclick: () => box.close("yes") }, agree);
    const box = h("dialog.p-ask", { aria: { labelledby: "p-ask-title", describedby: "p-ask-text" } },
      h("h2#p-ask-title", title), h("p#p-ask-text", text), h("div.buttons.p-answers", no, yes));
    box.addEventListener("click", (event) => { if (event.target === box) box.close(""); });
    box.addEventListener("close", () => { box.remove(); answer(box.returnValue === "yes"); });
    (document.querySelector(".studio-screen:not([hidden])") ?? document.body).append(box);
    box.showModal();
    (danger ? no : yes).focus(); // the safe answer first
  });
}
