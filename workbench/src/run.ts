// The button that starts work and, while it lasts, stops it; and the button that copies a result.

import { element, icon } from "./dom";
import { say, type Word } from "./words";

export class Run {
  readonly button: HTMLButtonElement;
  private readonly label = element("span");
  private abort: AbortController | null = null;

  constructor(
    private readonly idle: Word,
    start: () => void,
  ) {
    this.button = element(
      "button",
      {
        class: "primary run",
        attributes: { type: "button", "aria-keyshortcuts": "Control+Enter" },
        on: { click: () => (this.abort ? this.abort.abort() : start()) },
      },
      say(this.label, idle),
      element("kbd", { attributes: { "aria-hidden": "true" } }, "Ctrl ⏎"),
    );
  }

  /** The result of the work, or null when the user stopped it. New work replaces what is under way. */
  async during<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result | null> {
    this.abort?.abort();
    const mine = new AbortController();
    this.abort = mine;
    this.button.classList.add("busy");
    say(this.label, "stop");
    try {
      return await work(mine.signal);
    } catch (error) {
      if (mine.signal.aborted) return null;
      throw error;
    } finally {
      if (this.abort === mine) {
        this.abort = null;
        this.button.classList.remove("busy");
        say(this.label, this.idle);
      }
    }
  }
}

export function copyButton(text: () => string, key: Word = "copy"): HTMLButtonElement {
  const label = say(element("span", { attributes: { "aria-live": "polite" } }), key);
  const button = element("button", { class: "quiet copy", attributes: { type: "button" } }, icon("M9 9h11v11H9z", "M5 15H4V4h11v1"), label);
  button.addEventListener("click", () => {
    const copied = text();
    if (!copied) return;
    const done = navigator.clipboard?.writeText(copied) ?? Promise.reject(new Error("no clipboard"));
    done.then(
      () => say(label, "copied"),
      () => say(label, "copy_failed"),
    );
    setTimeout(() => say(label, key), 2500);
  });
  return button;
}
