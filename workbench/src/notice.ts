// Trouble, told where it happened: what, why, and what to do next.

import { Failure } from "./api";
import { element } from "./dom";
import { say, type Word } from "./words";

/** A place in a tab that holds one notice, or none. It is an alert: screen readers speak up. */
export class Notices {
  readonly place = element("div", { class: "notices", attributes: { role: "alert" } });

  clear(): void {
    this.place.replaceChildren();
  }

  tell(title: Word, help: Node, again?: () => void): void {
    const notice = element("div", { class: "notice" }, say(element("strong"), title), help);
    if (again) notice.append(say(element("button", { class: "quiet", attributes: { type: "button" }, on: { click: again } }), "try_again"));
    this.place.replaceChildren(notice);
  }

  hint(key: Word, values: Record<string, number> = {}): void {
    this.place.replaceChildren(element("div", { class: "notice" }, say(element("span"), key, values)));
  }

  failure(failure: Failure, again: () => void): void {
    if (failure.status === 0) {
      this.tell("fail_network", say(element("span"), "fail_network_help"), again);
    } else if (failure.status === 429 || failure.status === 503) {
      const wait = Math.max(1, failure.retryAfterS);
      this.tell("fail_busy", say(element("span"), "fail_busy_help", { s: wait }), again);
    } else if (failure.status >= 500) {
      this.tell("fail_server", say(element("span"), "fail_server_help"), again);
    } else {
      this.tell("fail_request", element("span", { attributes: { lang: "en" } }, failure.message));
    }
  }
}

/** Asks for the API key; calls back once something was entered. */
export function keyForm(wrong: boolean, entered: (key: string) => void): HTMLElement {
  const input = element("input", {
    attributes: { type: "password", id: "key", autocomplete: "off", spellcheck: "false", required: true },
  });
  const form = element(
    "form",
    {
      class: "sheet key",
      on: {
        submit: (event) => {
          event.preventDefault();
          if (input.value.trim()) entered(input.value.trim());
        },
      },
    },
    say(element("h1"), "key_title"),
    say(element("p"), "key_help"),
    wrong ? element("div", { class: "notices", attributes: { role: "alert" } }, say(element("div", { class: "notice" }), "key_wrong")) : null,
    element(
      "div",
      { class: "row" },
      say(element("label", { class: "sr", attributes: { for: "key" } }), "key_label"),
      say(input, "key_label", {}, "placeholder"),
      say(element("button", { class: "primary", attributes: { type: "submit" } }), "key_enter"),
    ),
  );
  queueMicrotask(() => input.focus());
  return form;
}
