// The HTTP API from the page.
//   await get("/v1/videos/ID")   await send("POST", "/v1/videos", {json})   upload(path, formData)   address("/v1/..") -> URL
// Answers are the parsed JSON. A refusal throws ApiError: .message .hint .code .status .problems [{field, message, hint}] .retryAfter
// A server that can't be reached throws ApiError with code "offline". Without a session the sign-in screen comes up.
import { t } from "./i18n.js";

//: Where the page lies, with the proxy's path, ending in "/".
export const ROOT = new URL("../../../", import.meta.url);
export const address = (path) => new URL(path.replace(/^\//, ""), ROOT).href;

export class ApiError extends Error {
  constructor(message, { status = 0, code = "", hint = "", problems = [], retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, hint, problems, retryAfter });
  }
}

export const get = (path, options = {}) => call("GET", path, options);
export const send = (method, path, { json, headers = {}, signal } = {}) =>
  call(method, path, {
    body: json === undefined ? undefined : JSON.stringify(json),
    headers: json === undefined ? headers : { "Content-Type": "application/json", ...headers },
    signal,
  });
export const upload = (path, form, { signal } = {}) => call("POST", path, { body: form, signal });

async function call(method, path, { body, headers, signal } = {}) {
  const response = await raw(method, path, { body, headers, signal });
  const kind = response.headers.get("content-type") ?? "";
  const content = kind.includes("json") ? await response.json().catch(() => null) : null;
  if (response.ok) return content;
  throw refusal(response, content?.error ?? {});
}

//: The Response itself, whatever its status. Throws only when there is none.
export async function raw(method, path, { body, headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(address(path), { method, body, headers: { Accept: "application/json", ...headers }, signal, credentials: "same-origin" });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new ApiError(t("error.offline"), { code: "offline", hint: t("error.offline.hint") });
  }
  if (response.status === 401) location.assign(address("/sign-in"));
  return response;
}

function refusal(response, error) {
  const known = t(`error.${error.code}`);
  const problems = error.problems ?? [];
  const message = problems.length === 1 ? problems[0].message : known !== `error.${error.code}` ? known : error.message;
  return new ApiError(message || t("error.unknown", { status: response.status }), {
    status: response.status,
    code: error.code ?? "",
    hint: error.hint || problems[0]?.hint || "",
    problems,
    retryAfter: Number(response.headers.get("retry-after")) || null,
  });
}
