// Sizes and times as people of the page's language read them.
import { language, number, t } from "../core/i18n.js";

//: 1.4 GB, as sellers of disks count.
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count, unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${number(value, value < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

//: 8 s, 2 min 5 s, 1 h 10 min.
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (hours) return t("parts.hours", { h: hours, m: minutes });
  return minutes ? t("parts.minutes", { m: minutes, s: rest }) : t("parts.seconds", { s: rest });
}

//: "5 minutes ago".
export function ago(seconds) {
  const words = new Intl.RelativeTimeFormat(language(), { numeric: "auto" });
  const past = seconds - Date.now() / 1000;
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(past) >= length) return words.format(Math.round(past / length), unit);
  }
  return words.format(Math.round(past), "second");
}
