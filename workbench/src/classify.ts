// The classification tab: one text a line in, a table of labels out.

import { classify, Failure, MAX_CHARACTERS, MAX_TEXTS, MAX_TEXT_CHARACTERS, type Answer, type Classification, type Model } from "./api";
import { element } from "./dom";
import { Notices } from "./notice";
import { Panel } from "./panel";
import { copyButton, Run } from "./run";
import { percent, say, sayTime, sayWhere } from "./words";

const EXAMPLES: Record<string, string[]> = {
  en: [
    "what is my account balance\nbook a table for two at seven\nhow do you say thank you in french",
    "is it going to rain tomorrow\nset an alarm for six in the morning\nwhy do cats purr at the moon",
  ],
  zh: ["味道很好，送餐也快\n等了两个小时，菜都凉了\n分量太少，不会再点"],
};

export class ClassifyTab {
  readonly place = element("div", { class: "tab" });
  private readonly panel: Panel;
  private readonly notices = new Notices();
  private readonly text = element("textarea", {
    attributes: { id: "texts", spellcheck: "false", rows: "6", "aria-describedby": "texts-count" },
  });
  private readonly count = element("span", { class: "soft", attributes: { id: "texts-count" } });
  private readonly results = element("div", { class: "results", attributes: { "aria-live": "polite" } });
  private readonly examples = element("div", { class: "examples" });
  private readonly run: Run;
  private last: Answer<Classification> | null = null;

  constructor(models: Model[], private readonly expired: (failure: Failure) => boolean) {
    this.panel = new Panel(models, () => this.offer());
    this.run = new Run("run_classify", () => void this.start());
    const clear = element("button", { class: "quiet", attributes: { type: "button" }, on: { click: () => this.put("") } });
    this.place.append(
      element(
        "div",
        { class: "work" },
        element("header", { class: "lead" }, say(element("h1"), "classify"), sayWhere(element("p", { class: "soft" }))),
        element(
          "div",
          { class: "sheet" },
          element(
            "section",
            { class: "pane" },
            say(element("label", { class: "sr", attributes: { for: "texts" } }), "classify_label"),
            this.text,
            element("div", { class: "foot" }, this.count, say(clear, "clear"), this.run.button),
          ),
        ),
        this.notices.place,
        this.examples,
        this.results,
        say(element("p", { class: "ai" }), "classify_notice"),
      ),
      this.panel.place,
    );
    this.text.addEventListener("input", () => {
      if (!this.text.value.trim()) this.empty();
      this.counted();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        void this.start();
      }
    });
    document.addEventListener("tongue", () => {
      if (this.last) this.show(this.last);
    });
    this.offer();
    this.empty();
    this.counted();
  }

  focus(): void {
    this.text.focus();
  }

  private offer(): void {
    const languages = this.panel.model.languages;
    const texts = Object.entries(EXAMPLES).flatMap(([code, list]) => (languages.includes(code) ? list.map((text) => ({ code, text })) : []));
    this.text.placeholder = texts[0]?.text ?? "";
    this.examples.replaceChildren();
    if (!texts.length) return;
    this.examples.append(
      say(element("span", { class: "caption" }), "examples"),
      ...texts.map(({ code, text }) =>
        element(
          "button",
          { class: "chip", attributes: { type: "button", lang: code }, on: { click: () => (this.put(text), void this.start()) } },
          `${text.split("\n")[0] ?? ""} …`,
        ),
      ),
    );
  }

  private put(text: string): void {
    this.text.value = text;
    this.notices.clear();
    this.empty();
    this.counted();
    this.text.focus();
  }

  private lines(): string[] {
    return this.text.value.split("\n").map((line) => line.trim()).filter(Boolean);
  }

  private counted(): void {
    const n = this.lines().length;
    say(this.count, n > MAX_TEXTS / 2 ? "texts_of" : n === 1 ? "one_text" : "many_texts", { n, most: MAX_TEXTS });
  }

  private empty(): void {
    this.last = null;
    this.results.replaceChildren(say(element("p", { class: "soft none" }), "table_empty"));
  }

  private async start(): Promise<void> {
    const lines = this.lines();
    const size = lines.reduce((sum, line) => sum + line.length, 0);
    const long = lines.findIndex((line) => line.length > MAX_TEXT_CHARACTERS);
    this.notices.clear();
    if (!lines.length) return this.notices.hint("nothing");
    if (lines.length > MAX_TEXTS) return this.notices.hint("fail_too_many", { n: lines.length, most: MAX_TEXTS });
    if (size > MAX_CHARACTERS) return this.notices.hint("fail_too_long", { n: size, most: MAX_CHARACTERS });
    if (long >= 0) return this.notices.hint("fail_line_long", { line: long + 1, n: lines[long]?.length ?? 0, most: MAX_TEXT_CHARACTERS });
    this.results.setAttribute("aria-busy", "true");
    try {
      const answer = await this.run.during((signal) => classify(lines, this.panel.model.id, signal));
      if (answer) this.show(answer);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (!this.expired(error)) this.notices.failure(error, () => void this.start());
    } finally {
      this.results.removeAttribute("aria-busy");
    }
  }

  private show(answer: Answer<Classification>): void {
    this.last = answer;
    const head = element("tr", {}, ...(["text", "label", "probability"] as const).map((key) => say(element("th", { attributes: { scope: "col" } }), key)));
    const rows = answer.results.map((result) =>
      element(
        "tr",
        {},
        element("td", { class: "said" }, result.text),
        element("td", {}, ...this.labels(result)),
        element("td", {}, ...Object.entries(result.scores).map(([label, score], rank) => bar(this.named(element("span"), label), score, rank))),
      ),
    );
    const many = say(element("span"), rows.length === 1 ? "one_text" : "many_texts", { n: rows.length });
    this.results.replaceChildren(
      element(
        "div",
        { class: "told" },
        say(element("h2", { class: "caption" }), "results"),
        many,
        sayTime(element("span"), answer.seconds),
        copyButton(() => this.copied(), "copy_table"),
      ),
      element("div", { class: "sheet" }, element("table", { class: "labels" }, element("thead", {}, head), element("tbody", {}, ...rows))),
    );
  }

  private labels(result: Classification): HTMLElement[] {
    const labels = result.labels ?? (result.label === undefined ? [] : [result.label]);
    if (!labels.length) return [say(element("span", { class: "tag none" }), "none_label")];
    return labels.map((label) => this.named(element("span", { class: label === this.panel.model.out_of_scope ? "tag none" : "tag" }), label));
  }

  /** Writes a label as people read it; its exact name is the tooltip. */
  private named(made: HTMLElement, label: string): HTMLElement {
    made.title = label;
    if (label === this.panel.model.out_of_scope) return say(made, "out_of_scope");
    made.textContent = label.replaceAll("_", " ");
    return made;
  }

  private copied(): string {
    const cell = (text: string) => text.replace(/\s+/g, " ").replace(/^[=+\-@]/, "'$&"); // a spreadsheet would run it
    return (this.last?.results ?? [])
      .map((result) => {
        const labels = (result.labels ?? [result.label ?? ""]).join(", ");
        return [result.text, labels, String(Object.values(result.scores)[0] ?? "")].map(cell).join("\t");
      })
      .join("\n");
  }
}

function bar(label: HTMLElement, score: number, rank: number): HTMLElement {
  const fill = element("i");
  fill.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
  return element(
    "div",
    { class: rank === 0 ? "share first" : "share" },
    label,
    element("span", { class: "track", attributes: { "aria-hidden": "true" } }, fill),
    element("b", {}, percent(score)),
  );
}
