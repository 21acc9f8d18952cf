// Preferences of this browser, in localStorage as "wanreel.NAME". Private windows may refuse: then they last as long as the page.
//   get(name, fallback)   set(name, value)   watch(name, f) -> stop: f(value) when this or another tab changes it
const memory = new Map();
const watchers = new Map();

export function get(name, fallback = null) {
  if (memory.has(name)) return memory.get(name);
  try {
    const text = localStorage.getItem(`wanreel.${name}`);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback;
  }
}

export function set(name, value) {
  try {
    localStorage.setItem(`wanreel.${name}`, JSON.stringify(value));
    memory.delete(name);
  } catch {
    memory.set(name, value);
  }
  tell(name, value);
}

export function watch(name, f) {
  if (!watchers.has(name)) watchers.set(name, new Set());
  watchers.get(name).add(f);
  return () => watchers.get(name).delete(f);
}

function tell(name, value) {
  for (const f of watchers.get(name) ?? []) f(value);
}

addEventListener("storage", (event) => {
  if (event.key?.startsWith("wanreel.") && event.newValue !== null) tell(event.key.slice(8), JSON.parse(event.newValue));
});
