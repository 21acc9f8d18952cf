// The copy of a video in object storage: how it fares, where it lies, and sending it there (again).
//   uploadWords(upload) -> text
//   uploadLine(video, {names, may, done}) -> element | null     names: the operator's profiles; may: whether this key sends; done(video)
import * as api from "../core/api.js";
import { h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { failed, toast } from "../core/toast.js";

const KINDS = { waiting: "tint", uploading: "tint", done: "good", failed: "bad", credentials_lost: "warn" };

export const uploadWords = (upload) => t(`upload.${upload.state}`, { name: upload.storage ?? t("upload.own") });

export function uploadLine(video, { names, may, done }) {
  if (video.wanreel.status !== "completed") return null;
  const { upload } = video.wanreel;
  const over = !upload || upload.state === "failed" || upload.state === "credentials_lost";
  const again = over && may ? places(upload, names).map((name) => sendTo(video, name, upload?.storage === name, done)) : [];
  if (!upload) return again.length ? h("div.upload", again) : null;
  const film = upload.files.find((file) => file.kind === "video");
  return h("div.upload",
    h("span.chip", { class: KINDS[upload.state], title: upload.outcome || undefined }, icon(upload.state === "done" ? "check" : "upload"), uploadWords(upload)),
    film?.key && h("span.mono.soft.upload-key", `s3://${film.bucket}/${film.key}`),
    film?.key && upload.storage && h("button.quiet", { type: "button", dataset: { act: "storage" }, onclick: () => visit(video) }, icon("right"), t("upload.open")),
    upload.state === "credentials_lost" && h("p.help", t("upload.credentials_lost.help")),
    upload.outcome && upload.state !== "done" && h("p.help", upload.outcome),
    again);
}

//: Where it can be sent: to the place that failed, else to any there is.
const places = (upload, names) => (upload?.storage && names.includes(upload.storage) ? [upload.storage] : names.slice(0, 3));

function sendTo(video, name, again, done) {
  return h("button.quiet", { type: "button", dataset: { act: "upload" }, onclick: async (event) => {
    event.currentTarget.disabled = true;
    try {
      done(await api.send("POST", `/v1/videos/${video.id}/upload`, { json: { storage: name } }));
      toast(t("upload.sent", { name }));
    } catch (fault) {
      failed(fault);
      event.target.disabled = false;
    }
  } }, icon("upload"), t(again ? "upload.again" : "upload.send", { name }));
}

//: Addresses of storage are good for a while only, so one is asked for when it is wanted. The tab opens first, or it would be blocked.
async function visit(video) {
  const tab = open("about:blank", "_blank");
  if (tab) tab.opener = null;
  try {
    const fresh = await api.get(`/v1/videos/${video.id}`);
    const url = fresh.wanreel.upload?.files.find((file) => file.kind === "video")?.url;
    if (!url) throw new api.ApiError(t("upload.gone"));
    if (tab) tab.location.replace(url);
    else location.assign(url);
  } catch (fault) {
    tab?.close();
    failed(fault);
  }
}
