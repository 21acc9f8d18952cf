// Runs before anything is drawn, so that the chosen colours and language are there from the first frame.
(() => {
  const read = (name) => {
    try { return JSON.parse(localStorage.getItem(`wanreel.${name}`)); } catch { return null; }
  };
  const root = document.documentElement;
  const theme = read("theme");
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  root.lang = read("language") ?? ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en");
})();
