// Model cards are Markdown that a stranger may have written. This reads the part of Markdown that cards use - headings,
// paragraphs, lists, tables, code, emphasis, links - and builds elements from it; HTML in a card is shown as text, an
// image as its description. Links are kept for http(s) only and open elsewhere.

import { element } from "./dom";

export function markdown(text: string): HTMLElement {
  const card = element("div", { class: "markdown" });
  const lines = withoutFrontMatter(text.replace(/\r\n?/g, "\n")).split("\n");
  let place = 0;
  const take = (test: (line: string) => boolean): string[] => {
    const start = place;
    while (place < lines.length && test(lines[place] ?? "")) place += 1;
    return lines.slice(start, place);
  };
  while (place < lines.length) {
    const line = lines[place] ?? "";
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    if (line.trim() === "") {
      place += 1;
    } else if (/^(```|~~~)/.test(line)) {
      place += 1;
      const code = take((inner) => !/^(```|~~~)\s*$/.test(inner));
      place += 1;
      card.append(element("pre", { attributes: { tabindex: "0" } }, element("code", {}, code.join("\n"))));
    } else if (heading) {
      place += 1;
      const level = Math.min(6, (heading[1]?.length ?? 1) + 2) as 3 | 4 | 5 | 6;
      card.append(element(`h${level}`, {}, ...inline(heading[2] ?? "")));
    } else if (/^\s*\|.*\|\s*$/.test(line)) {
      card.append(table(take((row) => /^\s*\|.*\|\s*$/.test(row))));
    } else if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) {
      card.append(list(take((item) => /^\s*([-*+]|\d+[.)])\s+/.test(item) || /^\s+\S/.test(item))));
    } else if (/^(-{3,}|\*{3,}|_{3,})\s*$/.test(line)) {
      place += 1;
      card.append(element("hr"));
    } else {
      const paragraph = [line, ...(((place += 1), take((next) => next.trim() !== "" && !/^(#{1,6}\s|```|~~~|\s*([-*+]|\d+[.)])\s+|\s*\|.*\|\s*$)/.test(next))))];
      card.append(element("p", {}, ...inline(paragraph.map((part) => part.replace(/^>\s?/, "")).join(" "))));
    }
  }
  return card;
}

function withoutFrontMatter(text: string): string {
  return text.replace(/^---\n[\s\S]*?\n---\n/, "");
}

function list(lines: string[]): HTMLElement {
  const made = element(/^\s*\d/.test(lines[0] ?? "") ? "ol" : "ul");
  const items: string[] = [];
  for (const line of lines) {
    const item = /^\s*(?:[-*+]|\d+[.)])\s+(.*)$/.exec(line);
    if (item) items.push(item[1] ?? "");
    else items.push(`${items.pop() ?? ""} ${line.trim()}`);
  }
  made.append(...items.map((item) => element("li", {}, ...inline(item))));
  return made;
}

function table(lines: string[]): HTMLElement {
  const rows = lines.map((line) => line.trim().slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|")));
  const ruled = rows.length > 1 && (rows[1] ?? []).every((cell) => /^:?-+:?$/.test(cell));
  const made = element("table");
  if (ruled) {
    const head = element("tr", {}, ...(rows[0] ?? []).map((cell) => element("th", { attributes: { scope: "col" } }, ...inline(cell))));
    made.append(element("thead", {}, head));
  }
  const body = (ruled ? rows.slice(2) : rows).map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, ...inline(cell)))));
  made.append(element("tbody", {}, ...body));
  return element("div", { class: "scroll", attributes: { tabindex: "0" } }, made);
}

const INLINE = /(`+)(.+?)\1|!\[([^\]]*)\]\([^)\s]*\)|\[([^\]]+)\]\(([^)\s]+)\)|\*\*(.+?)\*\*|__(.+?)__|\*([^*\s][^*]*)\*/;

function inline(text: string): (Node | string)[] {
  const parts: (Node | string)[] = [];
  let rest = text;
  for (let found = INLINE.exec(rest); found; found = INLINE.exec(rest)) {
    if (found.index > 0) parts.push(rest.slice(0, found.index));
    const [whole, , code, image, label, address, strong, stronger, emphasis] = found;
    if (code !== undefined) parts.push(element("code", {}, code.trim()));
    else if (image !== undefined) parts.push(image ? element("span", { class: "picture" }, image) : "");
    else if (label !== undefined) parts.push(link(label, address ?? ""));
    else if (strong !== undefined || stronger !== undefined) parts.push(element("strong", {}, ...inline(strong ?? stronger ?? "")));
    else if (emphasis !== undefined) parts.push(element("em", {}, ...inline(emphasis)));
    rest = rest.slice(found.index + whole.length);
  }
  if (rest) parts.push(rest);
  return parts;
}

function link(label: string, address: string): Node {
  if (!/^https?:\/\//i.test(address)) return document.createTextNode(label);
  return element("a", { attributes: { href: address, rel: "noopener noreferrer nofollow", target: "_blank" } }, label);
}
