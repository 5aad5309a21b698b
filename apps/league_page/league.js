// The league: a tab for each arena, outliers against coverage with a point for each rule, and a table that sorts.
// A point leads to its setting in the explorer.

const SVG = "http://www.w3.org/2000/svg"
const WIDTH = 900
const HEIGHT = 460
const EDGE = { left: 62, right: 16, top: 12, bottom: 46 }
const KNEE = 0.01 // outliers: linear below, logarithmic above
const SHAPES = [
  (r) => `M ${-r} 0 a ${r} ${r} 0 1 0 ${2 * r} 0 a ${r} ${r} 0 1 0 ${-2 * r} 0`,
  (r) => `M ${-r} ${-r} h ${2 * r} v ${2 * r} h ${-2 * r} Z`,
  (r) => `M 0 ${-1.2 * r} L ${1.1 * r} ${r} H ${-1.1 * r} Z`,
  (r) => `M 0 ${-1.3 * r} L ${1.3 * r} 0 L 0 ${1.3 * r} L ${-1.3 * r} 0 Z`,
  (r) => `M 0 ${1.2 * r} L ${1.1 * r} ${-r} H ${-1.1 * r} Z`,
]
const STYLE = `
  .league { font-size: 14px; line-height: 1.45; position: relative; }
  .league button { font: inherit; color: inherit; background: none; border: 0; padding: 6px 10px; cursor: pointer; }
  .league button:focus-visible, .league a:focus-visible { outline: 2px solid #2f7bd9; outline-offset: 2px; }
  .tabs { display: flex; flex-wrap: wrap; gap: 2px; border-bottom: 1px solid rgba(128,128,128,.35); margin-bottom: 8px; }
  .tabs [aria-selected=true] { box-shadow: inset 0 -2px currentColor; font-weight: 600; }
  .families { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 6px 0; }
  .families label { display: inline-flex; align-items: center; gap: 5px; cursor: pointer; }
  .league svg { display: block; } .plot { width: 100%; height: auto; }
  .plot text { fill: currentColor; font-size: 13px; } .plot .axis { stroke: currentColor; opacity: .45; }
  .plot .grid { stroke: currentColor; opacity: .12; } .plot .front { stroke: currentColor; opacity: .6; fill: none;
    stroke-dasharray: 5 4; }
  .plot .name { font-size: 12px; paint-order: stroke; stroke: var(--mui-palette-background-default, #fff); stroke-width: 3px; }
  .plot .interval { stroke-opacity: .5; stroke-width: 1.2; }
  .tip { position: absolute; pointer-events: none; background: var(--mui-palette-background-paper, #fff); z-index: 5;
    border: 1px solid rgba(128,128,128,.5); border-radius: 4px; padding: 6px 9px; font-size: 12.5px; max-width: 320px; }
  .scroll { overflow-x: auto; } .league table { border-collapse: collapse; font-size: 13px;
    font-variant-numeric: tabular-nums; width: 100%; }
  .league th, .league td { text-align: left; padding: 5px 12px 5px 0; white-space: nowrap; vertical-align: top;
    border-bottom: 1px solid rgba(128,128,128,.25); }
  .league th button { padding: 0; font-weight: 600; text-align: left; white-space: normal; min-width: 64px; }
  .league td a { color: inherit; } .absent { margin: 4px 0 20px; padding-left: 18px; }
`

function make(tag, attributes = {}, ...children) {
  const drawn = ["svg", "g", "path", "line", "text", "polyline"].includes(tag)
  const node = drawn ? document.createElementNS(SVG, tag) : document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value)
  node.append(...children)
  return node
}

const bent = (v) => (v <= KNEE ? Math.max(v, 0) / KNEE : 1 + Math.log10(v / KNEE))

/** The axes of an arena: places in the drawing, and ticks. */
function axesOf(arena, rules) {
  const xs = rules.flatMap((r) => r.x).filter((v) => arena.branched || v > 0)
  const ahead = arena.branched ? (v) => v : (v) => Math.log10(Math.max(v, 1e-6))
  let [low, high] = xs.length ? [Math.min(...xs), Math.max(...xs)] : [0.1, 1]
  if (arena.branched) [low, high] = [Math.max(0, low - 0.03), Math.min(1, high + 0.03)]
  else [low, high] = [low / 1.2, high * 1.2]
  const top = bent(Math.min(1, Math.max(0.02, ...rules.flatMap((r) => r.y)) * 1.1))
  const share = (v) => (ahead(v) - ahead(low)) / (ahead(high) - ahead(low) || 1)
  const ticks = arena.branched
    ? [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    : [-4, -3, -2, -1, 0, 1].flatMap((k) => [1, 2, 5].map((d) => d * 10 ** k))
  return {
    x: (v) => EDGE.left + Math.min(Math.max(share(v), 0), 1) * (WIDTH - EDGE.left - EDGE.right),
    y: (v) => HEIGHT - EDGE.bottom - (Math.min(bent(v), top) / top) * (HEIGHT - EDGE.top - EDGE.bottom),
    xTicks: ticks.filter((v) => v >= low && v <= high),
    yTicks: [0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].filter((v) => bent(v) <= top),
  }
}

function plot(arena, families, hidden, tell) {
  const rules = arena.rules.filter((r) => r.x && !hidden.has(r.family))
  const { x, y, xTicks, yTicks } = axesOf(arena, rules)
  const across = arena.branched ? "coverage" : "sliced Wasserstein distance to the truth"
  const label = `Outliers against ${across}, a point for each rule; the table below has the numbers`
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "plot", role: "group", "aria-label": label })
  const [left, right, bottom] = [EDGE.left, WIDTH - EDGE.right, HEIGHT - EDGE.bottom]
  for (const v of xTicks) {
    svg.append(make("line", { x1: x(v), x2: x(v), y1: EDGE.top, y2: bottom, class: "grid" }))
    svg.append(make("text", { x: x(v), y: bottom + 18, "text-anchor": "middle" }, `${+v.toPrecision(2)}`))
  }
  for (const v of yTicks) {
    svg.append(make("line", { x1: left, x2: right, y1: y(v), y2: y(v), class: "grid" }))
    svg.append(make("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, `${v}`))
  }
  svg.append(make("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }))
  svg.append(make("line", { x1: left, x2: left, y1: EDGE.top, y2: bottom, class: "axis" }))
  svg.append(make("text", { x: (left + right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, across))
  const turned = `translate(14 ${(EDGE.top + bottom) / 2}) rotate(-90)`
  svg.append(make("text", { transform: turned, "text-anchor": "middle" }, "outliers"))
  const byName = new Map(rules.map((r) => [r.rule, r]))
  const corners = arena.front.filter((key) => byName.has(key)).map((key) => byName.get(key))
  const points = corners.map((r) => `${x(r.x[0])},${y(r.y[0])}`).join(" ")
  svg.append(make("polyline", { points, class: "front" }))
  for (const r of rules) svg.append(point(r, families.get(r.family), x, y, tell))
  const taken = []
  for (const r of [...corners, byName.get("none"), byName.get("cfg")].filter(Boolean)) name(svg, r, x, y, taken)
  return svg
}

function point(r, family, x, y, tell) {
  const [u, v] = [x(r.x[0]), y(r.y[0])]
  const line = (x1, x2, y1, y2) => make("line", { x1, x2, y1, y2, stroke: family.colour, class: "interval" })
  const shape = SHAPES[family.shape % SHAPES.length](5)
  const mark = make("path", { d: shape, fill: family.colour, transform: `translate(${u} ${v})` })
  const link = document.createElementNS(SVG, "a")
  link.setAttribute("aria-label", `${r.rule}: ${r.setting}`)
  if (r.address) link.setAttribute("href", r.address)
  link.append(line(x(r.x[1]), x(r.x[2]), v, v), line(u, u, y(r.y[1]), y(r.y[2])), mark)
  for (const kind of ["pointerenter", "focus"]) link.addEventListener(kind, () => tell(r, mark))
  for (const kind of ["pointerleave", "blur"]) link.addEventListener(kind, () => tell(null))
  return link
}

/** Write a rule's name beside its point, unless every place there covers another name. */
function name(svg, r, x, y, taken) {
  const [u, v, wide, high] = [x(r.x[0]), y(r.y[0]), 7.2 * r.rule.length, 14]
  for (const [right, up] of [[9, -6], [-9 - wide, -6], [9, 16], [-9 - wide, 16]]) {
    const box = { left: u + right, right: u + right + wide, top: v + up - high, bottom: v + up }
    const free = taken.every((o) => box.right < o.left || o.right < box.left || box.bottom < o.top || o.bottom < box.top)
    if (!free || box.left < EDGE.left || box.right > WIDTH || box.top < 0) continue
    taken.push(box)
    svg.append(make("text", { x: box.left, y: box.bottom - 3, class: "name" }, r.rule))
    return
  }
}

function table(arena, hidden, order, sort) {
  const head = arena.titles.map((title, column) => {
    const button = make("button", { type: "button" }, title)
    button.addEventListener("click", () => sort(column))
    const how = order.column !== column ? "none" : order.down ? "descending" : "ascending"
    return make("th", { scope: "col", "aria-sort": how }, button)
  })
  const rules = arena.rules.filter((r) => !hidden.has(r.family))
  if (order.column !== null) {
    const of = (r) => r.cells[order.column].replace("▲ ", "")
    const value = (r) => (of(r) === "–" ? (order.down ? -Infinity : Infinity) : parseFloat(of(r)))
    const named = rules.some((r) => Number.isNaN(value(r)))
    rules.sort((a, b) => (named ? of(a).localeCompare(of(b)) : value(a) - value(b)) * (order.down ? -1 : 1))
  }
  const rows = rules.map((r) => {
    const cells = r.cells.map((text, column) => make("td", {}, column || !r.address ? text : make("a", { href: r.address }, text)))
    return make("tr", {}, ...cells)
  })
  return make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)))
}

export function render({ model, el }) {
  const { arenas, families } = model.league
  const byFamily = new Map(families.map((f) => [f.name, f]))
  const hidden = new Set()
  let order = { column: null, down: false }
  let shown = 0
  const tip = make("div", { class: "tip", hidden: "" })
  const body = make("div", { role: "tabpanel" })
  const root = make("div", { class: "league" }, make("style", {}, STYLE))

  function tell(rule, mark) {
    tip.hidden = !rule
    if (!rule) return
    const titles = arenas[shown].titles
    const lines = [`${rule.rule} (${rule.title}): ${rule.setting}`, ...rule.cells.slice(2).map((text, i) => `${titles[i + 2]}: ${text}`)]
    tip.replaceChildren(...lines.map((line) => make("div", {}, line)))
    const [at, frame] = [mark.getBoundingClientRect(), root.getBoundingClientRect()]
    tip.style.left = `${Math.min(at.right - frame.left + 10, Math.max(0, frame.width - 330))}px`
    tip.style.top = `${at.bottom - frame.top + 10}px`
  }
  function sort(column) {
    order = { column, down: order.column === column && !order.down }
    draw()
    body.querySelectorAll("th button")[column].focus()
  }
  function draw() {
    tip.hidden = true
    const arena = arenas[shown]
    tabs.forEach((tab, i) => tab.setAttribute("aria-selected", i === shown))
    const absent = arena.absent.map(([rule, reason]) => make("li", {}, `${rule}: ${reason}`))
    const rest = make("details", {}, make("summary", {}, `${absent.length} rules do not run here`), make("ul", { class: "absent" }, ...absent))
    body.replaceChildren(plot(arena, byFamily, hidden, tell), filters, table(arena, hidden, order, sort), rest)
  }

  const tabs = arenas.map((arena, i) => {
    const tab = make("button", { type: "button", role: "tab" }, arena.title)
    tab.addEventListener("click", () => {
      shown = i
      order = { column: null, down: false }
      draw()
    })
    return tab
  })
  const filters = make("div", { class: "families", role: "group", "aria-label": "Families of rules" })
  for (const family of families) {
    const box = make("input", { type: "checkbox" })
    box.checked = true
    box.addEventListener("change", () => {
      box.checked ? hidden.delete(family.name) : hidden.add(family.name)
      draw()
    })
    const shape = make("path", { d: SHAPES[family.shape % SHAPES.length](5), fill: family.colour, transform: "translate(8 8)" })
    filters.append(make("label", {}, box, make("svg", { width: 16, height: 16, "aria-hidden": "true" }, shape), family.name))
  }
  root.append(make("div", { class: "tabs", role: "tablist" }, ...tabs), body, tip)
  draw()
  return root
}
