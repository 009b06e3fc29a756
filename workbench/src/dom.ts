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
    ["circle", { cx: "15", cy: "15", r: "14", class: "slab" }],
    ["circle", { cx: "15", cy: "15", r: "11.2", class: "pool" }],
    ["circle", { cx: "15", cy: "17.6", r: "8.6", class: "plane" }],
    ["rect", { x: "22.5", y: "22.5", width: "8.5", height: "8.5", rx: "1.6", class: "seal" }],
  ];
  for (const [tag, attributes] of shapes) {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    drawing.append(shape);
  }
  return drawing;
}
