// The translation tab.

import { Failure, MAX_CHARACTERS, MAX_TEXTS, MAX_TEXT_CHARACTERS, translate, type Answer, type Model, type Translation } from "./api";
import { element, icon } from "./dom";
import { Notices } from "./notice";
import { Panel } from "./panel";
import { copyButton, Run } from "./run";
import { languageName, percent, say, sayTime, sayWhere, word } from "./words";

const EXAMPLES: Record<string, string[]> = {
  zh: ["今天天气很好，我们去公园散步吧。", "请问火车站怎么走？", "找不到该文件。"],
  en: ["I would like a cup of tea, please.", "What time does the meeting start?", "Return the number of items in the list."],
};

export class TranslateTab {
  readonly place = element("div", { class: "tab" });
  private readonly panel: Panel;
  private readonly notices = new Notices();
  private readonly from = element("select", { attributes: { id: "from" } });
  private readonly to = element("select", { attributes: { id: "to" } });
  private readonly versions = element("select", { attributes: { id: "versions" } });
  private readonly text = element("textarea", {
    attributes: { id: "source", spellcheck: "false", autocapitalize: "off", rows: "7", "aria-describedby": "source-count" },
  });
  private readonly count = element("span", { class: "soft", attributes: { id: "source-count" } });
  private readonly output = element("div", { class: "output", attributes: { "aria-live": "polite", tabindex: "0", role: "region" } });
  private readonly told = element("div", { class: "told" });
  private readonly examples = element("div", { class: "examples" });
  private readonly run: Run;
  private last: Answer<Translation> | null = null;

  constructor(models: Model[], private readonly expired: (failure: Failure) => boolean) {
    this.panel = new Panel(models, () => this.offer());
    this.run = new Run("run_translate", () => void this.start());
    this.layOut();
    this.offer();
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
      this.offer();
      if (this.last) this.show(this.last);
    });
    this.counted();
  }

  focus(): void {
    this.text.focus();
  }

  private layOut(): void {
    const swap = element("button", { class: "round", attributes: { type: "button" }, on: { click: () => this.swap() } }, icon("M4 8h14m-4-4 4 4-4 4", "M20 16H6m4-4-4 4 4 4"));
    say(swap, "swap", {}, "aria-label");
    say(swap, "swap", {}, "title");
    const clear = element("button", { class: "quiet", attributes: { type: "button" }, on: { click: () => this.put("") } });
    say(this.output, "result_label", {}, "aria-label");
    this.empty();
    this.place.append(
      element(
        "div",
        { class: "work" },
        element("header", { class: "lead" }, say(element("h1"), "translate"), sayWhere(element("p", { class: "soft" }))),
        element(
          "div",
          { class: "sheet" },
          element(
            "div",
            { class: "bar" },
            element("div", { class: "choice" }, say(element("label", { attributes: { for: "from" } }), "from"), this.from),
            swap,
            element("div", { class: "choice" }, say(element("label", { attributes: { for: "to" } }), "to"), this.to),
            element("div", { class: "choice end" }, say(element("label", { attributes: { for: "versions" } }), "alternatives"), this.versions),
          ),
          element(
            "div",
            { class: "panes" },
            element(
              "section",
              { class: "pane" },
              say(element("label", { class: "sr", attributes: { for: "source" } }), "source_label"),
              say(this.text, "source_placeholder", {}, "placeholder"),
              element("div", { class: "foot" }, this.count, say(clear, "clear"), this.run.button),
            ),
            element("section", { class: "pane result" }, this.output, element("div", { class: "foot" }, this.told, copyButton(() => this.translated()))),
          ),
        ),
        this.notices.place,
        this.examples,
        say(element("p", { class: "ai" }), "notice"),
      ),
      this.panel.place,
    );
  }

  /** Fill the menus for the chosen model, in the page's language, keeping what is chosen. */
  private offer(): void {
    const directions = this.panel.model.directions ?? [];
    const fill = (select: HTMLSelectElement, automatic: string, codes: string[]) => {
      const chosen = select.value;
      select.replaceChildren(new Option(automatic, ""), ...codes.map((code) => new Option(languageName(code), code)));
      if (codes.includes(chosen)) select.value = chosen;
    };
    fill(this.from, word("detect"), [...new Set(directions.map(([from]) => from))]);
    fill(this.to, word("other"), [...new Set(directions.map(([, to]) => to))]);
    const kept = this.versions.value;
    this.versions.replaceChildren(new Option(word("only_best"), "1"), ...[2, 3, 4].map((n) => new Option(word("best_of", { n }), String(n))));
    if (kept) this.versions.value = kept;
    const sources = new Set(directions.map(([from]) => from));
    const texts = Object.entries(EXAMPLES).flatMap(([code, list]) => (sources.has(code) ? list.map((text) => ({ code, text })) : []));
    this.examples.replaceChildren(
      say(element("span", { class: "caption" }), "examples"),
      ...texts.map(({ code, text }) =>
        element("button", { class: "chip", attributes: { type: "button", lang: code }, on: { click: () => this.example(text) } }, text),
      ),
    );
    this.counted();
  }

  private example(text: string): void {
    this.from.value = "";
    this.to.value = "";
    this.put(text);
    void this.start();
  }

  private put(text: string): void {
    this.text.value = text;
    this.notices.clear();
    this.empty();
    this.counted();
    this.text.focus();
  }

  private swap(): void {
    const first = this.last?.results.find((result) => result.translation.trim());
    const from = this.from.value || first?.source_language || "";
    const to = this.to.value || first?.target_language || "";
    const translated = this.translated();
    this.from.value = to;
    this.to.value = from;
    if (translated) this.put(translated);
  }

  private counted(): void {
    const n = this.text.value.length;
    say(this.count, n > MAX_CHARACTERS / 2 ? "characters_of" : "characters", { n, most: MAX_CHARACTERS });
    this.text.lang = this.from.value;
  }

  private empty(): void {
    this.last = null;
    this.output.className = "output empty";
    this.output.replaceChildren(say(element("p"), "result_empty"));
    this.told.replaceChildren();
  }

  private translated(): string {
    return this.last ? this.last.results.map((result) => result.translation).join("\n") : "";
  }

  private async start(): Promise<void> {
    const lines = this.text.value.replace(/\s+$/, "").split("\n");
    this.notices.clear();
    const long = lines.findIndex((line) => line.length > MAX_TEXT_CHARACTERS);
    if (!this.text.value.trim()) return this.notices.hint("nothing");
    if (this.text.value.length > MAX_CHARACTERS) return this.notices.hint("fail_too_long", { n: this.text.value.length, most: MAX_CHARACTERS });
    if (lines.length > MAX_TEXTS) return this.notices.hint("fail_too_many", { n: lines.length, most: MAX_TEXTS });
    if (long >= 0) return this.notices.hint("fail_line_long", { line: long + 1, n: lines[long]?.length ?? 0, most: MAX_TEXT_CHARACTERS });
    const asked = {
      text: lines,
      model: this.panel.model.id,
      from: this.from.value || null,
      to: this.to.value || null,
      alternatives: lines.length === 1 ? Number(this.versions.value) : 1,
    };
    this.output.setAttribute("aria-busy", "true");
    try {
      const answer = await this.run.during((signal) => translate(asked, signal));
      if (answer) this.show(answer);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (!this.expired(error)) this.notices.failure(error, () => void this.start());
    } finally {
      this.output.removeAttribute("aria-busy");
    }
  }

  private show(answer: Answer<Translation>): void {
    this.last = answer;
    const said = answer.results.filter((result) => result.source.trim());
    const [first] = said;
    if (!first) return this.empty();
    const languages = new Set(said.map((result) => `${result.source_language} ${result.target_language}`));
    const certainty = said.reduce((sum, result) => sum + Math.exp(Math.min(0, result.score)), 0) / said.length;
    this.output.className = "output";
    this.output.lang = first.target_language;
    this.output.replaceChildren(...answer.results.map((result) => element("p", {}, result.translation || "\u00a0")));
    const others = first.alternatives.filter((other) => other !== first.translation);
    if (said.length === 1 && others.length) {
      this.output.append(
        element("div", { class: "others" }, say(element("h2", { class: "caption" }), "more_versions"), element("ul", {}, ...others.map((other) => element("li", {}, other)))),
      );
    }
    const sure = say(element("span"), "certainty", { p: percent(certainty) });
    say(sure, "certainty_hint", {}, "title");
    const direction = languages.size === 1 ? [element("span", { class: "direction" }, word("direction", { from: languageName(first.source_language), to: languageName(first.target_language) }))] : [];
    this.told.replaceChildren(...direction, sure, sayTime(element("span"), answer.seconds));
  }
}
