// What is known about the model in use: a picker, facts, measured figures with their intervals, and its card.

import { showModel, type Measure, type Measured, type Model } from "./api";
import { element } from "./dom";
import { markdown } from "./markdown";
import { languageName, number, say, word } from "./words";

export class Panel {
  readonly place = say(element("aside", { class: "panel" }), "about_model", {}, "aria-label");
  private readonly picker = element("select", { attributes: { id: "" } });
  private readonly facts = element("div");
  private readonly card = element("details", { class: "card" });
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
    this.card.addEventListener("toggle", () => void this.openCard());
    this.place.append(
      say(element("label", { class: "caption", attributes: { for: id } }), "model"),
      this.picker,
      this.facts,
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
    this.card.open = false;
    this.card.replaceChildren(say(element("summary"), "card"));
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
        ...fact(say(element("dt"), "languages"), model.languages.map(languageName).join(word("detect") === "自动检测" ? "、" : ", ")),
        ...(model.labels ? fact(say(element("dt"), "labels"), number(model.labels.length)) : []),
        ...fact(say(element("dt"), "size"), `${number(model.size_bytes / 1e6, 1)} MB`),
        ...(model.created ? fact(say(element("dt"), "made"), made.toLocaleDateString(document.documentElement.lang, { dateStyle: "medium" })) : []),
      ),
      ...(model.results.length ? figures(model.results) : [say(element("p", { class: "soft" }), "not_measured")]),
    );
  }

  private async openCard(): Promise<void> {
    if (!this.card.open || this.card.children.length > 1) return;
    const model = this.chosen;
    const body = element("div", { class: "soft" }, word("working"));
    this.card.append(body);
    try {
      const { card } = await showModel(model.id);
      if (model === this.chosen) body.replaceWith(card.trim() ? markdown(card) : say(element("p", { class: "soft" }), "no_card"));
    } catch {
      body.replaceWith(say(element("p", { class: "soft" }), "fail_network"));
    }
  }
}

function figures(results: Measured[]): HTMLElement[] {
  const groups = results.map((result) => {
    const [from, to] = result.direction.split("-");
    const direction = from && to ? ` · ${languageName(from)} → ${languageName(to)}` : "";
    return element(
      "section",
      { class: "figures" },
      element("h3", {}, `${result.test_set}${direction}`, say(element("small"), "examples_count", { n: result.n })),
      ...Object.entries(result.metrics).map(([name, measure]) => figure(name, measure, result.baselines)),
    );
  });
  return [say(element("h2", { class: "caption" }), "measured"), ...groups, say(element("p", { class: "soft" }), "measured_hint")];
}

const TITLES: Record<string, string> = { bleu: "BLEU", chrf: "chrF" };

function title(name: string): string {
  const [base = "", part] = name.split("/");
  const known = TITLES[base] ?? base.replaceAll("_", " ").replace(/\bf1\b/, "F1");
  return part ? `${known} (${part})` : known;
}

function figure(name: string, measure: Measure, baselines: Measured["baselines"]): HTMLElement {
  const points = name.startsWith("bleu") || name.startsWith("chrf"); // 0 to 100; all others are shares
  const text = (value: number) => (points ? number(value, 1) : new Intl.NumberFormat(document.documentElement.lang, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(value));
  const place = (value: number) => `${Math.max(0, Math.min(100, points ? value : value * 100))}%`;
  const track = element("div", { class: "track", attributes: { "aria-hidden": "true" } });
  if (measure.low !== undefined && measure.high !== undefined) {
    const band = element("i", { class: "band" });
    band.style.left = place(measure.low);
    band.style.right = `calc(100% - ${place(measure.high)})`;
    track.append(band);
  }
  const rivals = Object.entries(baselines).flatMap(([rival, metrics]) => (metrics[name] ? [{ rival, value: metrics[name].value }] : []));
  rivals.sort((a, b) => b.value - a.value);
  const best = rivals[0];
  if (best) {
    const mark = element("i", { class: "rival" });
    mark.style.left = place(best.value);
    track.append(mark);
  }
  const tick = element("i", { class: "tick" });
  tick.style.left = place(measure.value);
  track.append(tick);
  const line = element("div", { class: "figure" }, element("span", {}, title(name)), element("b", {}, text(measure.value)), track);
  if (measure.low !== undefined && measure.high !== undefined) {
    line.append(say(element("span", { class: "sr" }), "value_interval", { value: text(measure.value), low: text(measure.low), high: text(measure.high) }));
    line.title = `${text(measure.low)} – ${text(measure.high)}`;
  }
  if (best) line.append(say(element("span", { class: "rival-name" }), "value_baseline", { name: best.rival, value: text(best.value) }));
  return line;
}

