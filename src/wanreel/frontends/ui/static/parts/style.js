// styled("library.css", import.meta.url): a screen's own style sheet, there before anything is drawn.
export function styled(name, base) {
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL(name, base).href;
  const loaded = new Promise((done) => { sheet.onload = sheet.onerror = done; });
  document.head.append(sheet);
  return loaded;
}
