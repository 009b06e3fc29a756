// What is known about the model in use: a picker, facts, measured figures with their intervals, and its card.

import { showModel, type Measure, type Measured, type Model } from "./api";
import { element, icon } from "./dom";
import { markdown } from "./markdown";
import { currentTongue, isWord, languageName, number, say, word } from "./words";

export class Panel {
  readonly place = say(element("aside", { class: "panel" }), "about_model", {}, "aria-label");
  private readonly picker = element("select", { attributes: { id: "" } });
  private readonly facts = element("div");
  private readonly card = element("dialog", { class: "card" });
  private chosen: Model;

  constructor(
    private readonly models: Model[],
    changed: (model: Model) => void,
  ) {
    const [first] = models;
    if (!first) throw new Error("a panel needs a model");
    this.chosen = first;
    const id = `model-${first.task}`;
    this.picker.id = id;
    this.picker.append(...models.map((model) => new Option(model.id, model.id)));
    this.picker.addEventListener("change", () => {
      this.chosen = models.find((model) => model.id === this.picker.value) ?? first;
      this.show();
      changed(this.chosen);
    });
    const open = element("button", { class: "quiet", attributes: { type: "button" }, on: { click: () => void this.openCard() } }, icon("M6 3h9l4 4v14H6z", "M14.5 3v4.5H19M9 12h7M9 16h7"), say(element("span"), "card"));
    say(this.card, "card", {}, "aria-label");
    this.card.addEventListener("click", (event) => {
      if (event.target === this.card) this.card.close(); // the backdrop
    });
    this.place.append(
      say(element("label", { class: "caption", attributes: { for: id } }), "model"),
      this.picker,
      this.facts,
      open,
      this.card,
    );
    document.addEventListener("tongue", () => this.describe());
    this.show();
  }

  get model(): Model {
    return this.chosen;
  }

  private show(): void {
    this.picker.disabled = this.models.length < 2;
    this.describe();
  }

  private describe(): void {
    const model = this.chosen;
    const fact = (name: HTMLElement, value: string) => [name, element("dd", {}, value)];
    const made = new Date(model.created * 1000);
    this.facts.replaceChildren(
      element(
        "dl",
        { class: "facts" },
        ...fact(say(element("dt"), "task"), word(model.task === "translate" ? "task_translate" : "task_classify")),
        ...fact(say(element("dt"), "languages"), model.languages.map(languageName).join(currentTongue() === "zh" ? "、" : ", ")),
        ...(model.labels ? fact(say(element("dt"), "labels"), number(model.labels.length)) : []),
        ...fact(say(element("dt"), "size"), `${number(model.size_bytes / 1e6, 1)} MB`),
        ...(model.created ? fact(say(element("dt"), "made"), made.toLocaleDateString(document.documentElement.lang, { dateStyle: "medium" })) : []),
      ),
      ...(model.results.length ? figures(model.results) : [say(element("p", { class: "soft" }), "not_measured")]),
    );
  }

  private async openCard(): Promise<void> {
    const model = this.chosen;
    const close = element("button", { class: "round", attributes: { type: "button" }, on: { click: () => this.card.close() } }, icon("M6 6l12 12M18 6L6 18"));
    const body = element("div", { class: "page", attributes: { tabindex: "0" } }, say(element("p", { class: "soft" }), "working"));
    this.card.replaceChildren(say(close, "close", {}, "aria-label"), body);
    this.card.showModal();
    try {
      const { card } = await showModel(model.id);
      body.replaceChildren(card.trim() ? markdown(card) : say(element("p", { class: "soft" }), "no_card"));
    } catch {
      body.replaceChildren(say(element("p", { class: "soft" }), "fail_network"));
    }
  }
}

function figures(results: Measured[]): HTMLElement[] {
  const groups = results.map((result) => {
    const [from, to] = result.direction.split("-");
    const direction = from && to ? `${languageName(from)} → ${languageName(to)}` : null;
    const names = Object.keys(result.metrics);
    return element(
      "section",
      { class: "figures" },
      direction ? element("h3", {}, direction) : null,
      say(element("p", { class: "soft" }), "figure_set", { set: result.test_set, n: result.n }),
      ...names.map((name) => figure(name, result)),
      ...Object.entries(result.baselines).map(([rival, metrics]) => {
        const told = names.flatMap((name) => (metrics[name] ? [`${title(name)} ${written(name, metrics[name].value)}`] : []));
        return element("p", { class: "soft rivals" }, `○ ${rival}: ${told.join(" · ")}`);
      }),
    );
  });
  return [say(element("h2", { class: "caption" }), "measured"), ...groups, say(element("p", { class: "soft" }), "measured_hint")];
}

const TITLES: Record<string, string> = { bleu: "BLEU", chrf: "chrF" };

function title(name: string): string {
  const [base = "", part] = name.split("/");
  const known = TITLES[base] ?? (isWord(base) ? word(base) : base.replaceAll("_", " "));
  return part ? `${known} (${part})` : known;
}

/** BLEU and chrF run from 0 to 100; everything else is a share. */
function isPoints(name: string): boolean {
  return name.startsWith("bleu") || name.startsWith("chrf");
}

function written(name: string, value: number): string {
  return isPoints(name) ? number(value, 1) : `${number(value * 100, 1)}%`;
}

function figure(name: string, result: Measured): HTMLElement {
  const measure = result.metrics[name] as Measure;
  const share = (value: number) => Math.max(0, Math.min(100, isPoints(name) ? value : value * 100));
  const track = element("div", { class: "track", attributes: { "aria-hidden": "true" } });
  const mark = (kind: string, value: number) => {
    const made = element("i", { class: kind });
    made.style.left = `${share(value)}%`;
    track.append(made);
    return made;
  };
  const { low, high } = measure;
  if (low !== undefined && high !== undefined) mark("band", low).style.width = `${share(high) - share(low)}%`;
  for (const metrics of Object.values(result.baselines)) if (metrics[name]) mark("rival", metrics[name].value);
  mark("tick", measure.value);
  const value = written(name, measure.value);
  const line = element("div", { class: "figure" }, element("span", {}, title(name)));
  if (low !== undefined && high !== undefined) {
    const bounds = { value, low: written(name, low), high: written(name, high) };
    const spoken = say(element("span", { class: "sr" }), "value_interval", bounds);
    line.append(element("span", { class: "value", attributes: { "aria-hidden": "true" } }, element("small", {}, `${bounds.low.replace("%", "")} – ${bounds.high.replace("%", "")}`), element("b", {}, value)), spoken);
  } else {
    line.append(element("b", {}, value));
  }
  line.append(track);
  return line;
}
