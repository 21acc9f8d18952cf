// What stands where there is nothing to show: nothing yet, still loading, or an error with what to do.
import { h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { styled } from "./style.js";

await styled("parts.css", import.meta.url);

export const notice = ({ mark = "film", title, text = "", button = null, role = null }) =>
  h("div.empty", { role }, icon(mark), h("p.p-title", title), text && h("p.p-text", text),
    button && h("button.button", { type: "button", onclick: button.run }, button.text));

//: What failed, in the server's words, and a way to try again.
export const fault = (error, again) =>
  notice({ mark: "warning", title: error.message, text: error.hint, role: "alert", button: again && { text: t("parts.again"), run: again } });

export const loading = () => h("div.empty", { role: "status" }, h("span.p-spin"), h("span.p-text", t("parts.loading")));
