// Elements are made here and nowhere else, and every string becomes a text node: nothing that a user, a model or a
// model card says is ever parsed as HTML. The server's policy (require-trusted-types-for) holds the page to that.

type Child = Node | string | null;
type Handlers = { [Name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[Name]) => void };
interface Options {
  class?: string;
  attributes?: Record<string, string | boolean>;
  on?: Handlers;
}

export function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  options: Options = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  if (options.class) made.className = options.class;
  for (const [name, value] of Object.entries(options.attributes ?? {})) {
    if (typeof value === "boolean") made.toggleAttribute(name, value);
    else made.setAttribute(name, value);
  }
  for (const [name, handler] of Object.entries(options.on ?? {})) {
    made.addEventListener(name, handler as EventListener);
  }
  made.append(...children.filter((child): child is Node | string => child !== null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** A line drawing of 24 by 24, in the colour of the text around it. */
export function icon(...paths: string[]): SVGSVGElement {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  for (const path of paths) {
    const line = document.createElementNS(SVG, "path");
    line.setAttribute("d", path);
    drawing.append(line);
  }
  return drawing;
}

/** The inkstone from above: the slab, its pool of ink, and a red seal. */
export function logo(): SVGSVGElement {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 32 32");
  drawing.setAttribute("class", "logo");
  drawing.setAttribute("aria-hidden", "true");
  const shapes: [string, Record<string, string>][] = [
    ["rect", { x: "3", y: "2", width: "26", height: "28", rx: "6", class: "slab" }],
    ["rect", { x: "5.5", y: "4.5", width: "21", height: "23", rx: "4", class: "rim" }],
    ["path", { d: "M9 12.5c0-3.2 3-5 7-5s7 1.8 7 5c0 1.6-2.2 1.3-3.6.5-1.9-1.1-4.9-1.1-6.8 0-1.400.8-3.600 1.100-3.600-.5z", class: "pool" }],
    ["rect", { x: "19.5", y: "20.5", width: "4.5", height: "4.5", rx: "0.8", class: "seal" }],
  ];
  for (const [tag, attributes] of shapes) {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    drawing.append(shape);
  }
  return drawing;
}
