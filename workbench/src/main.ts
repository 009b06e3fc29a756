// The page: a header with two tabs and two switches, and below it the tab in use.

import { Failure, hasKey, listModels, rememberKey, type Model } from "./api";
import { ClassifyTab } from "./classify";
import { element, icon, logo } from "./dom";
import { keyForm, Notices } from "./notice";
import { TranslateTab } from "./translate";
import { currentTongue, say, speak, type Tongue, type Word } from "./words";

const TASKS = ["translate", "classify"] as const;
type Task = (typeof TASKS)[number];

const main = element("main", { attributes: { id: "main" } });
const tabs = new Map<Task, HTMLButtonElement>();
const panels = new Map<Task, HTMLElement>();

function remembered(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off: the page works, and forgets
  }
}

function remember(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // as above
  }
}

function header(): HTMLElement {
  const bar = element("div", { class: "tabs", attributes: { role: "tablist" } });
  say(bar, "tasks", {}, "aria-label");
  for (const task of TASKS) {
    const tab = element("button", {
      attributes: { role: "tab", id: `tab-${task}`, type: "button", "aria-controls": `panel-${task}` },
      on: { click: () => choose(task) },
    });
    tabs.set(task, say(tab, task));
    bar.append(tab);
  }
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const next = TASKS[(TASKS.indexOf(chosen()) + step + TASKS.length) % TASKS.length] ?? "translate";
    choose(next);
    tabs.get(next)?.focus();
  });
  return element(
    "header",
    { class: "top" },
    element("div", { class: "brand" }, logo(), element("span", { class: "name" }, "Inkstone"), element("span", { class: "han", attributes: { lang: "zh", "aria-hidden": "true" } }, "砚")),
    bar,
    element("div", { class: "switches" }, tongueSwitch(), themeSwitch()),
  );
}

function tongueSwitch(): HTMLButtonElement {
  const button = element("button", { class: "round text", attributes: { type: "button" } });
  const label = () => {
    button.textContent = currentTongue() === "zh" ? "EN" : "中";
    button.lang = currentTongue() === "zh" ? "en" : "zh";
  };
  button.addEventListener("click", () => {
    const next: Tongue = currentTongue() === "zh" ? "en" : "zh";
    remember("inkstone.language", next);
    speak(next);
  });
  document.addEventListener("tongue", label);
  label();
  say(button, "language", {}, "title");
  return say(button, "language", {}, "aria-label");
}

function themeSwitch(): HTMLButtonElement {
  const preference = matchMedia("(prefers-color-scheme: dark)");
  const button = element("button", { class: "round", attributes: { type: "button" } });
  const sun = icon("M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 3v1.500M12 19.500V21M3 12h1.500M19.5 12H21M5.6 5.600l1.1 1.100M17.3 17.300l1.1 1.100M5.6 18.400l1.1-1.100M17.3 6.700l1.1-1.1");
  const moon = icon("M20 14.500A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.500z");
  const isDark = () => (document.documentElement.dataset["theme"] ?? (preference.matches ? "dark" : "light")) === "dark";
  const show = () => {
    const key: Word = isDark() ? "theme_light" : "theme_dark";
    button.replaceChildren(isDark() ? sun : moon);
    say(button, key, {}, "aria-label");
    say(button, key, {}, "title");
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    remember("inkstone.theme", next);
    document.documentElement.dataset["theme"] = next;
    show();
  });
  preference.addEventListener("change", show);
  show();
  return button;
}

function chosen(): Task {
  return location.hash === "#classify" ? "classify" : "translate";
}

function choose(task: Task): void {
  if (chosen() !== task) history.replaceState(null, "", `#${task}`);
  for (const [name, tab] of tabs) {
    const selected = name === task;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    const panel = panels.get(name);
    if (panel) panel.hidden = !selected;
  }
}

async function load(): Promise<void> {
  const notices = new Notices();
  main.replaceChildren(say(element("p", { class: "soft loading" }), "loading_models"), notices.place);
  let models: Model[];
  try {
    models = await listModels();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (!askForKey(error)) {
      main.replaceChildren(notices.place);
      notices.failure(error, () => void load());
    }
    return;
  }
  panels.clear();
  for (const task of TASKS) {
    const panel = element("div", { attributes: { role: "tabpanel", id: `panel-${task}`, "aria-labelledby": `tab-${task}` } });
    const fitting = models.filter((model) => model.task === task);
    if (!fitting.length) panel.append(nothingFor(task));
    else panel.append((task === "translate" ? new TranslateTab(fitting, askForKey) : new ClassifyTab(fitting, askForKey)).place);
    panels.set(task, panel);
  }
  main.replaceChildren(...panels.values());
  choose(chosen());
}

function nothingFor(task: Task): HTMLElement {
  return element("div", { class: "sheet nothing" }, say(element("h1"), task === "translate" ? "no_model_translate" : "no_model_classify"), say(element("p"), "no_model_help"));
}

/** Shows the key form when that is what the failure is about. */
function askForKey(failure: Failure): boolean {
  if (failure.status !== 401) return false;
  const form = keyForm(hasKey(), (key) => {
    rememberKey(key);
    void load();
  });
  panels.clear();
  main.replaceChildren(form);
  return true;
}

const theme = remembered("inkstone.theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset["theme"] = theme;
const tongue = remembered("inkstone.language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
speak(tongue === "zh" ? "zh" : "en");
const skip = element("a", { class: "skip", attributes: { href: "#main" }, on: { click: (event) => (event.preventDefault(), main.querySelector("textarea")?.focus()) } });
document.body.append(say(skip, "skip"), header(), main);
window.addEventListener("hashchange", () => choose(chosen()));
choose(chosen());
void load();
